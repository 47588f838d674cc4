"""One form for every path, every failed read told apart, and reads in order however many fly.

S3 is moto's server in this process, on loopback.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from pyarrow import fs

from support.http import Exchange, Server
from verger.errors import (
    ConfigError,
    EmptySourceError,
    OutputError,
    SchemaError,
    SourceError,
    SourceNotFoundError,
    VergerError,
)
from verger.files import paths, reading
from verger.files.bucket import store_of
from verger.files.folder import Folder
from verger.files.paths import filesystem_of, normalize_source
from verger.files.reading import Unread, read_ahead, read_photo
from verger.result.output import Output
from verger.schema import Reason
from verger.source.listing import list_photos

NAMES = [
    "a b.jpg",
    "été.jpg",
    "50%.jpg",
    "a%20b.jpg",
    "a#b.jpg",
    "a+b.jpg",
    "a,b.jpg",
    'it\'s "x".jpg',
    "🍎.jpg",
    "تفاح.jpg",
    "a&b=c?d.jpg",
]


# The one form of a path


@pytest.mark.parametrize(
    ("source", "stored"),
    [
        ("photos", "{cwd}/photos"),
        ("./photos/../photos/", "{cwd}/photos"),
        ("/data//photos/", "/data/photos"),
        ("~/photos", "{home}/photos"),
        ("file:///data/my%20photos/", "/data/my photos"),
        ("file:///data/50%25/%C3%A9t%C3%A9", "/data/50%/été"),
        ("FILE:///data", "/data"),
        ("file://localhost/data", "/data"),
        ("/data/my%20photos", "/data/my%20photos"),
        ("s3://bucket/some/prefix", "s3://bucket/some/prefix"),
        ("s3://bucket/some/prefix///", "s3://bucket/some/prefix"),
        ("s3a://bucket/a%20b+c", "s3://bucket/a%20b+c"),
        ("s3n://bucket/", "s3://bucket"),
        ("S3A://bucket/Prefix", "s3://bucket/Prefix"),
        ("hdfs://node:8020/photos/", "hdfs://node:8020/photos/"),
        ("gs://bucket/a b", "gs://bucket/a b"),
    ],
)
def test_every_source_has_one_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, stored: str
) -> None:
    """Folders are stored absolute, S3 as s3:// without a slash behind, the rest as given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/user")
    assert normalize_source(source) == stored.format(cwd=tmp_path, home="/home/user")


@pytest.mark.parametrize("source", ["/data/photos", "s3://bucket/p", "hdfs://n/p", "/a b/50%/#/+"])
def test_the_form_is_final(source: str) -> None:
    """A stored path that is normalised again stays what it is."""
    assert normalize_source(normalize_source(source)) == normalize_source(source)


@pytest.mark.parametrize("source", ["file://photos", "file://photos/2024", ""])
def test_a_source_without_a_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An empty source, or file:// and a relative path, is refused or stays apart."""
    monkeypatch.chdir(tmp_path)
    try:
        stored = normalize_source(source)
    except VergerError:
        return
    assert stored not in (str(tmp_path), "/", "/2024")


@pytest.mark.parametrize("name", ["C#1", "what?"])
def test_an_address_loses_no_part_of_its_folder(name: str) -> None:
    """A # or ? in a file:// address is a part of the folder's name, or the address is refused."""
    try:
        stored = normalize_source(f"file:///data/{name}")
    except VergerError:
        return
    assert stored == f"/data/{name}"


def test_the_filesystem_of_a_path() -> None:
    """A folder is on the local file system, and an unknown scheme says which reader knows it."""
    filesystem, inner = filesystem_of("/data/50%")
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert inner == "/data/50%"
    with pytest.raises(ConfigError, match=r"hdfs://n/p: .* not hdfs://; use --reader spark"):
        filesystem_of("hdfs://n/p")


# Reading one photo


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause that a read asked for, none of them slept."""
    asked: list[float] = []
    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=asked.append))
    return asked


class Failing:
    """An ``open`` that raises the given errors, one a call, and then opens."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return open(*args, **kwargs)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"bytes")
    return str(path)


@pytest.mark.parametrize("name", [*NAMES, "new\nline.jpg"])
def test_a_photo_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    """The bytes of a file come back whatever characters its name has."""
    (tmp_path / name).write_bytes(name.encode())
    assert read_photo(str(tmp_path / name)) == name.encode()


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    """A file without bytes is no failed read: what it lacks is for the decoder to say."""
    (tmp_path / "x.jpg").touch()
    assert read_photo(str(tmp_path / "x.jpg")) == b""


