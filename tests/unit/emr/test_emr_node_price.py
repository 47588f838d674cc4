"""What a cluster on EC2 costs: sums that can be made on paper."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verger.emr.clusters import INSTANCE_TYPES
from verger.emr.node_price import (
    CLUSTER_STARTUP_S,
    CLUSTER_UNBOUNDED_S,
    NODE_DISK_GB,
    NodePrice,
    NodeRates,
    NodeUsage,
    describe_nodes,
    load_node_rates,
)
from verger.emr.price import FINISH_S, Limit, estimate_run, limit_cost, most_cost
from verger.errors import ConfigError

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
#: A dollar an hour and two on demand, a tenth and two of EMR's fee, spot at a half, no disk.
RATES = NodeRates(
    "eu-west-3",
    {"small": NodePrice(1.0, 0.1), "large": NodePrice(2.0, 0.2)},
    0.5,
    0.0,
    "USD",
    "a test",
    "2026-11-27",
    checked=True,
)


def node(kind: str, market: str, hours: float | None, begun: float = 5.0) -> dict[str, Any]:
    """Return a node as EMR tells it; one without hours is still there."""
    created = NOW - timedelta(hours=begun)
    ended = {} if hours is None else {"EndDateTime": created + timedelta(hours=hours)}
    status = {"State": "RUNNING", "Timeline": {"CreationDateTime": created, **ended}}
    return {"Ec2InstanceId": "i-0", "InstanceType": kind, "Market": market, "Status": status}


def test_hours_are_added_up_by_type_and_market() -> None:
    """Two ended, one is there since five hours, one lived a second and counts a minute."""
    usage = NodeUsage.billed(
        [
            node("small", "ON_DEMAND", 2.0),
            node("small", "ON_DEMAND", None),
            node("large", "SPOT", 0.5),
            node("large", "SPOT", 1 / 3600),
        ],
        NOW,
    )
    assert usage.on_demand == pytest.approx({"small": 7.0})
    assert usage.spot == pytest.approx({"large": 0.5 + 1 / 60})
    assert usage.n_going == 1
    assert usage.types == ["large", "small"]


def test_a_node_that_never_came_is_not_paid_for() -> None:
    asked = node("small", "SPOT", None)
    del asked["Ec2InstanceId"]
    assert NodeUsage.billed([asked], NOW) == NodeUsage()


def test_spot_nodes_pay_a_share_of_ec2_and_all_of_emr() -> None:
    assert RATES.cost(NodeUsage({"small": 3.0})) == pytest.approx(3.3)
    assert RATES.cost(NodeUsage({}, {"large": 10.0})) == pytest.approx(10 * (1.0 + 0.2))


def test_disks_are_paid_by_the_month() -> None:
    """730 hours are a month."""
    rates = NodeRates("r", {"a": NodePrice(0, 0)}, 0.5, 0.1, "USD", "s", "d", checked=True)
    assert rates.cost(NodeUsage({"a": 730.0})) == pytest.approx(NODE_DISK_GB * 0.1)


def test_an_estimate_has_the_start_and_the_nodes_on_demand_in_it() -> None:
    """24,000 photos at 10 a second and core on two executors take 300 s, and the rest.

    Two of the cheapest on demand; of the spot nodes half are of each type.
    """
    found = estimate_run(24_000, 10.0, RATES, max_executors=2)
    assert found.seconds == pytest.approx(CLUSTER_STARTUP_S + 300 + FINISH_S)
    hours = found.seconds / 3600
    assert found.cost == pytest.approx(hours * (2 * 1.1 + (0.5 + 0.1) + (1.0 + 0.2)))
    values = found.as_dict()
    assert values["assumed"]["startup_s"] == CLUSTER_STARTUP_S
    assert values["rates"]["nodes"]["large"]["emr_hour"] == 0.2


# A sum that is not passed


def test_money_becomes_minutes_after_what_start_and_end_may_cost() -> None:
    """Four of the dearest on demand are 8.80 an hour; 25 minutes go to the start and the end."""
    assert CLUSTER_UNBOUNDED_S == 25 * 60
    assert limit_cost(RATES, Limit(2, 600), 8.8) == Limit(2, 35)
    assert most_cost(RATES, Limit(2, 35)) == pytest.approx(8.8)


def test_too_little_money_is_told_with_the_least() -> None:
    """Three nodes are 6.60 an hour: 35 minutes of them."""
    with pytest.raises(ConfigError, match=r"at least 3\.85 USD: .* and 25 to start and to end"):
        limit_cost(RATES, Limit(2, 600), 3.0)
    assert limit_cost(RATES, Limit(2, 600), 3.86) == Limit(1, 10)


@given(
    st.integers(1, 50),
    st.integers(10, 5000),
    st.floats(0.01, 1e4),
    st.floats(0, 1),
    st.lists(st.sampled_from(["ON_DEMAND", "SPOT"]), min_size=1, max_size=50),
)
def test_whatever_nodes_come_a_limit_is_not_passed(
    executors: int, minutes: int, money: float, part: float, markets: list[str]
) -> None:
    """As many as are allowed, of any type and market, for as long as is reckoned with."""
    try:
        limit = limit_cost(RATES, Limit(executors, minutes), money)
    except ConfigError:
        return
    hours = part * (60 * limit.minutes + CLUSTER_UNBOUNDED_S) / 3600
    nodes = [
        node(("small", "large")[n % 2], market, hours, begun=1e4)
        for n, market in enumerate(markets[: 2 + limit.executors])
    ]
    assert RATES.cost(NodeUsage.billed(nodes, NOW)) <= money * 1.000001


# Rates


@pytest.mark.parametrize("region", ["eu-west-1", "eu-west-3", "eu-central-1"])
@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
def test_all_nodes_that_verger_asks_for_have_rates_that_are_to_be_checked(
    region: str, architecture: str
) -> None:
    """EMR's fee is about a quarter of EC2's price; both are told with their source."""
    rates = load_node_rates(region, INSTANCE_TYPES[architecture])
    for price in rates.nodes.values():
        assert 0.1 < price.emr_hour / price.on_demand_hour < 0.3
    for word in ("check them", "ec2/pricing", "from memory", rates.date, "which is assumed"):
        assert word in rates.words


MINE = """
ec2_source = "my bill"
ec2_date = 2026-11-01
checked = true
currency = "EUR"
spot_share = 0.3
[eu-north-1.s3]
read_1000 = 0.1
write_1000 = 1
[eu-north-1.disk]
gb_month = 0.1
[eu-north-1.nodes]
"c7g.xlarge" = { on_demand_hour = 0.2, emr_hour = 0.03 }
"bad.xlarge" = { on_demand_hour = "cheap", emr_hour = 0.03 }
"""


def test_rates_of_one_s_own_replace_them(tmp_path: Path) -> None:
    (file := tmp_path / "mine.toml").write_text(MINE)
    rates = load_node_rates("eu-north-1", ["c7g.xlarge"], file)
    assert rates.nodes == {"c7g.xlarge": NodePrice(0.2, 0.03)}
    assert (rates.spot_share, rates.currency, rates.date) == (0.3, "EUR", "2026-11-01")
    assert "check them" not in rates.words


@pytest.mark.parametrize(
    ("region", "kind", "change", "says"),
    [
        ("eu-west-3", "c7g.xlarge", "", r"none for region=eu-west-3, nodes; there are eu-north-1"),
        ("eu-north-1", "m5.xlarge", "", r"on_demand_hour=None for m5\.xlarge in eu-north-1"),
        ("eu-north-1", "bad.xlarge", "", r"on_demand_hour='cheap' for bad\.xlarge"),
        ("eu-north-1", "c7g.xlarge", "spot_share = 0.3", r"spot_share=None for spot nodes"),
        ("eu-north-1", "c7g.xlarge", "checked = true", r"mine\.toml: checked is missing"),
    ],
)
def test_rates_that_are_not_whole_are_told(
    region: str, kind: str, change: str, says: str, tmp_path: Path
) -> None:
    (file := tmp_path / "mine.toml").write_text(MINE.replace(change, "") if change else MINE)
    with pytest.raises(ConfigError, match=says):
        load_node_rates(region, [kind], file)


def test_what_was_used_is_told_by_the_thousand() -> None:
    told = describe_nodes(NodeUsage({"small": 1.0}, {"large": 2.0}, 3), RATES, 7000)
    assert told["cost"] == pytest.approx(1.1 + 2 * 1.2)
    assert told["cost_per_1000_photos"] == pytest.approx(3.5 / 7)
    assert (told["nodes_going"], told["currency"]) == (3, "USD")
