"""The web application: the predictor's numbers, every limit, and nothing kept or told too much."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import errno
import io
import os
import re
import resource
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from PIL import Image
from starlette.requests import ClientDisconnect

import verger
from support.corpus import slow_jpeg
from support.http import Exchange, Server
from verger import cli, serve
from verger.classify.export.check import ExportCheck
from verger.classify.predict import Predictor
from verger.errors import ConfigError, EnvironmentNotReadyError
from verger.serve.answers import Answerer
from verger.serve.browser import RUNTIME, WASM, Browser, References, draw_references
from verger.serve.facts import load_facts
from verger.serve.feedback import Feedback
from verger.serve.limits import Limits, Refused, photo_of, read_body

ADDRESS = "http://localhost"
CHECK = ExportCheck(
    n_photos=1,
    probability_difference=0,
    features_difference=0,
    agreement=1,
    agreement_on_files=1,
    accuracy=None,
    accuracy_of_run=None,
)


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return Predictor.load(trained)


@pytest.fixture(scope="module")
def photo(photos: Path) -> Path:
    return sorted(photos.rglob("*.jpg"))[7]


@pytest.fixture
def client(predictor: Predictor, photos: Path, photo: Path) -> Iterator[TestClient]:
    facts = {photo.parent.name: "Keeps until spring."}
    app = serve.create_app(predictor, source=str(photos), facts=facts)
    with TestClient(app, ADDRESS) as client:
        yield client


def bounded(predictor: Predictor, **limits: Any) -> TestClient:
    return TestClient(serve.create_app(predictor, limits=Limits(**limits)), ADDRESS)


def picture_of(address: str) -> Image.Image:
    head, _, text = address.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


# Answers


@pytest.mark.parametrize(
    ("method", "address", "status", "error"),
    [
        ("GET", "/predict", 405, "method not allowed"),
        ("PUT", "/", 405, "method not allowed"),
        ("GET", "/none", 404, "not found"),
        ("POST", "/feedback", 422, "wrong parameters"),
    ],
)
def test_what_the_framework_refuses_has_the_form_of_all_refusals(
    predictor: Predictor, tmp_path: Path, method: str, address: str, status: int, error: str
) -> None:
    """A client finds ``error`` and ``detail`` whoever refuses, and HEAD is answered as GET is."""
    feedback = Feedback(tmp_path / "said.csv", predictor.classifier.labels)
    client = TestClient(serve.create_app(predictor, feedback=feedback), ADDRESS)
    response = client.request(method, address)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert set(response.json()) == {"error", "detail"}
    assert ("allow" in response.headers) == (status == 405)
    assert client.head("/").status_code == 200


def test_an_answer_is_the_prediction_with_a_fact_and_pictures(
    client: TestClient, predictor: Predictor, photos: Path, photo: Path
) -> None:
    (expected,) = predictor.predict([photo.read_bytes()], ["photo"])
    response = client.post("/predict", content=photo.read_bytes())
    answer = response.json()
    assert response.status_code == 200
    assert answer.pop("fact") == "Keeps until spring."
    assert answer.pop("threshold") == predictor.classifier.threshold
    for known in answer["nearest"]:
        assert max(picture_of(known.pop("thumbnail")).size) == 144
        known["path"] = str(photos / known["path"])
    wanted = expected.as_dict()
    assert answer == wanted | {"top": list(wanted["top"]), "nearest": list(wanted["nearest"])}
    assert answer["nearest"][0]["path"] == str(photo)


def test_a_form_gives_the_same_answer(client: TestClient, photo: Path) -> None:
    plain = client.post("/predict", content=photo.read_bytes())
    form = client.post("/predict", files={"photo": ("a b.jpg", photo.read_bytes())})
    assert form.json() == plain.json()


def test_a_photo_that_is_none_is_told_by_the_ledgers_words(client: TestClient) -> None:
    for content, reason in ((b"", "empty"), (b"no photo", "not an image")):
        response = client.post("/predict", content=content)
        assert (response.status_code, response.json()["error"]) == (422, reason)
        assert response.json()["prediction"] is None


def test_pictures_keep_their_shape_and_may_be_gone(
    predictor: Predictor, photo: Path, tmp_path: Path
) -> None:
    """A known photo that was deleted has no picture."""
    wide = tmp_path / "wide.png"
    Image.new("RGB", (300, 100)).save(wide)
    known = knowing(predictor, str(wide), str(tmp_path / "gone.jpg"))
    client = TestClient(serve.create_app(known, source=str(tmp_path)), ADDRESS)
    pictures = nearest_of(client, photo)
    assert pictures["gone.jpg"] is None
    assert picture_of(pictures["wide.png"]).size == (144, 48)


def knowing(predictor: Predictor, *paths: str) -> Predictor:
    """Return a predictor whose classifier names these known photos."""
    n, classifier = len(paths), predictor.classifier
    known = dataclasses.replace(
        classifier,
        reference_paths=paths,
        references=classifier.references[:n],
        reference_labels=classifier.reference_labels[:n],
    )
    return dataclasses.replace(predictor, classifier=known, n_nearest=n)


def nearest_of(client: TestClient, photo: Path) -> dict[str, str | None]:
    found = client.post("/predict", content=photo.read_bytes()).json()["nearest"]
    return {near["path"]: near["thumbnail"] for near in found}


@pytest.mark.parametrize("in_browser", [False, True])
def test_only_photos_of_the_source_are_shown(
    predictor: Predictor,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_browser: bool,
) -> None:
    """A classifier of a stranger that names other files shows none, and asks no other bucket."""
    asked: list[str] = []

    def answer(exchange: Exchange) -> None:
        asked.append(exchange.path)
        exchange.reply(status=404)

    server = Server(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    source, private = tmp_path / "photos", tmp_path / "photos2"
    for folder in (source, private):
        folder.mkdir()
        Image.new("RGB", (300, 100)).save(folder / "wide.png")
    (source / "link.png").symlink_to(private / "wide.png")
    places = (f"{source}/wide.png", f"{private}/wide.png", f"{source}/../photos2/wide.png")
    places += (f"{source}/link.png", "s3://elsewhere/wide.png")
    known = knowing(predictor, *places)
    try:
        if in_browser:
            for name in RUNTIME:
                (tmp_path / name).write_text(name)
            browser = Browser(b"", tmp_path, References(b"x", (0,) * 5, places), CHECK)
            app = serve.create_app(known, source=str(source), browser=browser)
            client = TestClient(app, ADDRESS)
            shown = [client.get(f"/known/{n}.jpg").status_code == 200 for n in range(5)]
        else:
            app = serve.create_app(known, source=str(source))
            response = TestClient(app, ADDRESS).post("/predict", content=photo.read_bytes())
            found = response.json()["nearest"]
            shown = sorted((near["thumbnail"] is not None for near in found), reverse=True)
    finally:
        server.close()
    assert shown == [True, False, False, False, False]
    assert asked == []


def test_it_is_described_and_answers(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/health", "/predict"}
    assert set(described["paths"]["/predict"]["post"]["responses"]) >= {"200", "403", "413", "422"}
    assert {"fact", "top", "nearest"} <= set(
        described["components"]["schemas"]["Answer"]["properties"]
    )
    assert client.get("/health").json() == {"status": "ok"}


# Limits


def test_a_body_that_is_announced_too_large_is_not_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    with pytest.raises(Refused, match="too large"):
        asyncio.run(read_body(body(), "11", Limits(max_bytes=10)))


def test_a_body_is_refused_at_the_first_byte_too_many() -> None:
    given = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            given.append(1)
            yield b"12345"

    assert asyncio.run(read_body(body(), None, Limits(max_bytes=50))) == b"12345" * 10
    given.clear()
    with pytest.raises(Refused, match="too large"):
        asyncio.run(read_body(body(), None, Limits(max_bytes=10)))
    assert len(given) == 3


def test_a_body_that_never_comes_is_refused() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        await asyncio.sleep(60)

    with pytest.raises(Refused, match="too slow"):
        asyncio.run(read_body(body(), None, Limits(read_timeout_s=0.05)))


def test_a_client_that_goes_away_is_no_failure() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        raise ClientDisconnect

    with pytest.raises(Refused, match="gone"):
        asyncio.run(read_body(body(), None, Limits()))


def test_a_large_photo_is_refused(predictor: Predictor) -> None:
    response = bounded(predictor, max_bytes=100).post("/predict", content=bytes(101))
    assert response.status_code == 413
    assert response.json() == {"error": "too large", "detail": "a photo may have 100 bytes at most"}


def test_many_pixels_are_refused(predictor: Predictor, photo: Path) -> None:
    response = bounded(predictor, max_pixels=9_999).post("/predict", content=photo.read_bytes())
    assert (response.status_code, response.json()["error"]) == (422, "too many pixels")


def test_a_decoder_that_hangs_is_ended(predictor: Predictor) -> None:
    response = bounded(predictor, decode_timeout_s=0.5).post("/predict", content=slow_jpeg())
    assert (response.status_code, response.json()["error"]) == (422, "decode time-out")


def test_a_server_that_is_full_says_so(predictor: Predictor) -> None:
    response = bounded(predictor, max_waiting=0).post("/predict", content=b"")
    assert (response.status_code, response.json()["error"]) == (503, "busy")
    assert response.headers["Retry-After"] == "2"


def test_places_are_given_back(predictor: Predictor) -> None:
    client = bounded(predictor, max_waiting=1, max_bytes=10)
    codes = [client.post("/predict", content=bytes(n)).status_code for n in (99, 0, 99, 0)]
    assert codes == [413, 422, 413, 422]


def test_forms_that_are_none_are_refused() -> None:
    kind = "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert photo_of(part + b"--x--\r\n", kind) == b"1"
    with pytest.raises(Refused, match="not a form") as caught:
        photo_of(part + part + b"--x--\r\n", kind)
    assert caught.value.refusal.detail == "a form of several parts must have 1: the photo"
    for body, header in ((b"junk", kind), (part, "multipart/form-data"), (b"", kind)):
        with pytest.raises(Refused, match="not a form"):
            photo_of(body, header)


def test_a_form_is_read_to_its_second_part_at_most() -> None:
    """A body of a million parts is refused before what follows them is looked at."""
    many = b"--x\r\n\r\n\r\n" * 1_000_000 + b"--not a boundary"
    with pytest.raises(Refused) as caught:
        photo_of(many, "multipart/form-data; boundary=x")
    assert caught.value.refusal.detail == "a form of several parts must have 1: the photo"


# Nothing is kept, nothing is told to others


@contextmanager
def no_file_grows() -> Iterator[None]:
    """Let the kernel refuse every byte that this process would write to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_file_is_written(client: TestClient, tmp_path: Path) -> None:
    """Not for a form of several megabytes either, which frameworks put into temporary files."""
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "BMP")
    with no_file_grows():
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "file").write_bytes(b"1")
        for body in ({"content": stream.getvalue()}, {"files": {"photo": stream.getvalue()}}):
            assert client.post("/predict", **body).status_code == 200