def test_a_photo_that_is_gone_has_vanished(tmp_path: Path, pauses: list[float]) -> None:
    """A file that is no longer there is told as vanished, without a second try."""
    assert read_photo(str(tmp_path / "x.jpg")) == Unread(
        Reason.VANISHED, "it was there when the source was listed"
    )
    assert pauses == []


def test_a_photo_that_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, photo: str, pauses: list[float]
) -> None:
    """A refusal by the system is told as such, without a second try."""
    denied = Failing(PermissionError(errno.EACCES, "Permission denied", photo))
    monkeypatch.setattr(reading, "open", denied, raising=False)
    found = read_photo(photo)
    assert isinstance(found, Unread)
    assert found.reason == Reason.PERMISSION
    assert "Permission denied" in found.detail
    assert (denied.calls, pauses) == (1, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission(photo: str) -> None:
    """A file that is really closed to this user is told as such."""
    Path(photo).chmod(0)
    found = read_photo(photo)
    assert isinstance(found, Unread)
    assert found.reason == Reason.PERMISSION


def test_a_read_that_fails_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, photo: str, pauses: list[float]
) -> None:
    """A read error that passes leaves no trace but a pause."""
    flaky = Failing(OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(reading, "open", flaky, raising=False)
    assert read_photo(photo) == b"bytes"
    assert (flaky.calls, pauses) == (2, [0.2])


def test_a_read_that_always_fails_is_a_read_error(
    monkeypatch: pytest.MonkeyPatch, photo: str, pauses: list[float]
) -> None:
    """A read error that stays is a reason that names the tries and the last error."""
    broken = Failing(*(OSError(errno.EIO, f"Input/output error {i}") for i in range(9)))
    monkeypatch.setattr(reading, "open", broken, raising=False)
    found = read_photo(photo)
    assert isinstance(found, Unread)
    assert found.reason == Reason.READ_ERROR
    assert found.detail == "3 times: [Errno 5] Input/output error 2"
    assert broken.calls == 3


def test_there_is_no_pause_after_the_last_try(
    monkeypatch: pytest.MonkeyPatch, photo: str, pauses: list[float]
) -> None:
    """Pauses lie between tries only: nobody waits for a read that is not tried again."""
    monkeypatch.setattr(reading, "open", Failing(*[OSError(errno.EIO, "x")] * 3), raising=False)
    read_photo(photo)
    assert pauses == [0.2, 0.4]


def test_a_folder_in_the_place_of_a_photo(tmp_path: Path, pauses: list[float]) -> None:
    """A folder that took a photo's name is a reason, not an exception."""
    found = read_photo(str(tmp_path))
    assert isinstance(found, Unread)
    assert found.reason == Reason.READ_ERROR


# Reading ahead


def test_a_pipe_in_the_place_of_a_photo(tmp_path: Path, pauses: list[float]) -> None:
    """What was a file and is a pipe is not waited for."""
    os.mkfifo(tmp_path / "x.jpg")
    found = read_photo(str(tmp_path / "x.jpg"))
    assert isinstance(found, Unread)
    assert (found.reason, "no file any more" in found.detail) == (Reason.READ_ERROR, True)


def test_a_photo_that_is_being_written(photo: str, pauses: list[float]) -> None:
    """A photo of another size than was listed is not taken for the one that was."""
    assert read_photo(photo, 5) == b"bytes"
    assert read_photo(photo, 4) == Unread(
        Reason.READ_ERROR, "listed with 4 bytes, read 5: it was changed since"
    )


def test_a_photo_that_stops_growing_while_it_is_tried_again(
    photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the size is right at a later try, the photo is read."""

    def grow(_: float) -> None:
        with Path(photo).open("ab") as file:
            file.write(b"!")

    monkeypatch.setattr(reading, "time", SimpleNamespace(sleep=grow))
    assert read_photo(photo, 7) == b"bytes!!"


def test_a_file_that_is_too_large_is_never_opened(
    photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with more bytes than any photo has is rejected by its listing."""
    monkeypatch.setattr(reading, "open", Failing(AssertionError("opened")), raising=False)
    found = read_photo(photo, 10**10)
    assert isinstance(found, Unread)
    assert found.reason == Reason.TOO_MANY_PIXELS


class Reads:
    """A ``read_photo`` that counts what was begun, and what runs at the same time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()
        self._other = threading.Event()

    def __call__(self, path: str, length: int | None = None) -> bytes:
        with self._lock:
            self.begun.append(path)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        # The first photo waits for another, so that reads end out of order.
        if path == "0":
            self._other.wait(0.05)
        else:
            self._other.set()
        with self._lock:
            self.running -= 1
        return path.encode()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    fake = Reads()
    monkeypatch.setattr(reading, "read_photo", fake)
    return fake


@pytest.mark.parametrize("in_flight", [1, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_reads_ahead_keep_the_order(reads: Reads, n: int, in_flight: int) -> None:
    """Contents come in the order of the paths, every path once, for any number of them."""
    paths = [str(i) for i in range(n)]
    assert list(read_ahead(iter(paths), in_flight=in_flight)) == [p.encode() for p in paths]
    assert sorted(reads.begun, key=int) == paths
    assert reads.most_running <= in_flight


def test_any_iterable_is_read_ahead(reads: Reads) -> None:
    """Paths may be a list, or anything else that can be gone through once."""
    for names in (["0", "1"], ("0", "1"), {"0": None, "1": None}, (p for p in "01")):
        assert list(read_ahead(names, in_flight=1)) == [b"0", b"1"]


def test_reads_ahead_are_bounded(reads: Reads) -> None:
    """No more than in_flight photos are asked for beyond the one in the caller's hands."""
    asked: list[str] = []

    def paths() -> Iterator[str]:
        for i in range(50):
            asked.append(str(i))
            yield str(i)

    for taken, _ in enumerate(read_ahead(paths(), in_flight=4), start=1):
        assert len(asked) - taken <= 4
    assert len(asked) == 50


def test_bytes_ahead_are_bounded(reads: Reads) -> None:
    """Large photos are read one at a time, whatever the number in flight; none is left out."""
    sizes = [10, 10, 80, 500, 10, 10, 10, 90, 20]
    taken = 0
    names = [str(i) for i in range(len(sizes))]
    for content in read_ahead(names, sizes, in_flight=4, bytes_in_flight=100):
        assert content == str(taken).encode()
        taken += 1
        ahead = sizes[taken : len(reads.begun)]
        assert sum(ahead) <= 100 or len(ahead) == 1
    assert taken == len(sizes)


def test_files_that_are_there_at_once_need_no_threads(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that answers within a millisecond is read as its photos are wanted."""
    monkeypatch.setattr(reading, "PROMPT_S", 10.0)
    threads = []
    read = reading.read_photo

    def note(path: str, length: int | None = None) -> bytes | Unread:
        threads.append(threading.current_thread())
        return read(path, length)

    monkeypatch.setattr(reading, "read_photo", note)
    assert len(list(read_ahead(map(str, range(1, 9))))) == 8
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("prefix", ["", "s3://bucket/"])
def test_files_that_are_waited_for_are_read_several_at_a_time(
    monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """After two slow reads of a disk, and from the first of a bucket, all are read by threads."""
    together = threading.Barrier(4)

    def read(path: str, length: int | None = None) -> bytes:
        if path.startswith("slow"):
            time.sleep(0.002)
        else:
            together.wait(timeout=20)
        return path.encode()

    monkeypatch.setattr(reading, "read_photo", read)
    paths = [f"{prefix}{i}" for i in range(8)]
    first = [] if prefix else ["slow 1", "slow 2"]
    found = list(read_ahead([*first, *paths], in_flight=4))
    assert found == [path.encode() for path in [*first, *paths]]


def test_one_slow_read_among_prompt_ones_needs_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may have had the core: the reads behind it are as prompt as before."""
    threads, clock_s = set(), 0.0

    def read(path: str, length: int | None = None) -> bytes:
        nonlocal clock_s
        threads.add(threading.current_thread())
        clock_s += 10 if path in ("2", "5") else 0
        return path.encode()

    monkeypatch.setattr(reading, "perf_counter", lambda: clock_s)
    monkeypatch.setattr(reading, "read_photo", read)
    assert len(list(read_ahead(map(str, range(8))))) == 8
    assert threads == {threading.current_thread()}


def test_nothing_is_read_before_it_is_wanted(reads: Reads) -> None:
    """Without a first next() no path is taken."""
    read_ahead(iter(["0"]))
    assert reads.begun == []


def test_a_failed_read_keeps_its_place(tmp_path: Path) -> None:
    """A photo that vanished is told in its place, and the ones behind it are still read."""
    for name in ("a", "c"):
        (tmp_path / name).write_text(name)
    found = list(read_ahead(str(tmp_path / name) for name in "abc"))
    assert [f if isinstance(f, bytes) else f.reason for f in found] == [b"a", Reason.VANISHED, b"c"]


# Folders of files


def test_a_file_is_whole_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced in one step: what is under its name is never half of the new one."""
    folder, seen = Folder(str(tmp_path)), []
    folder.write("a/file", b"old")
    replace = Path.replace

    def look(part: Path, target: Path) -> Path:
        seen.append((target.read_bytes(), part.read_bytes(), part.parent))
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", look)
    folder.write("a/file", b"new")
    assert seen == [(b"old", b"new", tmp_path / "a")]
    assert [entry.name for entry in folder.files(recursive=True)] == ["a/file"]


@pytest.mark.parametrize("step", ["replace", "open"])
def test_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Where there is no space the old file stays, and no part of the new one is left."""
    folder = Folder(str(tmp_path))
    folder.write("file", b"old")
    full = Failing(*[OSError(errno.ENOSPC, "No space left on device")] * 2)
    with monkeypatch.context() as patched:
        patched.setattr(Path, step, lambda *_: full())
        with pytest.raises(OutputError, match="file: cannot be written: No space left on device"):
            folder.write("file", b"new")
    assert folder.read("file") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_move_that_was_made_is_made(tmp_path: Path) -> None:
    """Moving twice is moving once; moving nothing to nowhere is an error."""
    folder = Folder(str(tmp_path))
    folder.write("a/x", b"1")
    for _ in range(2):
        folder.move("a/x", "b/x")
        assert [e.name for e in folder.files(recursive=True)] == ["b/x"]
    with pytest.raises(OutputError, match="b/y: cannot be moved into place"):
        folder.move("a/y", "b/y")


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    """Files and folders are removed as often as one likes, and empty folders go with them."""
    folder = Folder(str(tmp_path))
    folder.write("a/b/x", b"1")
    for _ in range(2):
        folder.remove("a/b/x")
        folder.remove_tree("a")
    assert list(tmp_path.iterdir()) == []
    assert folder.files("a") == folder.folders("a") == []
    with pytest.raises(FileNotFoundError):
        folder.read("a/b/x")


def test_a_file_is_created_once(tmp_path: Path) -> None:
    """The second to create a file is told, and leaves the first one's."""
    folder = Folder(str(tmp_path))
    assert folder.create("a/lock", b"1")
    assert not folder.create("a/lock", b"2")
    assert folder.read("a/lock") == b"1"
    assert [e.name for e in folder.files(recursive=True)] == ["a/lock"]


def test_a_file_is_created_once_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT, and on some network file systems."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_a_file_is_created_once(tmp_path)


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x"])
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    """Names may come from files that somebody else has written."""
    folder = Folder(str(tmp_path))
    for use in (folder.read, folder.remove, folder.remove_tree, folder.files, folder.address):
        with pytest.raises(OutputError, match="is no name of a file in it"):
            use(name)


def test_no_linked_folder_leads_out_of_a_folder(tmp_path: Path) -> None:
    """Nothing behind a link to elsewhere is read, written, moved, listed or removed."""
    home, root = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    root.mkdir()
    for name in ("x", ".x.0123abcd.part"):
        (home / name).write_text("mine")
    folder = Folder(str(root))
    folder.write("y", b"2")
    (root / "linked").symlink_to(home)
    (root / "deep").mkdir()
    (root / "deep" / "linked").symlink_to("../linked")
    uses: list[Callable[[str], object]] = [
        lambda below: folder.read(f"{below}/x"),
        lambda below: folder.write(f"{below}/x", b"2"),
        lambda below: folder.create(f"{below}/new", b"2"),
        lambda below: folder.move(f"{below}/x", "z"),
        lambda below: folder.move("y", f"{below}/x"),
        lambda below: folder.remove(f"{below}/x"),
        lambda below: folder.remove_tree(f"{below}/a"),
        folder.files,
        folder.folders,
        folder.sweep,
    ]
    for use in uses:
        for below in ("linked", "deep/linked"):
            with pytest.raises(OutputError, match=r"is a link to .*home, outside"):
                use(below)
    assert {path.name: path.read_text() for path in home.iterdir()} == {
        "x": "mine",
        ".x.0123abcd.part": "mine",
    }


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """A sparse file of terabytes takes no memory."""
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OutputError, match="must be at most 1,000,000,000"):
        Folder(str(tmp_path)).read("run.json")
    with pytest.raises(SchemaError, match="size=1,099,511,627,776 bytes must be at most 64"):
        Output(str(tmp_path)).read_run()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """Opened, it would be read from for ever."""
    os.mkfifo(tmp_path / "run.json")
    for read in (Folder(str(tmp_path)).read, Folder(str(tmp_path)).open):
        with pytest.raises(OutputError, match="is a pipe or a device, not a file"):
            read("run.json")


def test_links_within_a_folder_and_to_it_are_followed(tmp_path: Path) -> None:
    """A root that is a link is a root, and a link that stays below it is a folder."""
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "real" / "b").symlink_to("a")
    (tmp_path / "root").symlink_to("real")
    folder = Folder(str(tmp_path / "root"))
    folder.write("b/x", b"1")
    assert folder.read("a/x") == b"1"


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    """Only Verger's own half files go."""
    for name in (".run.json.0123abcd.part", ".hidden", "photo.part", ".mine.part"):
        (tmp_path / name).touch()
    Folder(str(tmp_path)).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".hidden",
        ".mine.part",
        "photo.part",
    ]


