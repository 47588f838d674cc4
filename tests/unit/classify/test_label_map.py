"""A map gives labels other names, and a name the probabilities of its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from verger.classify.label_map import merge_labels, read_label_map
from verger.errors import ConfigError

APPLES = {"Apple Red": "apple", "Apple Golden": "apple"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.toml", '"Apple Red" = "apple"\n"Apple Golden" = "apple"\n'),
        ("map.toml", 'apple = ["Apple Red", "Apple Golden"]\n'),
        ("map.csv", "label,name\nApple Red,apple\nApple Golden, apple\n"),
        ("map.csv", "\ufefflabel;name\r\nApple Red;apple\r\nApple Golden;apple\r\n"),
    ],
)
def test_a_map_is_toml_or_csv(tmp_path: Path, name: str, text: str) -> None:
    """In TOML either way round."""
    (tmp_path / name).write_text(text)
    assert read_label_map(tmp_path / name) == APPLES


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('"a" = "x"\ny = ["a"]\n', "gives 'a' two names, 'x' and 'y'"),
        ("a = 1\n", "'a' = 1 must be"),
        ("", "has no label"),
    ],
)
def test_a_map_that_cannot_be_used(tmp_path: Path, text: str, match: str) -> None:
    """The error says what is wrong."""
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_label_map(tmp_path / "map.toml")


def test_probabilities_are_summed_by_name() -> None:
    """A label that is not in the map keeps its name; a map of other labels is refused."""
    merged = merge_labels(("Apple Golden", "Apple Red", "Pear"), APPLES)
    assert merged.names == ("Pear", "apple")
    np.testing.assert_allclose(merged.sum(np.array([[0.4, 0.35, 0.25]])), [[0.25, 0.75]])
    assert merge_labels(("apple", "Pear"), APPLES).names == ("Pear", "apple")
    with pytest.raises(ConfigError, match="has none of the labels; the first of 1 is 'kiwi'"):
        merge_labels(("kiwi",), APPLES)