def test_the_policy_allows_this_server_alone(client: TestClient) -> None:
    for address in ("/", "/health", "/static/page.js", "/none"):
        headers = client.get(address).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == (
            "nosniff",
            "no-store",
        )


def test_the_page_names_no_other_host_and_its_files_are_there(client: TestClient) -> None:
    page = client.get("/").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {client.get(f"/{name}").status_code for name in named if "data:" not in name} == {200}
    static = resources.files("verger.serve").joinpath("static").iterdir()
    texts = [file.read_text() for file in static if not file.name.endswith(".png")]
    assert len(texts) >= 3
    assert all("://" not in text for text in (page, *texts))
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_another_sites_name_for_this_machine_is_refused(predictor: Predictor) -> None:
    app = serve.create_app(predictor)
    for name in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert TestClient(app, f"http://{name}").get("/").status_code == 200
    assert TestClient(app, "http://evil.example").get("/").status_code == 400
    open_to_all = serve.create_app(predictor, hosts=("*",))
    assert TestClient(open_to_all, "http://fruit.example").get("/").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 422),  # a program, not a browser
        ({"Origin": ADDRESS}, 422),
        ({"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}, 422),
        ({"Sec-Fetch-Site": "none"}, 422),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "https://localhost"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": ADDRESS}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 403),  # a form
    ],
)
def test_pages_of_other_sites_may_not_post(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    """What a browser says of a foreign page is enough to refuse it, before anything is decoded."""
    response = client.post("/predict", content=b"", headers=headers)
    assert response.status_code == status
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_other_sites_may_link_to_the_page_and_not_load_its_parts(client: TestClient) -> None:
    """A link opens the page; a script, a picture or an interface is not given to other pages."""
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    for address in ("/static/page.js", "/health", "/openapi.json", "/"):
        assert client.get(address, headers=foreign).status_code == 403


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("image/jpeg", 200),
        ("image/anything", 200),
        ("application/octet-stream", 200),
        ("application/x-www-form-urlencoded", 200),  # what curl --data-binary says
        ("text/plain", 415),
        ("text/plain;charset=UTF-8", 415),
        ("application/json", 415),
    ],
)
def test_a_body_is_a_photo_only_if_it_is_called_one(
    client: TestClient, photo: Path, kind: str, status: int
) -> None:
    """Text is what a page of another site can post without asking the server."""
    content, headers = photo.read_bytes(), {"Content-Type": kind}
    assert client.post("/predict", content=content, headers=headers).status_code == status