# S3


@pytest.fixture(scope="module")
def s3_server(aws_server: str) -> str:
    """An S3 that holds the buckets of these tests, at this address."""
    from moto.s3.models import s3_backends

    # Straight into moto's memory: a thousand uploads over HTTP would take half a minute.
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("orchard", "eu-west-3")
    for i in range(1005):
        backend.put_object("orchard", f"many/{i % 7}/{i:04}.jpg", b"%d" % i)
    for name in NAMES:
        backend.put_object("orchard", f"odd names/50% + #1/{name}", name.encode())
    backend.put_object("orchard", "only text/readme.txt", b"x")
    backend.put_object("orchard", "marked/", b"")
    backend.put_object("orchard", "marked/x.jpg", b"x")
    backend.put_object("orchard", "listed/e\u0301te\u0301/e\u0301.jpg", b"x")
    backend.put_object("orchard", "listed/plain/1.jpg", b"x")
    backend.put_object("orchard", "listed/all.csv", "été/é.jpg,a\n./plain/1.jpg,b\n".encode())
    for key in ("double//x.jpg", "double/x.jpg", "double/é +%//#///x.jpg"):
        backend.put_object("orchard", key, key.encode())
    return aws_server


def _use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, s3_server: str) -> None:
    _use_s3(monkeypatch, s3_server)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("scheme", ["s3", "s3a", "s3n"])
