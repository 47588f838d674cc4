"""The command ``verger emr rates``: what sums are made with, and AWS's own price list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from verger.cli.emr.options import connect_as_given, rates_option, region_options
from verger.cli.options import json_option
from verger.cli.terminal import print_json, say


@click.command("rates")
@rates_option
@click.option(
    "--refresh",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask AWS's price list for the region, and write FILE, for --rates.",
)
@region_options
@json_option()
def emr_rates(
    rates: Path | None, refresh: Path | None, region: str | None, as_json: bool, **_: Any
) -> None:
    """Show the rates of estimates, with the source and the date of each."""
    if refresh is not None:
        region, rates = _refresh(refresh), refresh
    shown = [row for row in _rows(rates) if region in (None, row["region"])]
    if as_json:
        print_json(shown)
        return
    for row in shown:
        source = f"{row['source']}, {row['date']}{'' if row['checked'] else '; check it'}"
        price = f"{row['price']:>10g} {row['currency']}"
        say(f"{row['region']:<13} {row['rate']:<26} {price}  {source}")
    if not shown:
        say(f"no rates for {region}; verger emr rates --region {region} --refresh FILE asks AWS")


def _refresh(path: Path) -> str:
    """Write the rates of the region that the command was given, and return it."""
    from verger.emr.clusters import INSTANCE_TYPES
    from verger.emr.price_list import PRICES_IN, read_prices, write_rates

    cloud = connect_as_given()
    types = [kind for kinds in INSTANCE_TYPES.values() for kind in kinds]
    write_rates(
        path, cloud.region, read_prices(cloud.client("pricing", PRICES_IN), cloud.region, types)
    )
    return cloud.region


def _rows(file: Path | None) -> Iterator[dict[str, Any]]:
    """Yield every rate of a file: of EMR Serverless by processor, of nodes by type."""
    from dataclasses import asdict

    from verger.emr.jobs import ARCHITECTURES
    from verger.emr.node_price import load_node_rates
    from verger.emr.price import load_rates
    from verger.emr.rates import RatesFile

    values = RatesFile.read(file)
    for kind in ARCHITECTURES:
        for region in values.regions(kind):
            rates = asdict(load_rates(region, kind, file))
            for name in ("vcpu_hour", "memory_gb_hour", "storage_gb_hour"):
                yield _row(rates, f"{kind} {name}", rates[name])
    for region in values.regions("s3"):
        about = values.about("source", "date", values.table(region, "s3")) | {"region": region}
        for name, price in asdict(values.requests(region)).items():
            yield _row(about, f"S3 {name}", price)
    for region in values.regions("nodes"):
        types = [key for key, row in values.table(region, "nodes").items() if isinstance(row, dict)]
        nodes = asdict(load_node_rates(region, types, file))
        for kind, prices in nodes["nodes"].items():
            for name, price in prices.items():
                yield _row(nodes, f"{kind} {name}", price)
        yield _row(nodes, "disk_gb_month", nodes["disk_gb_month"])


def _row(about: dict[str, Any], rate: str, price: float) -> dict[str, Any]:
    keys = ("region", "currency", "source", "date", "checked")
    return {"rate": rate, "price": price} | {key: about[key] for key in keys}