def test_a_server_short_of_descriptors_is_busy(
    predictor: Predictor, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a request lacks just now is answered by 503, not by a traceback."""
    client = bounded(predictor)

    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Answerer, "answer", fail)
    response = client.post("/predict", content=photo.read_bytes())
    assert (response.status_code, response.json()["error"]) == (503, "busy")


# In the browser


def test_a_page_that_does_the_work_has_no_address_for_photos(
    predictor: Predictor, tmp_path: Path
) -> None:
    for name in RUNTIME:
        (tmp_path / name).write_text(name)
    browser = Browser(b"graph", tmp_path, References(), CHECK)
    app = serve.create_app(predictor, facts={"x": "y"}, browser=browser)
    client = TestClient(app, ADDRESS)
    assert client.post("/predict", content=b"").status_code in (404, 405)
    names = client.get("/app.json").json()
    graph = client.get(f"/{names.pop('graph')}")
    assert graph.content == b"graph"
    assert graph.headers["Cache-Control"] == "private, max-age=86400"
    assert names == {
        "labels": list(predictor.classifier.labels),
        "threshold": 0.0,
        "facts": {"x": "y"},
        "n_top": 5,
        "nearest": None,
        "known": [],
        "bytes": len("graph" + "ort-wasm-simd-threaded.wasm"),
    }
    for name, kind in RUNTIME.items():
        response = client.get(f"/ort/{name}")
        assert (response.text, response.headers["Content-Type"].split(";")[0]) == (name, kind)
    page = client.get("/")
    assert "script-src 'self' 'wasm-unsafe-eval';" in page.headers["Content-Security-Policy"]
    assert "does not leave this device" in page.text


@pytest.mark.parametrize("name", ["app.onnx", "nearest.onnx"])
def test_a_large_file_is_handed_to_the_connection_in_parts(
    predictor: Predictor, tmp_path: Path, name: str
) -> None:
    """Of clients that read slowly, the server holds one part each and not 28 MB."""
    graph = bytes(range(256)) * 1000
    for file in RUNTIME:
        (tmp_path / file).touch()
    references = References(graph, (0,), ("photo",))
    app = serve.create_app(predictor, browser=Browser(graph, tmp_path, references, CHECK))
    parts: list[int] = []

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            parts.append(len(message.get("body", b"")))
            await send(message)

        await app(scope, receive, send_on)

    answer = TestClient(spy, ADDRESS).get(f"/{name}")
    assert answer.content == graph
    assert answer.headers["Content-Length"] == str(len(graph))
    assert sum(parts) == len(graph)
    assert max(parts) <= 1 << 16


def test_it_is_given_known_photos_of_every_class_and_their_pictures(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as weigh little; a phone has to load them."""
    monkeypatch.setattr("verger.serve.browser.REFERENCE_BYTES", 12 * 2 * 1280)
    references = draw_references(predictor)
    classes = [predictor.classifier.labels[label] for label in references.labels]
    assert sorted(classes) == sorted(predictor.classifier.labels * 2)
    assert [Path(path).parent.name for path in references.paths] == classes
    (tmp_path / WASM).touch()
    some = dataclasses.replace(references, paths=(*references.paths[:11], "gone"))
    browser = Browser(b"", tmp_path, some, CHECK)
    app = serve.create_app(predictor, source=str(photos), browser=browser)
    client = TestClient(app, ADDRESS)
    names = client.get("/app.json").json()
    assert names["known"] == list(references.labels)
    assert client.get(f"/{names['nearest']}").content == references.graph
    assert len(references.graph) < 12 * 2 * 1280 + 20_000
    picture = client.get("/known/10.jpg")
    assert picture.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(picture.content)) as image:
        assert max(image.size) == 144
    assert [client.get(f"/known/{n}.jpg").status_code for n in (11, 12, -1)] == [404] * 3