def test_more_keys_than_one_answer_holds(scheme: str) -> None:
    """A prefix of more than 1,000 keys is listed whole, with sizes, times and labels."""
    listing = list_photos(f"{scheme}://orchard/many/")
    rows = listing.photos.to_pylist()
    assert listing.source == "s3://orchard/many"
    assert [row["path"] for row in rows] == sorted(
        f"s3://orchard/many/{i % 7}/{i:04}.jpg" for i in range(1005)
    )
    assert all(row["label"] == row["path"].split("/")[-2] for row in rows)
    assert listing.n_bytes == sum(len(str(i)) for i in range(1005))
    assert all(row["modification_time"].year >= 2024 for row in rows)


@pytest.mark.usefixtures("s3")
def test_keys_of_any_characters_are_listed_and_read() -> None:
    """The keys that a listing gives are the ones whose bytes are read."""
    paths = list_photos("s3://orchard/odd names/50% + #1").photos["path"].to_pylist()
    assert sorted(path.rsplit("/", 1)[-1] for path in paths) == sorted(NAMES)
    contents = list(read_ahead(iter(paths)))
    assert contents == [path.rsplit("/", 1)[-1].encode() for path in paths]


@pytest.mark.usefixtures("s3")
def test_a_list_in_a_bucket_names_keys_in_any_form_of_unicode() -> None:
    """As on a disk: a key in NFD is the one that a list names in NFC, and ``./`` is nothing."""
    rows = list_photos("s3://orchard/listed/all.csv").photos.to_pylist()
    assert [(row["path"], row["length"], row["label"]) for row in rows] == [
        ("s3://orchard/listed/e\u0301te\u0301/e\u0301.jpg", 1, "a"),
        ("s3://orchard/listed/plain/1.jpg", 1, "b"),
    ]


