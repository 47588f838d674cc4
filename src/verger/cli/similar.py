"""The commands that compare photos: ``similar`` and ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from verger.cli.options import (
    SPARK,
    config_options,
    extractor_option,
    frames_option,
    json_option,
    resolve_config,
    weights_option,
)
from verger.cli.terminal import (
    download_bar,
    keep_page_up,
    print_json,
    print_rows,
    read_named,
    say,
    tell,
    tell_source,
    watch_for,
)
from verger.errors import ConfigError

_approximate = click.option(
    "--approximate",
    is_flag=True,
    help="Look them up in an index of OUT, for large tables; needs the extra 'index'.",
)


@click.command()
@click.argument("photo", metavar="PHOTO")
@click.argument("out", metavar="OUT")
@click.option("-k", type=int, default=10, show_default=True, help="How many to find.")
@_approximate
@weights_option
@extractor_option
@json_option("Print a list of objects as JSON.")
def similar(photo: str, out: str, as_json: bool, **options: Any) -> None:
    """Find the photos of a result that are most like a file, or - for standard input."""
    from verger.classify.predict import list_named
    from verger.similar.photo import find_similar

    if Path(photo).is_dir():
        raise ConfigError(f"PHOTO={photo}: is a folder; name one photo")
    (path,) = list_named([photo])
    if options["approximate"]:
        _tell_of_index(out)
    with download_bar() as on_progress:
        matches = find_similar(read_named(path), out, on_progress=on_progress, **options)
    if as_json:
        print_json([match.as_dict() for match in matches])
        return
    for match in matches:
        say(f"{match.similarity:.4f}  {match.path}  ({match.label or 'no label'})")


def _tell_of_index(out: str) -> None:
    """Say what the index is worth, or that one has to be made."""
    from verger.result.output import Output
    from verger.similar.index import current_index, require_faiss

    require_faiss()
    index = current_index(Output.at(out))
    if index is None:
        tell("no index of these features yet: it is made first")
    else:
        tell(f"an approximate index, which finds {index.recall:.1%} of the nearest {index.k}")


@click.command()
@click.argument("out", metavar="OUT")
@click.option("-k", type=int, default=10, show_default=True, help="Neighbours of each photo.")
@click.option(
    "--near",
    type=float,
    default=0.98,
    show_default=True,
    help="Cosine from which on two photos are nearly the same picture.",
)
@frames_option
@_approximate
@config_options(*SPARK)
def inspect(
    out: str, k: int, near: float, frames: str | None, approximate: bool, as_json: bool, **_: Any
) -> None:
    """Find copies, doubtful labels, outliers, dark or blurry photos ...; the report shows them."""
    config = resolve_config()
    from verger.similar.inspection.stage import Criteria, inspect_photos

    tell_source(out)
    criteria = Criteria(k=k, near=near, frames=frames, approximate=approximate)
    record = inspect_photos(out, config, criteria, watch=watch_for(config))
    if as_json:
        print_json(record)
    else:
        print_rows(_inspection_lines(record), names=11)
    keep_page_up(config)


def _inspection_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what an inspection has found."""
    counts, criteria, index = record["counts"], record["criteria"], record["search"]["index"]
    how = (
        "every photo with every other"
        if index is None
        else (
            f"an approximate index, which finds {index['recall']:.1%} of the nearest {index['k']}"
        )
    )
    lines = [
        ("photos", f"{record['n_photos']:,} of {record['n_labels']} classes, by {how}"),
        ("copies", _groups_line(counts["exact"])),
        (f"from {criteria['near']:g}", _groups_line(counts["near"])),
        (
            "labels",
            f"{counts['mislabelled']:,} doubtful: most of the {criteria['k']} nearest "
            "photos carry another",
        ),
        ("outliers", f"{counts['outliers']:,} photos far from the rest of their class"),
        ("quality", _quality_line(record)),
    ]
    if record["n_unlabelled"]:
        lines.append(
            ("", f"{record['n_unlabelled']:,} without a label: only copies were looked for")
        )
    if record.get("n_without_features"):
        lines.append(("", f"{record['n_without_features']:,} rows without features left out"))
    if record["too_small"]:
        lines.append(("", f"{len(record['too_small'])} classes have too few photos to tell"))
    seconds = record["seconds"]
    return [
        *lines,
        ("time", f"{sum(seconds.values()):.1f} s in all; search {seconds['search']:.1f} s"),
    ]


def _quality_line(record: Mapping[str, Any]) -> str:
    flaws, n = record["counts"]["quality"], record["n_measured"]
    found = ", ".join(f"{count:,} {flaw}" for flaw, count in flaws.items()) or "no flaw"
    if not n:
        found = "no odd size or shape" if not flaws else found
        return f"{found}; brightness and sharpness were not measured when this result was made"
    return found if n >= record["n_photos"] else f"{found}; {n:,} photos were measured"


def _groups_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Say how many groups there are, and what they lie across."""
    text = f"{sum(c['photos'] for c in counts.values()):,} photos in "
    text += f"{sum(c['groups'] for c in counts.values()):,} groups"
    kinds = [f"{c['groups']:,} {_ACROSS[name]}" for name, c in counts.items() if c["groups"]]
    return text + (f": {', '.join(kinds)}" if kinds else "")


_ACROSS = {
    "labels": "across labels",
    "folders": "across folders",
    "photos": "in one folder",
    "film": "within a film",
    "frames": "of neighbouring frames",
}
