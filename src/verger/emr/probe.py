"""Check on EMR Serverless itself that the environment of a run works.

Runs there, from the same package as a real run and with the same rights: the driver and one worker
start and compute the features of the golden photo; the driver lists the source; both write and
remove one object, and the worker reads one photo, as the tasks of a run do.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from verger.config import Config
from verger.engine.session import get_session
from verger.engine.spark import SparkEngine
from verger.engine.tasks import Task
from verger.errors import SourceError, VergerError
from verger.features.model import Model, load_model
from verger.features.outcomes import read_rows
from verger.files.reading import Unread
from verger.files.records import to_plain
from verger.result.output import Output
from verger.result.record import Check
from verger.source.listing import Listing, list_photos

#: Begins the one line that the driver's log is searched for.
MARK = "verger-probe "
#: Written below OUT and removed at once, by the driver and by a worker.
PROBE, WORKER_PROBE = ".verger-probe", ".verger-probe-worker"
#: Words of S3's errors, and what they are about.
_ADVICE = (
    (
        ("ACCESS_DENIED", "AccessDenied"),
        "a right is missing: of the job's role, of the session policy that narrows it, or of the "
        "policy of the bucket",
    ),
    (
        ("NETWORK_CONNECTION", "curlCode", "Could not connect", "Couldn't connect"),
        "no way to S3's endpoint: in a network of one's own, it needs a gateway endpoint for S3",
    ),
    (
        ("301", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        "the bucket's region is another",
    ),
)


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
    listed: list[Listing] = []

    def load() -> str:
        loaded.append(load_model(model, weights=weights))
        contract = loaded[0].contract
        known = {True: "", False: ", NOT the published weights", None: ""}[loaded[0].published]
        return f"{model}, contract {contract.short_hash}{known}"

    def list_source() -> str:
        listed.append(list_photos(source))
        size = f"{listed[0].n_bytes / 1e6:,.1f} MB"
        return f"{len(listed[0].photos):,} photos, {size} in {listed[0].source}"

    yield _check("The driver has what it needs", _driver)
    yield _check("The model and its weights are found", load)
    if loaded:
        yield _check("A worker computes the golden photo", lambda: _worker(loaded[0]))
    yield _check("The photos can be listed", list_source)
    yield _check("OUT can be written", lambda: _written(out))
    errand = Errand(listed[0].photos.slice(0, 1) if listed else None, out)
    yield from _on_a_worker(errand)


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except VergerError as err:
        return Check(name, False, str(err))
    except Exception as err:  # noqa: BLE001 - whatever it is, it is the finding
        return Check(name, False, _words(err))


def _words(err: Exception) -> str:
    return f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0]}"


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


@dataclass(frozen=True)
class Errand:
    """What a worker is to read and write.

    Attributes
    ----------
    photo : pyarrow.Table or None
        One row of a listing; None if there is no photo.
    out : str
        Address of the result.
    """

    photo: pa.Table | None = field(repr=False)
    out: str


def _on_a_worker(errand: Errand) -> list[Check]:
    """Do an errand in a task; one that never comes back is a finding too."""
    try:
        (checks,) = SparkEngine(get_session()).run(do_errand, 1, errand)
    except Exception as err:  # noqa: BLE001 - whatever it is, it is the finding
        return [Check("A worker reaches the bucket", False, _words(err))]
    return checks


def do_errand(_: Task, errand: Errand) -> list[Check]:
    """Read one photo and write one object where this task runs, and say what fails."""
    checks = [_check("A worker can write into OUT", lambda: _written(errand.out, WORKER_PROBE))]
    if errand.photo is not None:
        photo = errand.photo
        checks.insert(0, _check("A worker can read a photo", lambda: _read(photo)))
    return [check if check.holds else _advise(check) for check in checks]


def _read(photo: pa.Table) -> str:
    ((row, content),) = read_rows(photo)
    if isinstance(content, Unread):
        raise SourceError(f"{row['path']}: {content.detail}")
    return f"{row['path']}, {len(content):,} bytes, on {platform.node()}"


def _advise(check: Check) -> Check:
    """Add to what S3 says whether it is about rights, the region or the way to the endpoint."""
    advice = [text for signs, text in _ADVICE if any(sign in check.detail for sign in signs)]
    region = os.environ.get("AWS_REGION", "not set")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "AWS's"))
    where = f"on the worker AWS_REGION is {region}, the endpoint {endpoint}"
    return replace(check, detail="; ".join([check.detail, *advice, where]))


def _written(out: str, name: str = PROBE) -> str:
    folder = Output.at(out).folder
    folder.write(name, b"verger doctor")
    content = folder.read(name)
    folder.remove(name)
    return f"{folder.root}: written, read and removed {len(content)} bytes"


def read_probe(log: str) -> list[dict[str, Any]] | None:
    """Return the checks that a probe has printed to the driver's log; None if there are none."""
    lines = [line for line in log.splitlines() if line.startswith(MARK)]
    found: list[dict[str, Any]] | None = json.loads(lines[-1][len(MARK) :]) if lines else None
    return found