def test_an_address_without_a_scheme_is_https(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Arrow has it; obstore would end the process."""
    _use_s3(monkeypatch, "localhost:9")
    found = store_of("s3://orchard/a/1.jpg")
    assert found is not None
    address = obstore.sign(found[0], "GET", found[1], timedelta(minutes=1))
    assert address.startswith("https://localhost:9/orchard/a/1.jpg?")


@pytest.mark.usefixtures("s3")
def test_the_marker_of_a_folder_is_no_photo() -> None:
    """An empty object that stands for a folder is not listed, nor counted as left out."""
    listing = list_photos("s3://orchard/marked")
    assert (listing.photos["path"].to_pylist(), listing.ignored) == (
        ["s3://orchard/marked/x.jpg"],
        {},
    )


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    "source", ["s3://no-such-bucket", "s3://no-such-bucket/x", "s3://orchard/x"]
)
def test_a_bucket_or_prefix_that_is_not_there(source: str) -> None:
    """A missing bucket and a missing prefix are the caller's mistake, told with their name."""
    with pytest.raises(SourceNotFoundError, match=f"source {source}: does not exist"):
        list_photos(source)


@pytest.mark.usefixtures("s3")
def test_a_prefix_without_photos() -> None:
    """A prefix without one photo is told, with what was left out."""
    with pytest.raises(EmptySourceError, match=r"only text: no photo in it \(left out: 1 \.txt\)"):
        list_photos("s3://orchard/only text")


@pytest.mark.usefixtures("s3")
def test_an_object_is_no_folder() -> None:
    """The address of one object is refused with what is wanted instead."""
    with pytest.raises(SourceNotFoundError, match="is a file; give the "):
        list_photos("s3://orchard/marked/x.jpg")


@pytest.mark.usefixtures("s3")
def test_a_key_that_is_gone_has_vanished(pauses: list[float]) -> None:
    """A key that was deleted after the listing is told as vanished."""
    found = read_photo("s3://orchard/many/gone.jpg")
    assert isinstance(found, Unread)
    assert found.reason == Reason.VANISHED
    assert pauses == []


@pytest.mark.usefixtures("s3")
def test_keys_with_two_slashes_are_read_as_themselves(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not the object with one slash; a profile in AWS's files is Arrow's to read, which cannot."""
    paths = list_photos("s3://orchard/double").photos["path"].to_pylist()
    assert len(paths) == 3
    for path in paths:
        assert read_photo(path) == path.removeprefix("s3://orchard/").encode()
    (credentials := tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    found = {path: read_photo(path) for path in paths}
    assert found.pop("s3://orchard/double/x.jpg") == b"double/x.jpg"
    reasons = {unread.reason for unread in found.values() if isinstance(unread, Unread)}
    assert (len(found), reasons, pauses) == (2, {Reason.UNREADABLE_KEY}, [])


@pytest.mark.usefixtures("s3")
def test_a_folder_in_a_bucket_is_one_as_on_a_disk() -> None:
    """Files of a bucket are written whole, created once, moved, listed and removed."""
    folder = Folder("s3://orchard/made here")
    folder.write("a/é +%.x", b"1")
    assert folder.read("a/é +%.x") == b"1"
    assert [e.name for e in folder.files(recursive=True)] == ["a/é +%.x"]
    assert folder.folders() == ["a"]
    for _ in range(2):
        folder.move("a/é +%.x", "b/y")
        assert (folder.exists("a/é +%.x"), folder.exists("b/y")) == (False, True)
    assert folder.create("lock", b"1")
    assert not folder.create("lock", b"2")
    for _ in range(2):
        folder.remove("b/y")
        folder.remove("lock")
    assert folder.files(recursive=True) == []
    folder.write("tree/1/x", b"1")
    for _ in range(2):
        folder.remove_tree("tree")
    assert folder.files(recursive=True) == []
    with pytest.raises(FileNotFoundError):
        folder.read("b/y")


def _fail_half_way(folder: Folder) -> None:
    with folder.writing("a/broken") as file:
        file.write(b"1" * 6_000_000)
        raise RuntimeError("half way")


def in_pieces(folder: Folder) -> None:
    """Write a file piece by piece, once to its end and once not."""
    with folder.writing("a/whole") as file:
        for piece in (b"1" * 6_000_000, b"2" * 6_000_000):
            file.write(piece)
    assert folder.read("a/whole") == b"1" * 6_000_000 + b"2" * 6_000_000
    with pytest.raises(RuntimeError, match="half way"):
        _fail_half_way(folder)
    assert [e.name for e in folder.files(recursive=True)] == ["a/whole"]


def test_a_file_on_a_disk_is_written_in_pieces_or_not_at_all(tmp_path: Path) -> None:
    """What is written piece by piece is there whole, or leaves nothing."""
    in_pieces(Folder(str(tmp_path)))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["whole"]


@pytest.mark.usefixtures("s3")
def test_an_object_is_written_in_pieces_or_not_at_all() -> None:
    """A bucket keeps no half of an object whose writer failed."""
    folder = Folder("s3://orchard/in pieces")
    in_pieces(folder)
    folder.remove_tree()


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    """An address that holds a secret would be written to every record: it is refused without it."""
    with pytest.raises(ConfigError, match="no password and no key in an address") as caught:
        normalize_source("s3://AKIAIOSFODNN7:wJalrXUt@bucket/photos")
    assert "wJalrXUt" not in str(caught.value)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("source", ["s3://", "s3:///photos"])
def test_an_address_without_a_bucket_is_refused(source: str) -> None:
    """An s3:// address that names no bucket is refused as any other mistake of the caller's."""
    with pytest.raises(VergerError, match="bucket"):
        list_photos(source)


@dataclass
class Refusal:
    """The answer of an S3 to every request."""

    status: int = 403
    code: str = "AccessDenied"

    def __call__(self, exchange: Exchange) -> None:
        message = f"{self.code}, in words"
        body = f"<Error><Code>{self.code}</Code><Message>{message}</Message></Error>".encode()
        headers = [("Content-Type", "application/xml")]
        exchange.reply(body, status=self.status, headers=headers)


@pytest.fixture
def refusing_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusal]:
    """An S3 that answers 403 to everything, or what the test tells it."""
    refusal = Refusal()
    with closing(Server(refusal)) as server:
        _use_s3(monkeypatch, server.address)
        yield refusal


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AccessDenied", "they need s3:ListBucket"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID, or the profile's, is unknown there"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY is not the key's"),
        (400, "ExpiredToken", "the session is over: sign in again"),
        (301, "PermanentRedirect", "set AWS_REGION to the bucket's region"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION to the bucket's region"),
    ],
)
def test_a_refused_listing_says_what_to_do(
    refusing_s3: Refusal, status: int, code: str, advice: str
) -> None:
    """Wrong keys, an old session and a bucket in another region are told apart."""
    refusing_s3.status, refusing_s3.code = status, code
    with pytest.raises(SourceError, match=rf"s3://orchard/x: cannot be listed: .*; .*{advice}"):
        list_photos("s3://orchard/x")


