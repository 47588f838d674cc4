"""One offline page about a result, and the same as JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from verger.engine.tasks import Engine
from verger.files.records import as_json, to_plain
from verger.files.tables import Piece
from verger.job.report.chosen import (
    CLASS_PHOTOS,
    MAP_POINTS,
    NEIGHBOUR_POINTS,
    Scores,
    choose_of_classes,
    choose_points,
    choose_rejected,
    path_below,
)
from verger.job.report.flaws import Flaws, look_for_flaws
from verger.job.report.neighbours import place_neighbours, read_neighbours
from verger.job.report.thumbnails import TILE_COLUMNS, TILE_PIXELS, draw_sheet
from verger.pca.plots import SHOWN_COMPONENTS
from verger.result.clock import Spent
from verger.result.derived import Evaluation
from verger.result.inspected import Inspection
from verger.result.output import EVALUATION, INSPECTION, REPORT, SPECTRUM, Output
from verger.result.record import RunRecord

#: Photos that are shown of each flaw.
SHOWN_FLAWED = 8
#: Thumbnails on the page; the map's points have one as long as they last.
TILES = 2400


@dataclass(frozen=True)
class Rows:
    """The rows that a report is about."""

    features: Sequence[Piece]
    rejected: Sequence[Piece]


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped before it had a result.

    Attributes
    ----------
    why : str
    rows : Rows
        What it has committed.
    below : str
        Where its report is written, below OUT: empty, or with a slash at its end.
    """

    why: str
    rows: Rows
    below: str


def write_report(
    engine: Engine, output: Output, record: RunRecord, stopped: Stopped | None = None
) -> dict[str, Any]:
    """Write ``report.html`` and ``report.json``.

    Parameters
    ----------
    engine : Engine
    output : Output
    record : RunRecord
        What ``run.json`` holds, or would hold if the run had not been stopped.
    stopped : Stopped, optional
        If OUT has no result of this run.

    Returns
    -------
    dict
        What ``report.json`` holds.
    """
    from verger.job.report.page import render_page

    report, sprite = gather_report(engine, output, record, stopped)
    lang = record.option("lang")
    page = render_page(report, sprite_jpeg=sprite, lang=str(lang) if lang else None)
    below = stopped.below if stopped else ""
    output.folder.write(f"{below}{REPORT}", page.encode())
    output.folder.write(f"{below}report.json", as_json(report))
    return report


def gather_report(
    engine: Engine, output: Output, record: RunRecord, stopped: Stopped | None
) -> tuple[dict[str, Any], bytes | None]:
    """Collect everything that the page shows, out of the tables and ``run.json``."""
    most = NEIGHBOUR_POINTS if record.option("neighbour_map") else MAP_POINTS
    has_scores = record.pca and "pca" in record.files
    points = choose_points(engine, output, most) if has_scores else None
    folder, rows = output.folder, stopped.rows if stopped else _published(output)
    lost, rejected = choose_rejected(folder, rows.rejected)
    flaws = look_for_flaws(engine, folder, rows.features, SHOWN_FLAWED)
    classes, class_paths = _classes(choose_of_classes(engine, folder, rows.features), lost)
    evaluation = None if stopped else output.read_derived(Evaluation, EVALUATION)
    inspection = None if stopped else output.read_derived(Inspection, INSPECTION)
    inspected = inspection.galleries.paths() if inspection else ()
    pairs = evaluation.pairs if evaluation else ()
    mistaken = [path for pair in pairs for path in (*pair.photos, *pair.known)]
    mapped = points[0] if points else ()
    flawed = flaws.table["path"].to_pylist()
    wanted = dict.fromkeys([*inspected, *mistaken, *flawed, *class_paths, *mapped])
    tiles, sprite = draw_sheet(engine, list(wanted)[:TILES], record.source)
    for entry in classes:
        entry["thumbnails"] = [tiles[p] for p in entry.pop("paths") if p in tiles]
    ratios = _ratios(output, record)
    drawn, neighbours = _map(points, tiles, record, classes, ratios), None
    if points and record.option("neighbour_map"):
        neighbours = place_neighbours(points[2], read_neighbours(output))
    plain = to_plain(record)
    return {
        **{key: plain.get(key) for key in _COPIED},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "stopped": stopped.why if stopped else None,
        "reasons": plain["counts"]["reasons"],
        "rejected": rejected,
        "classes": classes,
        "spectrum": ratios,
        "map": drawn and drawn | {"neighbours": to_plain(neighbours)},
        "classifier": _with_thumbnails(evaluation, tiles) if evaluation else None,
        "inspection": _illustrated(inspection, tiles) if inspection else None,
        "quality": _gallery(flaws, tiles),
        "sprite": {"tile": TILE_PIXELS, "columns": TILE_COLUMNS, "paths": list(tiles)}
        if sprite
        else None,
        "stages": _stages(record),
        "runs": to_plain((*record.runs, record.as_past())),
        "spent": _shares(record.spent),
        "notices": _notices(record, has_thumbnails=bool(tiles)),
    }, sprite


