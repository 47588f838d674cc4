"""Count what a run asks of its buckets, and what that costs: S3 is paid by the request.

The counts are those of runs of 200 and of 400 photos on a local S3, where a proxy counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: One for each photo, and again for those of which the report has a thumbnail.
_THUMBNAILS = 2400
#: To read committed batches: their files' ends, their rows, their markers.
_READS_A_BATCH = 17
#: Two files and a marker.
_WRITES_A_BATCH = 3
#: Whatever the number of photos: the lock, the plan, the tables, models and report.
_READS, _WRITES = 250, 150
#: Keys in an answer of S3 to a question for a list.
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True)
class Requests:
    """Requests to S3, as it prices them.

    Attributes
    ----------
    reads : int
        GET and HEAD.
    writes : int
        PUT, COPY, POST and LIST. DELETE costs nothing.
    """

    reads: int
    writes: int


def count_requests(n_photos: int, commit_every: int) -> Requests:
    """Return about how many requests a run sends that computes all its photos.

    Parameters
    ----------
    n_photos : int
    commit_every : int
        Photos in a batch.
    """
    batches = math.ceil(n_photos / commit_every)
    thumbnails = min(n_photos, _THUMBNAILS)
    listed = math.ceil(n_photos / _LISTED_AT_ONCE)
    return Requests(
        n_photos + thumbnails + _READS_A_BATCH * batches + _READS,
        listed + _WRITES_A_BATCH * batches + _WRITES,
    )


@dataclass(frozen=True)
class RequestPrice:
    """Prices of 1,000 requests."""

    read_1000: float = 0.0
    write_1000: float = 0.0

    def cost(self, requests: Requests) -> float:
        """Return what requests cost."""
        return (requests.reads * self.read_1000 + requests.writes * self.write_1000) / 1000

    @property
    def words(self) -> str:
        """Say what the prices are."""
        return f"{self.read_1000:g} and {self.write_1000:g} for 1,000 requests that read and write"


#: Of a server of one's own.
FREE = RequestPrice()