def test_slow_pictures_keep_no_thread_from_the_page(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pictures are asked for of a bucket that is slow, the page's files come."""
    go_on = threading.Event()
    monkeypatch.setattr("verger.serve.browser.thumbnail_of", lambda *_: go_on.wait(60) and None)
    (tmp_path / WASM).touch()
    browser = Browser(b"", tmp_path, References(b"x", (0,), ("photo",)), CHECK)
    with (
        TestClient(serve.create_app(predictor, browser=browser), ADDRESS) as client,
        ThreadPoolExecutor(61) as pool,
    ):
        asked = [pool.submit(client.get, "/known/0.jpg") for _ in range(60)]
        page = pool.submit(client.get, "/static/page.js")
        try:
            assert page.result(30).status_code == 200
            assert not any(one.done() for one in asked)
        finally:
            go_on.set()
        assert {one.result().status_code for one in asked} == {404}


def test_a_classifier_without_known_photos_gives_a_page_none(predictor: Predictor) -> None:
    bare = dataclasses.replace(
        predictor.classifier,
        references=predictor.classifier.references[:0],
        reference_labels=predictor.classifier.reference_labels[:0],
        reference_paths=(),
    )
    assert draw_references(dataclasses.replace(predictor, classifier=bare)) == References()


def test_its_runtime_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no ort\.wasm\.min\.mjs; npm install onnxruntime"):
        serve.serve("out", in_browser=True, ort_web=tmp_path)
    with pytest.raises(ConfigError, match="--in-browser and --ort-web go together"):
        serve.serve("out", in_browser=True)


# Facts


def test_facts_are_lines_by_label(tmp_path: Path) -> None:
    file = tmp_path / "facts.toml"
    file.write_text('["Apple 1"]\nline = "Sweet."\n[Pear]\nline = "Soft."\n')
    assert load_facts(file) == {"Apple 1": "Sweet.", "Pear": "Soft."}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Pear", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ('Pear = "Soft."', "'Pear' must be a table with one key: line"),
        ('[Pear]\ntext = "Soft."', "'Pear' must be a table with one key: line"),
        ("[Pear]\nline = 3", "'Pear': line=3 must be text"),
    ],
)
def test_facts_that_are_none_are_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "facts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_facts(file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_facts(tmp_path / "none.toml")


