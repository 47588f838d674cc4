"""An approximate index of a result's features, by faiss, kept beside them.

Vectors are dealt to lists, each to the one whose centre is nearest, and kept with half their digits
(faiss' ``IndexIVFScalarQuantizer``, 16-bit floats). A search looks into the few lists whose
centres are nearest to what is looked for. How many lists is measured on photos of the table
itself: as many as it takes to find :data:`RECALL` of their true neighbours.

Training is seeded, and ties are decided by path: the same files give the same answers.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verger.classify.nearest import Cosine, Float32s, Int32s, NearestRows, unit
from verger.engine.tasks import Engine
from verger.errors import InspectionError, SchemaError, missing_extra
from verger.files.folder import Folder
from verger.files.records import as_json, from_plain
from verger.files.tables import Part
from verger.result.inspected import Index
from verger.result.output import INDEX, Output
from verger.similar.neighbors import Neighbors, search_in_tasks
from verger.similar.rows import StoredRows, iter_blocks, stored_vectors

if TYPE_CHECKING:
    from types import ModuleType


#: Share of the true nearest :data:`K` that the index must find, of the photos it is tried with.
RECALL = 0.99
K = 10
#: Photos that it is tried with.
TRIED = 500

# Of a bucket: faiss asks for a few numbers at a time, and each would be a request.
_BYTES_AT_ONCE = 8 * 2**20
# Vectors that the centre of a list is fitted to; faiss asks for 39.
_ROWS_PER_LIST = 40


def require_faiss() -> ModuleType:
    """Import faiss, which the base installation does not have.

    Raises
    ------
    EnvironmentNotReadyError
        If it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as err:
        raise missing_extra(err.name, "--approximate", "index") from err
    module: ModuleType = faiss
    return module


def ensure_index(output: Output) -> Index:
    """Return the index of a result; make it where there is none, or one of other features.

    Whoever calls this holds the lock of OUT.
    """
    return current_index(output) or build_index(output)


def current_index(output: Output) -> Index | None:
    """Return the index of a result; None where there is none of these very features.

    One that another version of Verger's has described differently is none either.

    Raises
    ------
    SchemaError
        If what is said of it is no JSON.
    """
    values = output.read_derived(dict[str, object], INDEX)
    try:
        index = from_plain(Index, values)
    except ValueError:
        return None
    is_current = index.features == _identity(output) and output.folder.exists(index.file)
    return index if is_current else None


def _identity(output: Output) -> str:
    """Return a hash of the contract and of the files of the table ``features``."""
    parts = [f"{part.name} {part.sha256}" for part in output.parts("features")]
    text = "\n".join([output.read_run().contract_hash, *parts])
    return hashlib.sha256(text.encode()).hexdigest()


# Making it


