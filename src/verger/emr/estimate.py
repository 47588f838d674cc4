"""Time a sample of photos on this machine, to estimate how long a run takes."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from verger.errors import ConfigError
from verger.features.model import Model, ModelSession
from verger.features.outcomes import featurize_rows, read_rows
from verger.result.clock import Clock
from verger.source.listing import Listing

#: Photos that are timed, after a few that are not: the first ones wait for libraries to load.
N_TIMED = 64
N_WARM = 4


def time_sample(listing: Listing, model: Model, *, n: int = N_TIMED, micro_batch: int = 1) -> float:
    """Return how many photos a second one core of this machine decodes and computes.

    The time to read them is left out: from here it says nothing about the workers, which read
    many at a time while they compute.

    Parameters
    ----------
    listing : Listing
    model : Model
    n : int
        Photos, drawn from all over the listing, the same each time.
    micro_batch : int

    Raises
    ------
    ConfigError
        If there is nothing to time.
    """
    if n < 1:
        raise ConfigError(f"sample={n} must be at least 1")
    drawn = np.random.default_rng(0).permutation(len(listing.photos))[: n + N_WARM]
    photos = listing.photos.take(drawn)
    session, n_warm = model.open(), min(N_WARM, len(photos) - 1)
    _busy_s(photos.slice(0, n_warm), session, micro_batch)
    return (len(photos) - n_warm) / _busy_s(photos.slice(n_warm), session, micro_batch)


def _busy_s(photos: pa.Table, session: ModelSession, micro_batch: int) -> float:
    """Return the seconds that go to decoding and computing, without those of reading."""
    clock, start = Clock(), time.perf_counter()
    for _ in featurize_rows(read_rows(photos), session, micro_batch=micro_batch, clock=clock):
        pass
    return time.perf_counter() - start - clock.seconds["read"]
