"""Ask AWS's price list for the rates of a region, and write them as a file of rates.

The attributes by which products are told apart are those that ``aws-emr-utilities`` of AWS asks
for (``AwsPricing.scala``); the shape of the answers is botocore's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from verger.emr.aws import aws_errors
from verger.emr.rates import RatesFile
from verger.errors import CloudError, OutputError

#: The region in the European Union that has an endpoint of the price list, for all regions.
PRICES_IN = "eu-central-1"
#: Unit of a product of EMR Serverless to the kind of processors and the rate that it is.
_SERVERLESS = {
    "CPUHours": ("X86_64", "vcpu_hour"),
    "GBHours": ("X86_64", "memory_gb_hour"),
    "ARMCPUHours": ("ARM64", "vcpu_hour"),
    "ARMGBHours": ("ARM64", "memory_gb_hour"),
}
_STORAGE = "StorageGBHours"
#: Group of requests to S3, which are priced one by one, to their rate for 1,000.
_REQUESTS = {"S3-API-Tier2": "read_1000", "S3-API-Tier1": "write_1000"}
#: What EMR gives nodes as disks when nothing is asked.
_VOLUME = "gp2"
#: A table of a file of rates: name to number, or to the rates of one type of nodes.
Table = dict[str, Any]


def read_prices(client: Any, region: str, types: Sequence[str]) -> dict[str, Table]:
    """Return the tables of a region: ``X86_64``, ``ARM64``, ``s3``, ``disk`` and ``nodes``.

    Parameters
    ----------
    client : botocore client
        Of the price list, in :data:`PRICES_IN`.
    region : str
    types : sequence of str
        Of nodes; those that the region lacks are left out.

    Raises
    ------
    CloudError
        If AWS refuses, or its list lacks the rates of EMR Serverless.
    """
    return {
        **_serverless(client, region),
        "s3": _requests(client, region),
        "disk": {"gb_month": _disk(client, region)},
        "nodes": dict(_nodes(client, region, types)),
    }


def _serverless(client: Any, region: str) -> dict[str, Table]:
    tables: dict[str, Table] = {"X86_64": {}, "ARM64": {}}
    for unit in (*_SERVERLESS, _STORAGE):
        products = _products(client, "ElasticMapReduce", regionCode=region, meterunit=unit)
        prices = [price for has, price in products if "SERVERLESS" in has.get("usagetype", "")]
        if not prices:
            raise CloudError(f"the price list of AWS has no {unit} of EMR Serverless in {region}")
        kind, rate = _SERVERLESS.get(unit, ("", "storage_gb_hour"))
        for table in [tables[kind]] if kind else tables.values():
            table[rate] = prices[0]
    return tables


def _requests(client: Any, region: str) -> Table:
    return {
        rate: round(1000 * _price(client, region, group, "AmazonS3", group=group), 9)
        for group, rate in _REQUESTS.items()
    }


def _disk(client: Any, region: str) -> float:
    has = {"productFamily": "Storage", "volumeApiName": _VOLUME}
    return _price(client, region, f"disk {_VOLUME}", "AmazonEC2", **has)


def _price(client: Any, region: str, name: str, service: str, **has: str) -> float:
    """Return the price of what a service has by these properties in a region."""
    for _, price in _products(client, service, regionCode=region, **has):
        return price
    raise CloudError(f"the price list of AWS has no {name} in {region}")


def _nodes(client: Any, region: str, types: Sequence[str]) -> Iterator[tuple[str, Table]]:
    machine = {
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    for kind in types:
        where = {"regionCode": region, "instanceType": kind}
        on_demand = [price for _, price in _products(client, "AmazonEC2", **where, **machine)]
        fees = [
            price
            for _, price in _products(
                client,
                "ElasticMapReduce",
                **where,
                productFamily="Elastic Map Reduce Instance",
                softwareType="EMR",
            )
        ]
        if on_demand and fees:
            yield kind, {"on_demand_hour": on_demand[0], "emr_hour": fees[0]}


def _products(
    client: Any, service: str, **wanted: str
) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield attributes of products and their prices on demand, in dollars, but no free ones."""
    filters = [
        {"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()
    ]
    pages = client.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters)
    with aws_errors("ask the price list of AWS (pricing:GetProducts)"):
        for product in (json.loads(text) for page in pages for text in page["PriceList"]):
            for term in product["terms"].get("OnDemand", {}).values():
                for dimension in term["priceDimensions"].values():
                    price = float(dimension["pricePerUnit"].get("USD", 0.0))
                    if price > 0:
                        yield product["product"]["attributes"], price


def write_rates(path: Path, region: str, tables: Mapping[str, Table]) -> None:
    """Write a file of rates with the tables of one region; spot's share is Verger's own.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    source = f"AWS Price List API, {region}"
    head = {
        "source": source,
        "date": date.today().isoformat(),
        "ec2_source": source,
        "ec2_date": date.today().isoformat(),
        "checked": True,
        "currency": "USD",
        "spot_share": RatesFile.read(None).values["spot_share"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    for kind, table in tables.items():
        lines += ["", f"[{region}.{kind}]"]
        lines += [f"{json.dumps(name)} = {_inline(value)}" for name, value in table.items()]
    try:
        path.write_text("\n".join([*lines, ""]), "utf-8")
    except OSError as err:
        raise OutputError(f"rates {path}: cannot be written: {err.strerror}") from err


def _inline(value: Any) -> str:
    """Return a number, or a table in one line, as TOML has it."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{ " + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + " }"
