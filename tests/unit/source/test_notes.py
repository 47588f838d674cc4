"""What looks like a mistake in folders and labels is said, and nothing that does not."""

from __future__ import annotations

import pytest

from verger.source.listing import Listing, make_listing
from verger.source.notes import NAMED, describe_folders, describe_labels
from verger.source.stored import StoredFile


def listing(*paths: str, label_from: str = "parent") -> Listing:
    files = [StoredFile(path, 1, 0) for path in paths]
    root = "s3://bucket/in" if paths[0].startswith("s3:") else "/in"
    return make_listing(files, root, root, (), label_from, recursive=True)


@pytest.mark.parametrize(
    "other",
    ["apple", "APPLE", "Apple ", " Apple", "Ap ple", "Apple\xa0", "Apple\u200b", "\uff21pple"],
)
def test_labels_that_are_read_as_one_are_named(other: str) -> None:
    """Case, blanks, characters without width and forms of letters are no reason for a class."""
    (note,) = describe_labels({"Apple": 3, "Pear": 2, other: 1000} | {"Fig": 2})
    assert "differ only by case, blanks or form" in note
    assert "'Apple' (3 photos)" in note
    assert f"{other!r} (1,000 photos)" in note
    assert "Pear" not in note


@pytest.mark.parametrize("other", ["Apples", "Äpple", "Apple 2", "Appl", "Apple-"])
def test_other_labels_are_other_classes(other: str) -> None:
    """An accent, a number or a letter makes another fruit."""
    assert describe_labels({"Apple": 3, other: 2}) == []


@pytest.mark.parametrize("label", ["1.jpg", "IMG_1.CR2", "photos.zip", "a.b.tiff", "x.7z"])
def test_labels_like_files_are_named(label: str) -> None:
    """A NAS that nobody knows has a folder of thumbnails for each photo, of the photo's name."""
    (note,) = describe_labels({"Apple": 3, label: 2})
    assert f"look like names of files, as folders of thumbnails do: {label!r} (2 photos)" in note


@pytest.mark.parametrize("label", ["St. Marc", "v1.0", "Malus sp.", "Dr.Smith", "...", ".", "M.9"])
def test_a_label_may_have_a_dot(label: str) -> None:
    """Names of people, of versions and of botanists are no files."""
    assert describe_labels({"Apple": 3, label: 2}) == []


def test_classes_of_one_photo_are_named_and_counted() -> None:
    """They cannot be tested; of many the first are named."""
    (note,) = describe_labels({"Apple": 3, "Pear": 1})
    assert note.startswith("1 label has only one photo")
    (note,) = describe_labels({f"{i:03}x": 1 for i in range(100)})
    assert note.startswith("100 labels have only one photo")
    assert note.endswith(f"'004x' and {100 - NAMED} more")


@pytest.mark.parametrize("root", ["/in", "s3://bucket/in"])
def test_a_flat_folder_is_told_to_be_one_class(root: str) -> None:
    """Its name is the only label, which nobody meant; the option that helps is named."""
    (note,) = describe_folders(listing(f"{root}/1.jpg", f"{root}/2.jpg"), "parent")
    assert note.startswith("all photos lie in the source itself, so that its name 'in' is their on")
    assert "--label-from none" in note
    assert describe_folders(listing(f"{root}/1.jpg", label_from="none"), "none") == []
    assert describe_folders(listing(f"{root}/1.jpg", label_from="/(.)"), "/(.)") == []


def test_photos_beside_the_folders_are_told() -> None:
    """They have the source's name as their label, among those of the folders."""
    (note,) = describe_folders(listing("/in/1.jpg", "/in/a/1.jpg", "/in/b/1.jpg"), "parent")
    assert note.startswith("1 photo lies in the source itself, beside its folders, and its name 'i")


def test_one_folder_within_is_one_label() -> None:
    """Every photo of the source has it; two folders are what is wanted."""
    (note,) = describe_folders(listing("/in/all/1.jpg", "/in/x/all/2.jpg"), "parent")
    assert note == "all photos have one label, 'all', the name of their folder"
    assert describe_folders(listing("/in/a/1.jpg", "/in/b/2.jpg"), "parent") == []
