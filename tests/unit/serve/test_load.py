"""A server under load: it never hangs, every answer is right, and it ends when it is told to."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from support.server import PATIENCE_S, Server, started
from verger.classify.classifier import Classifier
from verger.classify.predict import Predictor
from verger.result.output import Output

#: As many as a result draws; products of fewer do not use BLAS threads.
N_KNOWN = 20_000
# Not by the command: the number of BLAS threads stays numpy's own, which is the harder case.
PROGRAM = """
    import sys
    from verger.serve import serve
    serve(sys.argv[1], port=0, on_start=lambda address: print(address, flush=True))
"""


@pytest.fixture(scope="module")
def out(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a result whose classifier knows many photos; do not write to it."""
    folder = tmp_path_factory.mktemp("many") / "out"
    shutil.copytree(trained, folder)
    output, rng = Output.at(folder), np.random.default_rng(0)
    few = Classifier.load(output)
    drawn = rng.integers(0, len(few.references), N_KNOWN)
    noise = rng.normal(0, 0.3, (N_KNOWN, few.references.shape[1]))
    many = dataclasses.replace(
        few,
        references=(few.references[drawn] + noise).astype(np.float32),
        reference_labels=few.reference_labels[drawn],
        reference_paths=tuple(few.reference_paths[row] for row in drawn),
    )
    record = output.read_run()  # a classifier knows no more photos than its result has
    counts = dataclasses.replace(record.counts, listed=N_KNOWN, featurized=N_KNOWN)
    output.write_run(dataclasses.replace(record, counts=counts))
    many.save(output.folder)
    return folder


@pytest.fixture(scope="module")
def photos_and_answers(out: Path, photos: Path) -> list[tuple[bytes, list[Any]]]:
    """Return photos, and the prediction and the nearest distances of each."""
    contents = [file.read_bytes() for file in sorted(photos.rglob("*.jpg"))[::4]]
    found = Predictor.load(out).predict(contents, map(str, range(len(contents))))
    return [
        (content, [one.prediction, *(known.distance for known in one.nearest)])
        for content, one in zip(contents, found, strict=True)
    ]


@pytest.fixture
def server(out: Path, tmp_path: Path) -> Iterator[Server]:
    with started(PROGRAM, out, log=tmp_path / "log") as server:
        yield server


def ask(server: Server, exchanges: list[tuple[bytes, list[Any]]]) -> list[float]:
    """Ask one photo after the other over one connection; return the seconds of each."""
    took_s = []
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=PATIENCE_S)
    for photo, expected in exchanges:
        start = time.perf_counter()
        connection.request("POST", "/predict", photo, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        took_s.append(time.perf_counter() - start)
        assert response.status == 200, answer
        assert answer["prediction"] == expected[0]
        distances = [known["distance"] for known in answer["nearest"]]
        np.testing.assert_allclose(distances, expected[1:], rtol=1e-6)
        assert all(known["thumbnail"] for known in answer["nearest"])
    connection.close()
    return took_s


def test_many_clients_at_once_are_all_answered_rightly(
    server: Server, photos_and_answers: list[tuple[bytes, list[Any]]]
) -> None:
    """2, 8 and 32 clients at once; then SIGTERM ends the server."""
    for n_clients, n_each in ((2, 32), (8, 8), (32, 3)):
        shares = [
            list(islice(cycle(photos_and_answers), first, first + n_each))
            for first in range(n_clients)
        ]
        start = time.perf_counter()
        with ThreadPoolExecutor(n_clients) as pool:
            took_s = list(chain.from_iterable(pool.map(ask, [server] * n_clients, shares)))
        rate = len(took_s) / (time.perf_counter() - start)
        print(f"{n_clients} clients: {rate:.1f}/s, p99 {np.quantile(took_s, 0.99):.3f} s")
    assert server.ask(path="/health").endswith('{"status":"ok"}')
    server.stop()
    assert server.log.read_text() == ""


def test_sigterm_ends_a_server_that_is_busy(
    server: Server, photos_and_answers: list[tuple[bytes, list[Any]]]
) -> None:
    """Requests in progress delay the end by seconds at most, and no decoding process stays."""
    photo, _ = photos_and_answers[0]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(40):
            pool.submit(server.ask, path="/predict", method="POST", body=photo)
        server.ask(path="/predict", method="POST", body=photo)
        task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        children = task.read_text().split()
        assert children
        server.stop()
        pool.shutdown(cancel_futures=True)
    end = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end
        time.sleep(0.05)
