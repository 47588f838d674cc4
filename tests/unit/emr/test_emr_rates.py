"""The rates: what is shown of each, and AWS's price list, whose model botocore has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from click.testing import CliRunner

from verger.cli import app
from verger.cli.emr import rates as command
from verger.emr.node_price import NodePrice, load_node_rates
from verger.emr.price import load_rates
from verger.emr.price_list import read_prices, write_rates
from verger.errors import CloudError, OutputError

UNITS = {
    "CPUHours": 0.05,
    "GBHours": 0.006,
    "ARMCPUHours": 0.04,
    "ARMGBHours": 0.005,
    "StorageGBHours": 0.0001,
}
TABLES = {
    "X86_64": {"vcpu_hour": 0.05, "memory_gb_hour": 0.006, "storage_gb_hour": 0.0001},
    "ARM64": {"vcpu_hour": 0.04, "memory_gb_hour": 0.005, "storage_gb_hour": 0.0001},
    "s3": {"read_1000": 0.0004, "write_1000": 0.005},
    "disk": {"gb_month": 0.11},
    "nodes": {"m5.xlarge": {"on_demand_hour": 0.2, "emr_hour": 0.05}},
}


def product(price: float, **attributes: str) -> str:
    """Return a product as the price list tells it: JSON in a text."""
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}}
    terms = {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms})


def expect(stub: Stubber, service: str, products: list[str], **wanted: str) -> None:
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in wanted.items()]
    asked = {"ServiceCode": service, "Filters": filters}
    stub.add_response("get_products", {"PriceList": products}, asked)


@pytest.fixture
def stub() -> Iterator[Stubber]:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    with Stubber(boto3.client("pricing", region_name="eu-central-1", **keys)) as stub:
        yield stub


def test_a_region_s_prices_are_read_from_aws_s_list(stub: Stubber) -> None:
    """Of products with the same unit the one of EMR Serverless counts; a free one counts never."""
    for unit, price in UNITS.items():
        others = [product(9.0, usagetype="EU-EKS-EC2"), product(0.0, usagetype="EU-SERVERLESS")]
        mine = product(price, usagetype="EU-EMR-SERVERLESS")
        expect(stub, "ElasticMapReduce", [*others, mine], regionCode="eu-west-1", meterunit=unit)
    for group, price in (("S3-API-Tier2", 4e-7), ("S3-API-Tier1", 5e-6)):
        expect(stub, "AmazonS3", [product(price)], regionCode="eu-west-1", group=group)
    volumes = {"productFamily": "Storage", "volumeApiName": "gp2"}
    expect(stub, "AmazonEC2", [product(0.11)], regionCode="eu-west-1", **volumes)
    linux = {
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    fee = {"productFamily": "Elastic Map Reduce Instance", "softwareType": "EMR"}
    for kind, prices in (("m5.xlarge", [0.2]), ("m5a.xlarge", [])):
        where = {"regionCode": "eu-west-1", "instanceType": kind}
        expect(stub, "AmazonEC2", [product(price) for price in prices], **where, **linux)
        expect(stub, "ElasticMapReduce", [product(0.05)], **where, **fee)
    assert read_prices(stub.client, "eu-west-1", ["m5.xlarge", "m5a.xlarge"]) == TABLES
    stub.assert_no_pending_responses()


def test_a_list_without_emr_serverless_is_refused(stub: Stubber) -> None:
    """A rate that is missing is no rate of nothing."""
    expect(stub, "ElasticMapReduce", [], regionCode="eu-west-1", meterunit="CPUHours")
    with pytest.raises(CloudError, match="has no CPUHours of EMR Serverless in eu-west-1"):
        read_prices(stub.client, "eu-west-1", [])


def test_prices_that_one_may_not_ask_for_are_told_with_the_right(stub: Stubber) -> None:
    stub.add_client_error("get_products", "AccessDeniedException")
    with pytest.raises(CloudError, match=r"cannot ask .*pricing:GetProducts"):
        read_prices(stub.client, "eu-west-1", [])


def test_a_file_of_aws_s_prices_is_a_file_of_rates(tmp_path: Path) -> None:
    write_rates(file := tmp_path / "rates.toml", "eu-west-1", TABLES)
    rates = load_rates("eu-west-1", "ARM64", file)
    assert (rates.vcpu_hour, rates.memory_gb_hour, rates.storage_gb_hour) == (0.04, 0.005, 0.0001)
    assert rates.source == "AWS Price List API, eu-west-1"
    assert "check them" not in rates.words
    nodes = load_node_rates("eu-west-1", ["m5.xlarge"], file)
    assert nodes.nodes == {"m5.xlarge": NodePrice(0.2, 0.05)}
    assert (nodes.disk_gb_month, nodes.spot_share) == (0.11, 0.4)
    with pytest.raises(OutputError, match=r"rates .*none.* cannot be written: No such file"):
        write_rates(tmp_path / "none" / "r.toml", "eu-west-1", TABLES)


# The command


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["emr", "rates", *words])


@pytest.mark.parametrize(
    ("region", "storage"),
    [("eu-west-1", 0.000122), ("eu-west-3", 0.000129), ("eu-central-1", 0.000132)],
)
def test_every_rate_is_shown_with_its_source_and_date(region: str, storage: float) -> None:
    """Disks of workers cost what PerfKitBenchmarker's list of AWS's prices says."""
    shown = json.loads(call("--region", region, "--json").stdout)
    prices = {row["rate"]: row["price"] for row in shown}
    assert {row["region"] for row in shown} == {region}
    assert prices["X86_64 storage_gb_hour"] == prices["ARM64 storage_gb_hour"] == storage
    assert len(prices) == 3 + 3 + 2 + 2 * 8 + 1
    assert all(row["source"] and row["date"] and not row["checked"] for row in shown)
    sources = {row["rate"].split()[0]: row["source"] for row in shown}
    assert "PerfKitBenchmarker" in sources["X86_64"]
    assert "memory" in sources["ARM64"]
    text = call("--region", region).stdout
    assert all(f"{row['price']:g}" in text for row in shown)
    assert "check it" in text


def test_a_region_without_rates_is_told_where_to_get_them() -> None:
    assert "--region eu-south-2 --refresh FILE asks AWS" in call("--region", "eu-south-2").stdout


def test_rates_are_refreshed_into_a_file_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price list is asked in the Union; what is shown is what the file says."""
    asked: list[str] = []

    class Cloud:
        region = "eu-south-2"

        def client(self, service: str, region: str) -> str:
            asked.append(f"{service} in {region}")
            return service

    monkeypatch.setattr(command, "connect_as_given", Cloud)
    monkeypatch.setattr("verger.emr.price_list.read_prices", lambda client, region, types: TABLES)
    done = call("--region", "eu-south-2", "--refresh", str(tmp_path / "mine.toml"))
    assert done.exit_code == 0, done.output
    assert asked == ["pricing in eu-central-1"]
    assert len(done.stdout.splitlines()) == 3 + 3 + 2 + 2 + 1
    assert "AWS Price List API, eu-south-2" in done.stdout
    assert load_rates("eu-south-2", "X86_64", tmp_path / "mine.toml").checked is True