def build_index(output: Output) -> Index:
    """Make the index of a result and keep it there, in the place of an older one.

    Its vectors are in memory while it is made, 2.6 kB each of 1280 features.

    Raises
    ------
    EnvironmentNotReadyError
        If faiss is not installed.
    InspectionError
        If no photo has features.
    """
    faiss, start = require_faiss(), time.perf_counter()
    folder, parts = output.folder, [part for part, _ in stored_vectors(output)]
    n = sum(part.rows for part in parts)
    if n == 0:
        raise InspectionError(f"OUT={output.root}: n_photos=0 with features must be at least 1")
    n_lists = max(1, min(round(2 * n**0.5), n // _ROWS_PER_LIST))
    drawn = np.random.default_rng(0).permutation(n)[: max(n_lists * _ROWS_PER_LIST, TRIED)]
    x = _collect(folder, parts, drawn)
    index = _train(faiss, unit(x), n_lists)
    own = drawn[:TRIED].astype(np.int32)
    tried = NearestRows(Cosine(x[:TRIED]), max(1, min(K, n - 1)), own)
    for first, block in iter_blocks(folder, parts):
        index.add(unit(block))
        tried.add(block, np.arange(first, first + len(block), dtype=np.int32))
    n_probe, recall = _choose_probes(faiss, index, unit(x[:TRIED]), drawn[:TRIED], tried.row)
    name = f"{INDEX.rpartition('/')[0]}/features-{uuid.uuid4().hex}.faiss"
    with folder.writing(name) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    written = {entry.name: entry.size for entry in folder.files("index")}
    description = Index(
        file=name,
        size_bytes=written.pop(name),
        features=_identity(output),
        n_photos=n,
        n_features=x.shape[1],
        n_lists=n_lists,
        n_probe=n_probe,
        recall=recall,
        k=K,
        n_tried=min(TRIED, n),
        faiss=version("faiss-cpu"),
        seconds=round(time.perf_counter() - start, 3),
    )
    folder.write(INDEX, as_json(description))
    for old in written:
        if fnmatch(old, "index/features-*.faiss"):
            folder.remove(old)
    return description


def _collect(folder: Folder, parts: list[Part], places: npt.NDArray[np.int64]) -> Float32s:
    """Read the vectors at some places, in their order: (m, d)."""
    order = np.argsort(places)
    rising, blocks = places[order], []
    for first, x in iter_blocks(folder, parts):
        low, high = np.searchsorted(rising, [first, first + len(x)])
        blocks.append(x[rising[low:high] - first])
    vectors = np.concatenate(blocks)
    collected = np.empty_like(vectors)
    collected[order] = vectors
    return collected


def _train(faiss: ModuleType, x: Float32s, n_lists: int) -> Any:
    """Return an index without vectors whose lists have their centres."""
    d = x.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(d),
        d,
        n_lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,
    )
    index.train(x)
    return index


def _choose_probes(
    faiss: ModuleType, index: Any, x: Float32s, places: npt.NDArray[np.int64], truth: Int32s
) -> tuple[int, float]:
    """Return how many lists to look into, and the recall with so many.

    Parameters
    ----------
    faiss : module
    index : faiss.IndexIVF
    x : ndarray of shape (m, d), float32
        Of length 1.
    places : ndarray of shape (m,)
        Of these vectors in the index.
    truth : ndarray of shape (m, k), int32
        Places of the nearest others.
    """
    n_probe, before = 4, -1.0
    while True:
        n_probe = min(2 * n_probe, index.nlist)
        params = faiss.SearchParametersIVF(nprobe=n_probe)
        places_found = index.search(x, truth.shape[1] + 1, params=params)[1]
        places_found[places_found == places[:, None]] = -1
        hits = (truth[:, :, None] == places_found[:, None, :]).any(axis=2)[truth >= 0]
        recall = float(hits.mean()) if len(hits) else 1.0
        # What half the digits have mixed up is found in no list.
        if recall >= RECALL or recall == before or n_probe == index.nlist:
            return n_probe, recall
        before = recall


# Using it


def search_index(
    folder: Folder, index: Index, x: Float32s, k: int
) -> tuple[Float32s, npt.NDArray[np.int64]]:
    """Find the vectors that have the largest cosine to some others.

    Parameters
    ----------
    folder : Folder
        OUT.
    index : Index
    x : ndarray of shape (m, n_features), float32
    k : int

    Returns
    -------
    similarity : ndarray of shape (m, k), float32
        Falling; right to 1e-4.
    place : ndarray of shape (m, k), int64
        In the stored order; -1 where fewer were found.
    """
    faiss = require_faiss()
    params = faiss.SearchParametersIVF(nprobe=index.n_probe)
    similarity, place = _opened(folder, index.file).search(unit(x), k, params=params)
    return np.minimum(similarity, np.float32(1)), place


@lru_cache(maxsize=1)
def _opened(folder: Folder, name: str) -> Any:
    """Open an index: on a disk its lists stay there until they are looked into."""
    faiss = require_faiss()
    try:
        if folder.is_local:
            return faiss.read_index(folder.address(name), faiss.IO_FLAG_MMAP)
        with folder.open(name) as file, pa.BufferedInputStream(file, _BYTES_AT_ONCE) as stream:
            return faiss.read_index(faiss.PyCallbackIOReader(stream.read))
    except (OSError, RuntimeError) as err:
        raise SchemaError(
            f"{folder.address(name)}: cannot be read: {err}; remove it, and the next search "
            "makes it again"
        ) from err


@dataclass(frozen=True)
class IndexSearch:
    """Look rows up in an index of the table."""

    rows: StoredRows
    index: Index
    k: int

    def __call__(self, x: Float32s, number: Int32s) -> tuple[Int32s, Float32s]:
        """Look up rows; nearly all of the nearest are found."""
        similarity, place = search_index(self.rows.folder, self.index, x, self.k + 1)
        row = np.where(place >= 0, self.rows.number[place], -1)
        row[row == number[:, None]] = -1  # a row is no neighbour of itself
        similarity[row < 0] = -1
        best = np.lexsort((row, row < 0, -similarity))[:, : self.k]
        return np.take_along_axis(row, best, 1), np.take_along_axis(similarity, best, 1)


def find_neighbors_by_index(engine: Engine, rows: StoredRows, index: Index, k: int) -> Neighbors:
    """Find nearly all of the k nearest neighbours of every row, in the tasks.

    Parameters
    ----------
    engine : Engine
    rows : StoredRows
    index : Index
        Of the same table.
    k : int
        At least 1; a table of n rows gives at most n - 1.
    """
    return search_in_tasks(engine, IndexSearch(rows, index, min(k, len(rows) - 1)))
