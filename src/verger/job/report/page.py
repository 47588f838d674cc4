"""The report page: one HTML file that needs nothing else, neither a network nor a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader

from verger.job.report.charts import evaluation_charts, scree_chart
from verger.job.report.chosen import path_below
from verger.language import messages

#: Between a number and its unit, so that no line breaks there.
_NBSP = "\u00a0"

#: Classes that are shown at once; the others wait behind a click, or for the search box.
_SHOWN_CLASSES = 24


def render_page(
    report: Mapping[str, Any], *, sprite_jpeg: bytes | None, lang: str | None = None
) -> str:
    """Render the report of a run as one HTML page that makes no request.

    Parameters
    ----------
    report : mapping
        What ``report.json`` holds: plain JSON values, no NaN. Any text in it may come from a
        file name and is shown as text.
    sprite_jpeg : bytes or None
        The thumbnails that ``report["sprite"]`` describes, row by row, ``columns * tile`` pixels
        wide.
    lang : str, optional
        One of :data:`verger.language.LANGUAGES`; that of the reader's browser by default.

    Returns
    -------
    str
        The page; it can be encoded as UTF-8 whatever the file names hold.
    """
    sprite = report.get("sprite") if sprite_jpeg else None
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            lang=lang,
            sprite=sprite,
            sprite_uri=_data_uri("image/jpeg", sprite_jpeg) if sprite and sprite_jpeg else None,
            data=_data(report, sprite),
            run=_overview(report),
            classes=_class_overview(report),
            shown_classes=_SHOWN_CLASSES,
            found=report.get("classifier"),
            inspected=report.get("inspection"),
            scree=_scree(report),
            charts=evaluation_charts(report["classifier"]) if report.get("classifier") else None,
        )
    )
    # A name on disk that is not UTF-8 reaches Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _data(report: Mapping[str, Any], sprite: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the page's script works on."""
    source = report["source"]
    names = [path_below(path, source) for path in (sprite or {}).get("paths", ())]
    grid = {key: value for key, value in (sprite or {}).items() if key != "paths"}
    return {
        "map": report.get("map"),
        "sprite": grid or None,
        "tiles": names,
        "source": source,
        "messages": {"fr": messages("report")},
    }


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("verger.job.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # ``tojson`` writes <, >, & and ' as \\u003c and so on: no name can end its script block.
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "allow_nan": False,
        "separators": (",", ":"),
    }
    environment.filters |= {
        "number": format_number,
        "size": format_size,
        "seconds": format_seconds,
        "percent": format_percent,
        "moment": format_moment,
        "plain": format_plain,
        "below": path_below,
        "quoted": shlex.quote,
        "csp_hash": _csp_hash,
    }
    return environment


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _csp_hash(script: str) -> str:
    """Return the source expression that lets exactly this inline script run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _scree(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Lay out the spectrum, where there is a PCA and nobody has edited its file."""
    pca, ratios = report.get("pca"), report.get("spectrum")
    return scree_chart(ratios, pca) if pca and ratios else None


# What the page says that the report does not say in so many words


def _overview(report: Mapping[str, Any]) -> dict[str, Any]:
    counts, checks = report["counts"], report.get("checks") or []
    machine = report.get("machine") or {}
    failed = [check for check in checks if not check["holds"]]
    gone = counts.get("gone", 0)
    n_open = counts["listed"] + gone - counts["featurized"] - counts["rejected"]
    stopped = report.get("stopped")
    seconds = [stage["seconds"] for stage in report.get("stages") or []]
    rates = [s["images_per_s"] for s in report.get("stages") or [] if s["name"] == "featurize"]
    verdict = "good" if checks else "unknown"
    if failed or n_open or stopped:
        verdict = "bad"
    return {
        "name": report["source"].rstrip("/").rsplit("/", 1)[-1] or report["source"],
        "verdict": verdict,
        "failed": failed,
        "balanced": n_open == 0 or stopped,
        "n_open": n_open,
        "gone": gone,
        "n_known": counts["listed"] - n_open - counts.get("computed", counts["listed"] - n_open),
        "seconds": sum(seconds),
        "longest": max(seconds, default=0) or 1,
        "rate": rates[0] if rates else None,
        "cores": machine.get("cpu_count"),
        "stage_names": list(dict.fromkeys(n for one in _runs(report) for n in one["seconds"])),
        "all_seconds": sum(sum(one["seconds"].values()) for one in _runs(report)),
        "n_ignored": sum((counts.get("ignored") or {}).values()),
    }


def _runs(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return report.get("runs") or []


def _class_overview(report: Mapping[str, Any]) -> dict[str, Any]:
    rows: Sequence[Mapping[str, Any]] = report.get("classes") or []
    by_count = sorted(rows, key=lambda row: row["featurized"])
    labels = (report.get("map") or {}).get("labels") or []
    return {
        "rows": rows,
        "labelled": any(row["label"] is not None for row in rows),
        "smallest": by_count[0] if rows else None,
        "largest": by_count[-1] if rows else None,
        "most": max(by_count[-1]["featurized"], 1) if rows else 1,
        "median": statistics.median(row["featurized"] for row in rows) if rows else 0,
        # The colour of a class is its place in the map's legend.
        "color": {label or "": index for index, label in enumerate(labels)},
    }


# Filters


def format_number(value: float) -> str:
    """Write a count with thousands separators; one decimal below 100 if it has decimals."""
    if isinstance(value, int) or float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def format_size(n_bytes: int) -> str:
    """Write a number of bytes with a decimal unit, three digits at most before the point."""
    size, units = float(n_bytes), ["kB", "MB", "GB", "TB"]
    if size < 1000:
        return f"{n_bytes:,}{_NBSP}B"
    unit = ""
    while units and size >= 999.95:
        size, unit = size / 1000, units.pop(0)
    return f"{size:,.1f}{_NBSP}{unit}"


def format_seconds(seconds: float) -> str:
    """Write a duration: ``0.8 s``, ``3 min 42 s``, ``1 h 05 min``."""
    if seconds < 59.95:
        short = 0 < seconds < 0.05
        return f"< 0.1{_NBSP}s" if short else f"{seconds:.1f}{_NBSP}s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60}{_NBSP}min {total % 60:02d}{_NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{_NBSP}h {minutes % 60:02d}{_NBSP}min"


def format_percent(share: float, digits: int = 1) -> str:
    """Write a share in percent; what is not all or nothing is never rounded to it."""
    step = 10.0**-digits
    if 0 < share < step / 200:
        return f"< {step:.{digits}f}{_NBSP}%"
    if 1 - step / 200 <= share < 1:
        return f"> {100 - step:.{digits}f}{_NBSP}%"
    return f"{100 * share:.{0 if share in (0, 1) else digits}f}{_NBSP}%"


def format_moment(created: str) -> str:
    """Write an ISO time as people do, in UTC; any other text stays as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M}" + (" UTC" if moment.tzinfo else "")


def format_plain(value: Any) -> str:
    """Write a value of an option or a version as one line of text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False) if value else "none"
    return str(value)
