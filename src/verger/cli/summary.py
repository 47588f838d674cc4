"""What a run's record says, in a few lines."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from verger.cli.terminal import clean, print_json, print_rows, tell

if TYPE_CHECKING:
    from verger.result.clock import Spent
    from verger.result.record import Counts, PCARecord, RunRecord


#: A label in quotes that begins or ends with a blank, at which no line may be broken.
_BLANK_AT_END = re.compile(r"""(?<![^\s(])(['"])( [^'"]*|[^'"]* )\1(?![^\s,;)])""")


def print_summary(record: RunRecord, out: str | Path, as_json: bool) -> None:
    """Print what a run has done, and where its report is: in ``out``, which may be a copy."""
    if as_json:
        print_json(record)
        return
    from verger.result.output import REPORT, Output

    counts, model = record.counts, record.model
    lines = [("photos", _ledger(counts))]
    if record.up_to_date:
        lines.append(("", f"up to date: nothing has changed since {record.finished}"))
    elif counts.computed != counts.listed:
        n_known = counts.listed - counts.computed
        lines.append(("", f"{n_known:,} were done before, {counts.computed:,} now"))
    if counts.relabelled:
        lines.append(("", f"{counts.relabelled:,} got another label, and no features again"))
    for reason, n in counts.reasons.items():
        lines.append(("", f"{n:,} rejected: {reason}"))
    if counts.truncated:
        lines.append(("", f"{counts.truncated:,} accepted though truncated, and marked"))
    if counts.clamped:
        when = "with a modification time outside the years 1678 to 2261, stored as the nearest"
        lines.append(("", f"{counts.clamped:,} {when}"))
    if counts.gone:
        rows = "1 row is of a photo" if counts.gone == 1 else f"{counts.gone:,} rows are of photos"
        lines.append(("", f"{rows} no longer listed; --prune drops them"))
    if counts.ignored:
        left_out = ", ".join(f"{n:,} {suffix}" for suffix, n in counts.ignored.items())
        lines.append(("", f"left out: {left_out}"))
    shape = f"{counts.featurized:,} x {model.n_features}"
    contract = record.contract_hash[:12]
    lines.append(("features", f"{shape} float32 by {model.name}, contract {contract}"))
    if record.pca:
        lines.append(("pca", _pca_line(record.pca)))
    lines.append(("time", _time_line(record)))
    if record.spent:
        lines.append(("workers", _spent_line(record.spent, record.machine)))
    if record.checks:
        held = sum(check.holds for check in record.checks)
        lines.append(("checks", f"{held} of {len(record.checks)} hold"))
    output = Output.at(out)
    page = output.folder.exists(REPORT)
    where = ("report", output.address(REPORT)) if page else ("result", output.root)
    print_rows([*lines, where])
    width = min(shutil.get_terminal_size().columns, 100)  # a longer line is hard to read
    for notice in _warnings(record):
        text = _BLANK_AT_END.sub(lambda label: label[0].replace(" ", "\xa0"), clean(notice))
        for line in click.wrap_text(f"note: {text}", width, "", "      ").splitlines():
            tell(line.replace("\xa0", " "))


def _ledger(counts: Counts) -> str:
    gone = f" + {counts.gone:,} no longer listed" if counts.gone else ""
    return (
        f"{counts.listed:,} listed{gone} = {counts.featurized:,} with features "
        f"+ {counts.rejected:,} rejected"
    )


def _pca_line(pca: PCARecord) -> str:
    at = ", ".join(f"{float(share):.0%} at {k}" for share, k in pca.k.items())
    return f"k = {pca.n_components} keeps {pca.kept:.1%} of the variance ({at})"


def _time_line(record: RunRecord) -> str:
    seconds = record.seconds
    text = f"{sum(seconds.values()):.1f} s in all"
    if seconds.get("featurize"):
        speed = record.counts.computed / seconds["featurize"]
        digits = 0 if speed >= 10 else 1
        text += f"; featurize {seconds['featurize']:.1f} s, {speed:.{digits}f} images/s"
    return text


def _spent_line(spent: Spent, machine: Mapping[str, object]) -> str:
    parts = ", ".join(f"{part} {share:.0%}" for part, share in spent.total.shares.items())
    place = f"Spark on {machine['master']}" if machine.get("master") else "this machine"
    return f"{parts}; {len(spent.workers)} on {place}"


def _warnings(record: RunRecord) -> list[str]:
    notices = list(record.notices)
    if record.n_without_vector:
        notices.append(
            f"the PCA leaves out {record.n_without_vector:,} of {record.counts.featurized:,} rows, "
            "which have no vector; verger validate finds what else is wrong"
        )
    if record.model.published is False:
        notices.append("these weights do not compute what the published ImageNet weights compute")
    return notices
