"""What looks like a mistake in the labels of a source, in words.

None of it is an error: only people know which classes they meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from unicodedata import category, normalize

import pyarrow.compute as pc

from verger.language import counted
from verger.source.listing import Listing

#: Labels, or groups of them, that a note names.
NAMED = 5
#: Characters of a label that a note shows.
_SHOWN = 60
#: A suffix as files have: short, of letters and digits, all small or all capital.
_SUFFIX = re.compile(r".*\.([a-z][a-z0-9]{1,4}|[A-Z][A-Z0-9]{1,4}|7z)", re.DOTALL)


def describe_source(
    listing: Listing, label_from: str, counts: Mapping[str, int] | None = None
) -> list[str]:
    """Return what looks like a mistake in the folders and labels of a source.

    Parameters
    ----------
    listing : Listing
    label_from : str
        The rule that its labels were taken by.
    counts : mapping of str to int, optional
        Label to number of photos, by default of the listing.
    """
    if counts is None:
        found = listing.photos["label"].drop_null().value_counts().to_pylist()
        counts = {entry["values"]: entry["counts"] for entry in found}
    return [*listing.notes, *describe_folders(listing, label_from), *describe_labels(counts)]


def describe_labels(counts: Mapping[str, int]) -> list[str]:
    """Return what looks like a mistake in the labels of photos.

    Parameters
    ----------
    counts : mapping of str to int
        Label to number of photos.
    """
    notes = []
    if alike := _alike(sorted(counts)):
        groups = [" and ".join(_counted(label, counts) for label in group) for group in alike]
        notes.append(
            "labels that differ only by case, blanks or form are classes of their own: "
            f"{_listed(groups, '; ')}; rename the folders if they are not"
        )
    if files := [label for label in sorted(counts) if _SUFFIX.fullmatch(label)]:
        named = _listed([_counted(label, counts) for label in files])
        notes.append(f"labels that look like names of files, as folders of thumbnails do: {named}")
    if single := [label for label in sorted(counts) if counts[label] == 1]:
        named = _listed([_quoted(label) for label in single])
        what = counted(len(single), "label has", "labels have")
        notes.append(f"{what} only one photo, which cannot be both learned and tested: {named}")
    return notes


def describe_folders(listing: Listing, label_from: str) -> list[str]:
    """Return what looks like a mistake in the folders that labels are taken from.

    Parameters
    ----------
    listing : Listing
    label_from : str
        The rule that its labels were taken by.
    """
    labels = listing.photos["label"].unique().to_pylist()
    if label_from != "parent" or labels == [None] or listing.labelled_by:
        return []
    source, n = listing.source.rstrip("/") + "/", len(listing.photos)
    folders = pc.utf8_slice_codeunits(listing.photos["path"], len(source))
    n_flat = pc.sum(pc.invert(pc.match_substring(folders, "/"))).as_py()
    label = _quoted(source.split("/")[-2])
    if n_flat == n:
        return [
            f"all photos lie in the source itself, so that its name {label} is their only label; "
            "--label-from none gives them none, an expression reads it from their names"
        ]
    if n_flat:
        what = counted(n_flat, "photo lies", "photos lie")
        return [f"{what} in the source itself, beside its folders, and its name {label} is a label"]
    if len(labels) == 1:
        return [f"all photos have one label, {_quoted(labels[0])}, the name of their folder"]
    return []


def _alike(labels: Sequence[str]) -> list[list[str]]:
    """Group the labels that people read as one."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(_as_read(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _as_read(label: str) -> str:
    """Return a label without case, blanks, characters without width, and forms of a letter."""
    text = normalize("NFKC", normalize("NFKC", label).casefold())
    return "".join(c for c in text if not c.isspace() and category(c) != "Cf")


def _counted(label: str, counts: Mapping[str, int]) -> str:
    return f"{_quoted(label)} ({counted(counts[label], 'photo', 'photos')})"


def _quoted(label: str) -> str:
    """Return a label in quotes, so that blanks at its ends are seen; other blanks are escaped."""
    return repr(label if len(label) <= _SHOWN else label[: _SHOWN - 3] + "...")


def _listed(texts: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return between.join(texts[:NAMED]) + more
