"""Check on EMR Serverless itself that the environment of a run works.

Runs there, from the same package as a real run and with the same rights: the driver and one worker
start, compute the features of the golden photo, list the source, and write and remove one object.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

from verger.config import Config
from verger.engine.session import get_session
from verger.engine.spark import SparkEngine
from verger.engine.tasks import Task
from verger.errors import VergerError
from verger.features.model import Model, load_model
from verger.files.records import to_plain
from verger.result.output import Output
from verger.result.record import Check
from verger.source.listing import list_photos

#: Begins the one line that the driver's log is searched for.
MARK = "verger-probe "
#: Written below OUT and removed at once.
PROBE = ".verger-probe"


def main() -> None:
    """Check SRC, OUT, the model and its weights, and print the results.

    Exits 1 if something does not.
    """
    source, out, model, *weights = sys.argv[1:]
    found = list(probe(source, out, model, *weights))
    sys.stdout.write(MARK + json.dumps(to_plain(found)) + "\n")
    sys.exit(0 if all(check.holds for check in found) else 1)


def probe(source: str, out: str, model: str, weights: str | None = None) -> Iterator[Check]:
    """Yield the result of every check; a check that fails does not end the others."""
    loaded: list[Model] = []

    def load() -> str:
        loaded.append(load_model(model, weights=weights))
        contract = loaded[0].contract
        known = {True: "", False: ", NOT the published weights", None: ""}[loaded[0].published]
        return f"{model}, contract {contract.short_hash}{known}"

    yield _check("The driver has what it needs", _driver)
    yield _check("The model and its weights are found", load)
    if loaded:
        yield _check("A worker computes the golden photo", lambda: _worker(loaded[0]))
    yield _check("The photos can be listed", lambda: _listed(source))
    yield _check("OUT can be written", lambda: _written(out))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except VergerError as err:
        return Check(name, False, str(err))
    except Exception as err:  # noqa: BLE001 - whatever it is, it is the finding
        return Check(name, False, f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}")


def _driver() -> str:
    spark = get_session(Config(app_name="verger doctor"))
    versions = {"python": platform.python_version()} | SparkEngine(spark).versions
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _worker(model: Model) -> str:
    (python,) = SparkEngine(get_session()).run(_open_model, 1, model)
    return f"{python}: the driver's features"


def _open_model(_: Task, model: Model) -> str:
    model.open()  # refuses other features than the driver's
    return f"Python {platform.python_version()} on {platform.machine()}"


def _listed(source: str) -> str:
    listing = list_photos(source)
    return f"{len(listing.photos):,} photos, {listing.n_bytes / 1e6:,.1f} MB in {listing.source}"


def _written(out: str) -> str:
    folder = Output.at(out).folder
    folder.write(PROBE, b"verger doctor")
    content = folder.read(PROBE)
    folder.remove(PROBE)
    return f"{folder.root}: written, read and removed {len(content)} bytes"


def read_probe(log: str) -> list[dict[str, Any]] | None:
    """Return the checks that a probe has printed to the driver's log; None if there are none."""
    lines = [line for line in log.splitlines() if line.startswith(MARK)]
    found: list[dict[str, Any]] | None = json.loads(lines[-1][len(MARK) :]) if lines else None
    return found