def _published(output: Output) -> Rows:
    """Return the rows of a result: all of its files."""
    tables = (output.parts(table) for table in ("features", "rejected"))
    return Rows(*([Piece(part.name, part.rows) for part in parts] for parts in tables))


_COPIED = (
    "verger",
    "source",
    "output",
    "command",
    "counts",
    "model",
    "contract",
    "contract_hash",
    "pca",
    "versions",
    "machine",
    "config",
    "checks",
)


def _classes(
    found: dict[str | None, tuple[int, list[str]]], lost: Mapping[str | None, int]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return every class with its counts and a few of its photos."""
    labels = sorted({*found, *lost}, key=lambda label: (label is None, label or ""))
    classes: list[dict[str, Any]] = []
    for label in labels:
        n, paths = found.get(label, (0, []))
        classes.append(
            {"label": label, "featurized": n, "rejected": lost.get(label, 0), "paths": paths}
        )
    # The first photo of every class before the second of any: all classes get a picture.
    by_rank = [
        p for rank in range(CLASS_PHOTOS) for c in classes for p in c["paths"][rank : rank + 1]
    ]
    return classes, by_rank


def _map(
    points: tuple[list[str], list[str | None], Scores] | None,
    tiles: dict[str, int],
    record: RunRecord,
    classes: Sequence[Mapping[str, Any]],
    ratios: Sequence[float],
) -> dict[str, Any] | None:
    if points is None or record.pca is None:
        return None
    paths, point_labels, scores = points
    totals = {row["label"] or "": row["featurized"] for row in classes if row["featurized"]}
    labels = sorted(totals)
    index = {label: i for i, label in enumerate(labels)}
    n_components = scores.shape[1]
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - n_components))))  # one component: a line
    return {
        "labels": labels,
        "totals": [totals[label] for label in labels],
        "scores": _packed(scores),
        "label": [index[label or ""] for label in point_labels],
        "name": [path_below(path, record.source) for path in paths],
        "thumbnail": [tiles.get(path, -1) for path in paths],
        "share": list(ratios[:n_components]),
        "n_total": record.pca.n_samples,
    }


def _packed(scores: Scores) -> dict[str, Any]:
    """Return scores as 16-bit steps between the lowest and the highest of each component.

    A page that had them as text would be four times as large.
    """
    if not scores.size:
        return {"low": [], "high": [], "steps": ""}
    low, high = scores.min(axis=0), scores.max(axis=0)
    steps = np.rint((scores - low) / np.where(high > low, high - low, 1) * 65535)
    packed = base64.b64encode(steps.T.astype("<u2").tobytes())  # component by component
    return {"low": low.tolist(), "high": high.tolist(), "steps": packed.decode()}


def _ratios(output: Output, record: RunRecord) -> list[float]:
    """Return the shares of the variance of the first components; none if the file was edited."""
    if record.pca is None or not output.folder.exists(SPECTRUM):
        return []
    n = min(SHOWN_COMPONENTS, max(record.pca.n_samples - 1, 1))  # the others are 0
    try:
        lines = output.folder.read(SPECTRUM).decode().splitlines()[1 : n + 1]
        ratios = [round(float(line.split(",")[2]), 6) for line in lines]
    except (ValueError, IndexError):
        return []
    return ratios if all(0 <= ratio <= 1 for ratio in ratios) else []


def _with_thumbnails(evaluation: Evaluation, tiles: dict[str, int]) -> dict[str, Any]:
    """Return an evaluation as plain values, with the thumbnails of the most confused photos."""
    pairs = [
        to_plain(pair)
        | {
            "thumbnails": [tiles[path] for path in pair.photos if path in tiles],
            "known_thumbnails": [tiles[path] for path in pair.known if path in tiles],
        }
        for pair in evaluation.pairs
    ]
    plain: dict[str, Any] = to_plain(evaluation)
    return plain | {"pairs": pairs}


#: Lists of paths in an entry of a gallery.
_SHOWN = ("photos", "like", "typical")


def _illustrated(inspection: Inspection, tiles: dict[str, int]) -> dict[str, Any]:
    """Return an inspection as plain values, with the thumbnails of its galleries."""
    plain: dict[str, Any] = to_plain(inspection)
    for entries in plain["galleries"].values():
        for entry in entries:
            entry["tiles"] = {
                key: [tiles[path] for path in entry[key] if path in tiles]
                for key in _SHOWN
                if key in entry
            }
    return plain


def _gallery(flaws: Flaws, tiles: dict[str, int]) -> dict[str, Any]:
    """Return the worst photos with each flaw."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for row in flaws.table.to_pylist():
        shown.setdefault(row["flaw"], []).append(row)
    return {
        "n_photos": flaws.n_photos,
        "n_measured": flaws.n_measured,
        "flaws": [
            {
                "flaw": flaw,
                "n": flaws.counts[flaw],
                "limit": rows[0]["limit"],
                "photos": [row["path"] for row in rows],
                "values": [row["value"] for row in rows],
                "tiles": [tiles[row["path"]] for row in rows if row["path"] in tiles],
            }
            for flaw, rows in shown.items()
        ],
    }


def _stages(record: RunRecord) -> list[dict[str, Any]]:
    counts = record.counts
    per_photo = dict.fromkeys(("list", "write", "validate", "reduce"), counts.listed)
    per_photo["featurize"] = counts.computed
    return [
        {
            "name": name,
            "seconds": seconds,
            "images_per_s": round(per_photo[name] / seconds, 1)
            if name in per_photo and seconds > 0
            else None,
        }
        for name, seconds in record.seconds.items()
    ]


def _shares(spent: Spent | None) -> list[dict[str, Any]]:
    """Return the workers' time by part, as shares of each one's; the sum over all comes first."""
    if not spent:
        return []
    rows = (replace(spent.total, worker="all workers"), *spent.workers)
    return [
        to_plain(row) | {"shares": {part: round(share, 4) for part, share in row.shares.items()}}
        for row in rows
    ]


def _notices(record: RunRecord, *, has_thumbnails: bool) -> list[str]:
    notices = []
    if record.model.published is False:
        notices.append(
            "These weights do not compute what the published ImageNet weights compute: "
            "the features are those of other weights, or of random ones."
        )
    if record.n_without_vector:
        notices.append(
            f"The PCA leaves out {record.n_without_vector:,} of {record.counts.featurized:,} rows, "
            "which have no vector."
        )
    if not has_thumbnails:
        notices.append("The photos could not be read again, so the page shows no thumbnails.")
    return [*notices, *record.notices]
