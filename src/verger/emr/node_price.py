"""Compute what a cluster on EC2 costs: hours of its nodes, EMR's fee for them, and their disks.

Arithmetic alone, as in :mod:`verger.emr.price`. AWS tells no bill of a cluster before the next day;
what is told here is made of the hours of its nodes, which EMR knows, and of rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from verger.emr.price import EXECUTOR, LEAST_BILLED_S, Worker, per_thousand
from verger.emr.rates import UNCHECKED, RatesFile
from verger.emr.requests import FREE, RequestPrice

#: Nodes on demand: the primary one, and the one with the driver.
N_ON_DEMAND = 2
#: Assumed: what EMR gives a node of 4 virtual cores when nothing is asked, in GB: 64, and 15 for
#: its system. Nodes with disks of their own have less.
NODE_DISK_GB = 79
#: Assumed, in seconds: until a cluster computes; and until then, and until all nodes are gone,
#: where spot nodes are waited for until nodes on demand are taken.
CLUSTER_STARTUP_S = 480.0
CLUSTER_UNBOUNDED_S = 1500.0
HOURS_A_MONTH = 730.0
_SPOT = "SPOT"


@dataclass(frozen=True)
class NodePrice:
    """Prices of one type of nodes: EC2's on demand, and EMR's fee, whatever the market."""

    on_demand_hour: float
    emr_hour: float


@dataclass(frozen=True)
class NodeUsage:
    """Hours of nodes by their types.

    Attributes
    ----------
    on_demand, spot : mapping of str to float
    n_going : int
        Nodes that were still there when it was read.
    """

    on_demand: Mapping[str, float] = field(default_factory=dict)
    spot: Mapping[str, float] = field(default_factory=dict)
    n_going: int = 0

    @property
    def types(self) -> list[str]:
        """All types of nodes in it."""
        return sorted({*self.on_demand, *self.spot})

    @classmethod
    def billed(cls, instances: Iterable[Mapping[str, Any]], now: datetime) -> NodeUsage:
        """Add up the instances of a cluster, as ``ListInstances`` tells them.

        Parameters
        ----------
        instances : iterable of mapping
        now : datetime
            Until when those count that are still there.
        """
        hours: dict[bool, dict[str, float]] = {False: {}, True: {}}
        n_going = 0
        for node in instances:
            if "Ec2InstanceId" not in node:  # asked for, and never had
                continue
            timeline = node["Status"]["Timeline"]
            ended = timeline.get("EndDateTime")
            n_going += ended is None
            seconds = ((ended or now) - timeline["CreationDateTime"]).total_seconds()
            of_market = hours[node.get("Market") == _SPOT]
            kind = node["InstanceType"]
            of_market[kind] = of_market.get(kind, 0.0) + max(LEAST_BILLED_S, seconds) / 3600
        return cls(hours[False], hours[True], n_going)


@dataclass(frozen=True)
class NodeRates:
    """Prices of nodes in one region.

    Attributes
    ----------
    region : str
    nodes : mapping of str to NodePrice
        Of the types that a cluster may have.
    spot_share : float
        What a spot node costs of its price on demand; assumed, since it changes by the hour.
    disk_gb_month : float
    currency, source, date : str
    checked : bool
    requests : RequestPrice
        Of S3.
    """

    region: str
    nodes: Mapping[str, NodePrice]
    spot_share: float
    disk_gb_month: float
    currency: str
    source: str
    date: str
    checked: bool
    requests: RequestPrice = FREE
    executor: ClassVar[Worker] = EXECUTOR
    startup_s: ClassVar[float] = CLUSTER_STARTUP_S
    unbounded_s: ClassVar[float] = CLUSTER_UNBOUNDED_S

    def usage(self, seconds: float, executors: int) -> NodeUsage:
        """Return the use that is expected: the cheapest on demand, all types of spot nodes alike.

        That is how EMR is asked to choose.
        """
        cheapest = min(self.nodes, key=lambda kind: self.nodes[kind].on_demand_hour)
        each = executors * seconds / 3600 / len(self.nodes)
        return NodeUsage({cheapest: N_ON_DEMAND * seconds / 3600}, dict.fromkeys(self.nodes, each))

    def cost(self, usage: NodeUsage) -> float:
        """Return what a use costs.

        Raises
        ------
        KeyError
            If there is a type in it that has no price.
        """
        return sum(
            hours * self._node_hour(kind, share)
            for of_market, share in ((usage.on_demand, 1.0), (usage.spot, self.spot_share))
            for kind, hours in of_market.items()
        )

    def hour(self, executors: int) -> float:
        """Return the most that an hour can cost: the dearest nodes, and none from the spot market.

        Such are taken where no spot node comes.
        """
        return (N_ON_DEMAND + executors) * max(self._node_hour(kind, 1.0) for kind in self.nodes)

    def _node_hour(self, kind: str, share: float) -> float:
        price = self.nodes[kind]
        disk = NODE_DISK_GB * self.disk_gb_month / HOURS_A_MONTH
        return price.on_demand_hour * share + price.emr_hour + disk

    @property
    def words(self) -> str:
        """Say what the rates are, and whether they can be relied on."""
        nodes = ", ".join(
            f"{kind} {price.on_demand_hour:g} + {price.emr_hour:g}"
            for kind, price in self.nodes.items()
        )
        return (
            f"an hour on demand and of EMR: {nodes}; spot nodes at {self.spot_share:.0%} of the "
            f"first, which is assumed; {self.disk_gb_month:g} a GB-month of disk, {NODE_DISK_GB} "
            f"GB a node; {self.requests.words} ({self.currency}, {self.region}, {self.date}, "
            f"{self.source}{'' if self.checked else UNCHECKED})"
        )


def load_node_rates(region: str, types: Sequence[str], file: Path | None = None) -> NodeRates:
    """Read the rates of some types of nodes from a TOML file, by default Verger's own.

    Raises
    ------
    ConfigError
        If the file cannot be read, or lacks the region or one of the types.
    """
    values = RatesFile.read(file)
    found, disk = values.table(region, "nodes"), values.table(region, "disk")
    nodes = {
        kind: NodePrice(
            *(
                values.number(found.get(kind, {}), key, f"{kind} in {region}")
                for key in ("on_demand_hour", "emr_hour")
            )
        )
        for kind in types
    }
    return NodeRates(
        region,
        nodes,
        values.number(values.values, "spot_share", "spot nodes"),
        values.number(disk, "gb_month", f"disks in {region}"),
        **values.about("ec2_source", "ec2_date", found),
        requests=values.requests(region),
    )


def describe_nodes(usage: NodeUsage, rates: NodeRates, n_photos: int) -> dict[str, Any]:
    """Return what the nodes of a run cost by our rates.

    Parameters
    ----------
    usage : NodeUsage
    rates : NodeRates
    n_photos : int
        Photos that it computed.
    """
    cost = rates.cost(usage)
    return {
        "on_demand_hours": dict(usage.on_demand),
        "spot_hours": dict(usage.spot),
        "nodes_going": usage.n_going,
        "cost": cost,
        "currency": rates.currency,
        "cost_per_1000_photos": per_thousand(cost, n_photos),
    }
