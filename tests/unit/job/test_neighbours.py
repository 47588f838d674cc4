"""The map of neighbours keeps groups together, and is drawn once for the same scores."""

from __future__ import annotations

import numpy as np
import pytest

from verger.errors import EnvironmentNotReadyError
from verger.job.report import neighbours
from verger.job.report.neighbours import place_neighbours, require_tsne


def test_photos_of_a_group_stay_together_and_nothing_is_drawn_twice() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(10 * i, 0.1, (8, 3)) for i in range(3)]).astype(np.float32)
    found = place_neighbours(scores, None)
    assert found is not None
    xy = np.array([found.x, found.y]).T
    distance = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag([np.inf] * 24)
    assert (distance.argmin(axis=1) // 8 == np.arange(24) // 8).all()
    assert place_neighbours(scores, found) is found
    assert place_neighbours(scores[:3], found) is None


def test_the_extra_is_named_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentNotReadyError, match=r"--neighbour-map needs: pip install .*map"):
        require_tsne()