# The command


def test_an_address_that_is_taken_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot listen there"):
            serve.serve("none", port=port)


@pytest.mark.parametrize(
    ("host", "warned"),
    [("0.0.0.0", True), ("127.0.0.1", False), ("::1", False), ("localhost", False)],
)
def test_a_server_that_others_reach_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(serve, "serve", lambda out, **options: given.update(options, out=out))
    done = CliRunner().invoke(cli.app, ["serve", "result", "--host", host, "--port", "0"])
    assert done.exit_code == 0
    assert ("without password" in done.stderr) is warned
    assert (given["out"], given["host"], given["port"]) == ("result", host, 0)


def test_the_command_says_where_photos_are_read_from(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made the result has chosen that place, and the user may not trust it."""
    monkeypatch.setattr(serve, "serve", lambda out, **options: None)
    done = CliRunner().invoke(cli.app, ["serve", str(trained)])
    assert f"Photos are read again from {photos}, as run.json says." in done.stderr


def test_products_take_one_thread_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """numpy reads the variable when it is imported, which the command does afterwards."""
    monkeypatch.setattr(serve, "serve", lambda out, **options: None)
    for given, used in ((None, "1"), ("3", "3")):
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
        if given is None:
            monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        assert CliRunner().invoke(cli.app, ["serve", "result"]).exit_code == 0
        assert os.environ["OPENBLAS_NUM_THREADS"] == used


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("verger.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(verger, "serve")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = CliRunner().invoke(cli.app, ["serve", "result"])
    assert isinstance(done.exception, EnvironmentNotReadyError)
    assert re.search(r"fastapi is not installed.*pip install .*\[serve\]'", str(done.exception))
