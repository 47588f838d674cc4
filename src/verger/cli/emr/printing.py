"""What the commands of ``verger emr`` print."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from verger.cli.terminal import say, tell

if TYPE_CHECKING:
    from verger.emr.price import Estimate
    from verger.emr.runs import Watcher
    from verger.result.record import Check


def print_checks(checks: Iterable[Check], as_json: bool) -> list[Check]:
    """Print checks as they come; with ``--json`` they are printed at the end."""
    printed = []
    for check in checks:
        printed.append(check)
        if not as_json:
            say(f"{'ok    ' if check.holds else 'FAILED'}  {check.name}: {check.detail}")
    return printed


def tell_progress() -> Watcher:
    """Return what tells on stderr how a run goes: one line for each change."""
    from verger.emr.runs import Watcher

    lines = _ProgressLines()
    return Watcher(on_state=lines.state, on_progress=lines.progress, on_log=lines.log)


class _ProgressLines:
    """Prints a line for each change, with the seconds since the first."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = ""

    def state(self, state: str, details: str) -> None:
        self._tell(f"{state}  {details}".rstrip())

    def progress(self, done: int, total: int | None) -> None:
        text = photos_line(done, total)
        if text != self._last:
            self._tell(text)
            self._last = text

    def log(self, line: str) -> None:
        tell(f"  | {line}")

    def _tell(self, text: str) -> None:
        tell(f"{time.monotonic() - self._start:7.0f} s  {text}")


def photos_line(done: int, total: int | None) -> str:
    """Say how many photos are done."""
    return f"{done:,} photos" + (f" of {total:,} ({done / total:.0%})" if total else "")


def estimate_line(estimate: Estimate) -> str:
    """Say what a run is expected to take."""
    from verger.emr.price import per_thousand

    each = per_thousand(estimate.total, estimate.n_photos)
    currency, requests = estimate.rates.currency, estimate.requests
    return (
        f"estimate  {estimate.n_photos:,} photos, {estimate.executors} executors: "
        f"{estimate.seconds / 60:,.0f} minutes with the start, "
        f"{estimate.cost:,.2f} {currency} of computing and {estimate.requests_cost:,.2f} of "
        f"{requests.reads + requests.writes:,} requests"
        + (f", {each:.4f} for 1,000 photos" if each else "")
    )


def bill_line(bill: Mapping[str, Any] | None, *, estimated: float | None = None) -> str:
    """Say what AWS has billed for a run."""
    if bill is None:
        return "billed    AWS has not said yet; verger emr status asks again"
    hours = f"{bill['vcpu_hours']:.3f} vCPU-hours, {bill['memory_gb_hours']:.3f} GB-hours"
    return f"billed    {hours}: {_cost(bill, estimated)}"


def nodes_line(nodes: Mapping[str, Any] | None, *, estimated: float | None = None) -> str:
    """Say what the nodes of a cluster cost."""
    if nodes is None:
        return (
            "nodes     Cost Explorer knows what they cost, by the tag made-by=verger, a day later"
        )
    hours = [sum(nodes[f"{market}_hours"].values()) for market in ("on_demand", "spot")]
    text = f"nodes     {hours[0]:.2f} hours on demand, {hours[1]:.2f} hours of spot nodes: "
    text += _cost(nodes, estimated)
    if nodes["nodes_going"]:
        text += f"; {nodes['nodes_going']} still there, so that it grows"
    return text


def _cost(bill: Mapping[str, Any], estimated: float | None) -> str:
    text = f"{bill['cost']:,.2f} {bill['currency']}"
    if estimated is not None:
        text += f", estimated {estimated:,.2f}"
    each = bill["cost_per_1000_photos"]
    return text + (f", {each:.4f} for 1,000 photos" if each else "")
