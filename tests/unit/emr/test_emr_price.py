"""What a run costs: sums that can be made on paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verger.emr.price import (
    DRIVER,
    EXECUTOR,
    FINISH_S,
    STARTUP_S,
    Limit,
    Rates,
    Usage,
    estimate_run,
    executors_for,
    limit_cost,
    load_rates,
    per_thousand,
)
from verger.emr.requests import RequestPrice
from verger.errors import ConfigError

#: A dollar a core and hour, ten cents a GB of memory: sums one can see through.
RATES = Rates("eu-west-3", "X86_64", 1.0, 0.1, 0.01, "USD", "a test", "2026-11-27", checked=True)


def test_an_hour_of_a_driver_and_two_executors_on_paper() -> None:
    """2 + 2 x 4 cores and 8 + 2 x 12 GB for an hour; the disk that comes with a worker is free."""
    assert (DRIVER.vcpu, DRIVER.memory_gb) == (2, 8)
    assert (EXECUTOR.vcpu, EXECUTOR.memory_gb) == (4, 12)
    usage = Usage.of(3600, 2)
    assert usage == Usage(10.0, 32.0, 0.0)
    assert RATES.cost(usage) == pytest.approx(10 * 1.0 + 32 * 0.1)
    assert RATES.cost(Usage(0, 0, 50)) == pytest.approx(0.5)


def test_every_worker_is_billed_for_a_minute_at_least() -> None:
    assert Usage.of(1, 2) == Usage.of(60, 2) != Usage.of(61, 2)


def test_an_estimate_has_the_start_in_it() -> None:
    """24,000 photos at 10 a second and core on two executors of four cores: 300 s, and the rest."""
    found = estimate_run(24_000, 10.0, RATES, max_executors=2)
    assert found.executors == 2
    assert found.seconds == pytest.approx(STARTUP_S + 300 + FINISH_S)
    hours = found.seconds / 3600
    assert found.cost == pytest.approx(hours * (10 * 1.0 + 32 * 0.1))
    values = found.as_dict()
    assert values["cost_per_1000_photos"] == pytest.approx(found.cost / 24)
    assert values["minutes"] == pytest.approx(found.seconds / 60)
    assert values["rates"]["source"] == "a test"


def test_requests_are_counted_and_priced_apart() -> None:
    """A million photos at 0.42 for a million reads are more than a few cents for all else."""
    rates = replace(RATES, requests=RequestPrice(0.00042, 0.0053))
    found = estimate_run(10**6, 10.0, rates, max_executors=2)
    assert 1 <= found.requests.reads / 10**6 <= 1.1
    assert found.requests.writes < 20_000
    reads, writes = found.requests.reads * 0.42e-6, found.requests.writes * 5.3e-6
    assert found.requests_cost == pytest.approx(reads + writes)
    assert found.cost == estimate_run(10**6, 10.0, RATES, max_executors=2).cost
    assert found.as_dict()["total"] == pytest.approx(found.cost + found.requests_cost)
    assert limit_cost(RATES, Limit(2, 600), 7.7, 1.1) == Limit(2, 30)
    with pytest.raises(ConfigError, match=r"at least 2\.34 USD: .*, and 1\.00 of requests"):
        limit_cost(RATES, Limit(4, 600), 1.0, 1.0)


def test_an_executor_that_had_nothing_to_do_is_not_planned_with() -> None:
    """An executor of four cores does 12,000 photos in five minutes at 10 a second and core."""
    assert [executors_for(n, 10.0, 8) for n in (1, 12_000, 12_001, 48_000, 10**9)] == [
        1,
        1,
        2,
        4,
        8,
    ]


@pytest.mark.parametrize(
    ("speed", "most", "says"),
    [(0.0, 1, "speed=0.0 must be above 0"), (1.0, 0, "max_executors=0 must be at least 1")],
)
def test_what_cannot_be_planned_is_refused(speed: float, most: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        executors_for(10, speed, most)


def test_no_photo_has_no_price() -> None:
    assert per_thousand(1.0, 0) is None
    assert per_thousand(0.5, 2000) == pytest.approx(0.25)


# A sum that is not passed


def test_money_takes_minutes_away_first() -> None:
    """Two executors cost 13.20 an hour here: 6.60 is half an hour of them."""
    assert limit_cost(RATES, Limit(2, 600), 6.6) == Limit(2, 30)
    assert limit_cost(RATES, Limit(2, 20), 6.6) == Limit(2, 20)
    assert limit_cost(RATES, Limit(2, 600), None) == Limit(2, 600)


def test_money_takes_executors_away_where_no_time_would_be_left() -> None:
    """Two dollars are nine minutes of two executors, and fifteen of one at 8.00 an hour."""
    assert limit_cost(RATES, Limit(2, 600), 2.0) == Limit(1, 15)


def test_too_little_money_is_told_with_the_least() -> None:
    """One executor for ten minutes is 8.00 / 6."""
    with pytest.raises(ConfigError, match=r"max_cost=1 must be at least 1\.34 USD"):
        limit_cost(RATES, Limit(4, 600), 1.0)
    assert limit_cost(RATES, Limit(4, 600), 1.34) == Limit(1, 10)


@given(
    st.floats(0.001, 10),
    st.floats(0.0001, 1),
    st.integers(1, 100),
    st.integers(1, 5000),
    st.floats(0.01, 1e5),
)
def test_a_limit_never_lets_a_run_cost_more(
    vcpu: float, memory: float, executors: int, minutes: int, money: float
) -> None:
    """All workers busy until the time is over is the dearest that a run can be."""
    rates = replace(RATES, vcpu_hour=vcpu, memory_gb_hour=memory)
    wanted = Limit(executors, minutes)
    try:
        found = limit_cost(rates, wanted, money)
    except ConfigError:
        assert rates.cost(Usage.of(60 * min(10, minutes), 1)) > money * 0.999
        return
    assert rates.cost(Usage.of(60 * found.minutes, found.executors)) <= money * 1.000001
    assert 1 <= found.executors <= executors
    assert 1 <= found.minutes <= minutes


# Rates


@pytest.mark.parametrize("region", ["eu-west-1", "eu-west-3", "eu-central-1", "eu-north-1"])
def test_verger_s_own_rates_say_that_they_are_to_be_checked(region: str) -> None:
    """They carry a date and a source; memory is cheaper than cores, ARM than x86."""
    intel, arm = (load_rates(region, kind) for kind in ("X86_64", "ARM64"))
    assert arm.vcpu_hour < intel.vcpu_hour
    assert arm.memory_gb_hour < intel.memory_gb_hour < intel.vcpu_hour
    assert "check them" in intel.words
    assert "aws.amazon.com/emr/pricing" in intel.words
    assert "X86_64" in arm.source  # which it was computed from
    assert intel.date in intel.words


def _file(folder: Path, number: str = "0.5") -> Path:
    file = folder / "mine.toml"
    file.write_text(
        'source = "my bill"\ndate = 2026-11-01\nchecked = true\ncurrency = "EUR"\n'
        f"[eu-north-1.ARM64]\nvcpu_hour = {number}\nmemory_gb_hour = 0.1\nstorage_gb_hour = 0\n"
        "[eu-north-1.s3]\nread_1000 = 0.1\nwrite_1000 = 1\n"
    )
    return file


def test_rates_of_one_s_own_replace_them(tmp_path: Path) -> None:
    rates = load_rates("eu-north-1", "ARM64", _file(tmp_path))
    assert (rates.vcpu_hour, rates.currency, rates.date) == (0.5, "EUR", "2026-11-01")
    assert rates.requests == RequestPrice(0.1, 1.0)
    assert "check them" not in rates.words


def test_a_region_without_rates_is_told_with_those_that_have_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none for region=eu-west-3, ARM64; there are eu-north"):
        load_rates("eu-west-3", "ARM64", _file(tmp_path))


@pytest.mark.parametrize("number", ["-1", '"cheap"', "true"])
def test_a_rate_that_is_none_is_refused(number: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: vcpu_hour="):
        load_rates("eu-north-1", "ARM64", _file(tmp_path, number))


def test_rates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_rates("eu-west-3", "ARM64", tmp_path / "none.toml")