def test_aws_is_asked_for_the_region_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is read in its own region, whatever region is set for all else."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setattr(paths.fs, "resolve_s3_region", lambda bucket: "eu-central-1")
    assert filesystem_of("s3://elsewhere/x")[0].region == "eu-central-1"

    def silent(bucket: str) -> str:
        raise OSError("no route to the host")

    monkeypatch.setattr(paths.fs, "resolve_s3_region", silent)
    assert filesystem_of("s3://behind-an-endpoint/x")[0].region == "eu-west-3"
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(SourceError, match="s3://unknown: no such bucket, or no way to it"):
        filesystem_of("s3://unknown/x")


@pytest.mark.usefixtures("refusing_s3")
def test_a_bucket_that_is_closed_to_us() -> None:
    """A listing that S3 forbids is an error that says so, not a missing source."""
    with pytest.raises(SourceError, match=r"s3://orchard/x: cannot be listed: .*ACCESS_DENIED"):
        list_photos("s3://orchard/x")


@pytest.mark.usefixtures("refusing_s3")
def test_a_key_that_is_closed_to_us(pauses: list[float]) -> None:
    """A read that S3 forbids has the reason of a local file's, and is not tried again."""
    found = read_photo("s3://orchard/x.jpg")
    assert isinstance(found, Unread)
    assert found.reason == Reason.PERMISSION
    assert pauses == []
