"""A result that names photos elsewhere has none of them read."""

from __future__ import annotations

from pathlib import Path

import pytest

from verger.errors import ConfigError
from verger.files.paths import is_below, normalize_source, odd_part
from verger.files.reading import Unread, read_photo
from verger.schema import Reason


@pytest.mark.parametrize(
    ("path", "source", "below"),
    [
        ("s3://bucket/photos/a/b.jpg", "s3://bucket/photos", True),
        ("s3://bucket/b.jpg", "s3://bucket", True),
        ("s3://bucket/b.jpg", "s3://bucket/", True),
        ("s3://bucket/photos2/b.jpg", "s3://bucket/photos", False),
        ("s3://bucket2/b.jpg", "s3://bucket", False),
        ("s3://elsewhere/b.jpg", "s3://bucket", False),
        ("s3://bucket/photos/../secret.jpg", "s3://bucket/photos", False),
        ("s3://bucket/b.jpg", "s3://", False),
        ("s3://bucket/b.jpg", "", False),
        ("s3://bucket/b.jpg", "/", False),
        ("/photos/b.jpg", "", False),
        ("photos/b.jpg", "photos", False),
        ("hdfs://node/photos/b.jpg", "hdfs://node/photos", False),
        ("/photos2/b.jpg", "/photos", False),
        ("/photos", "/photos", False),
        ("/photos/../etc/passwd", "/photos", False),
        ("/photos/a\0b.jpg", "/photos", False),
        ("/photos/gone.jpg", "/photos/", True),
    ],
)
def test_only_what_lies_below_the_source_is_below_it(path: str, source: str, below: bool) -> None:
    """Neither a name that only begins alike, nor two dots, nor another bucket is below."""
    assert is_below(path, source) is below


@pytest.mark.parametrize(
    "source", ["/", "/home", "/etc", "/etc/ssl", "/home/alice", "/tmp", "HOME"]
)
def test_a_source_that_holds_everything_has_no_photos(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made a result recorded its source: a whole machine or home is not believed."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home if source == "HOME" else "/home/alice"))
    for place in (str(home), f"{tmp_path}/link") if source == "HOME" else (source,):
        assert not is_below(f"{place.rstrip('/')}/a.jpg", place)
    assert is_below(f"{home}/photos/a.jpg", f"{home}/photos")


def test_links_are_followed(tmp_path: Path) -> None:
    """A link that leads out of the source is outside, and a source that is a link is a source."""
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    photos.mkdir()
    elsewhere.mkdir()
    (photos / "a.jpg").touch()
    (elsewhere / "b.jpg").touch()
    (photos / "out.jpg").symlink_to(elsewhere / "b.jpg")
    (photos / "folder").symlink_to(elsewhere)
    (photos / "within.jpg").symlink_to(photos / "a.jpg")
    (photos / "circle").symlink_to(photos / "circle")
    (tmp_path / "link").symlink_to(photos)
    for source in (photos, tmp_path / "link"):
        assert is_below(f"{source}/a.jpg", str(source))
        assert is_below(f"{source}/within.jpg", str(source))
        assert not is_below(f"{source}/out.jpg", str(source))
        assert not is_below(f"{source}/folder/b.jpg", str(source))


@pytest.mark.parametrize(
    "key", ["a/./1.jpg", "a/../1.jpg", "a//../1.jpg", "./1.jpg", "../1.jpg", "a/..", "1.jpg/"]
)
def test_a_key_that_is_read_as_another_one_is_refused_for_good(key: str) -> None:
    """Neither tried nor tried again: what would be asked for is another object, or none."""
    unread = read_photo(f"s3://bucket/{key}", 3)
    assert isinstance(unread, Unread)
    assert unread.reason is Reason.UNREADABLE_KEY
    assert not unread.reason.may_pass


@pytest.mark.parametrize("source", ["//lead", "/a//b", "/a/../b", "/./a", "/..", "/a/."])
def test_a_source_of_such_keys_is_refused(source: str) -> None:
    """The address is at fault, and says so before a bucket is asked."""
    with pytest.raises(ConfigError, match=r"must have no part that is empty, '.' or '..': obj"):
        normalize_source(f"s3://bucket{source}")


def test_dots_and_slashes_that_are_harmless() -> None:
    """Names of dots, a slash at the end of an address, and folders of a disk stay as they are."""
    assert normalize_source("s3a://bucket/..a/.b/...//") == "s3://bucket/..a/.b/..."
    assert odd_part("s3://bucket/..a/.b/...") is None
    assert odd_part("s3://bucket//a//b.jpg", slashes=False) is None
    assert odd_part("s3://bucket/a//", slashes=False) == ""
    assert odd_part("/photos/../a//b.jpg") is None
