"""``run.json``: what a result is, who made it, and which files it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from verger.config import Config
from verger.files.records import OMIT_NONE
from verger.files.tables import Part
from verger.result.clock import Spent


def _check_not_negative(record: object) -> None:
    """Refuse a record with a number below 0 where something is counted."""
    for each in fields(record):  # type: ignore[arg-type]
        value = getattr(record, each.name)
        numbers = value if isinstance(value, Mapping) else {"": value}
        for key, number in numbers.items():
            if isinstance(number, int | float) and number < 0:
                raise ValueError(f"{each.name}{key and '.'}{key}={number} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Photos of a result.

    Attributes
    ----------
    listed, featurized, rejected : int
        ``listed + gone = featurized + rejected``.
    gone : int
        Rows of photos that are no longer in the source, and were kept.
    truncated : int
        Photos that were cut off and have features nevertheless.
    reasons : mapping of str to int
        Rejected photos by reason.
    computed : int
        Photos whose features this run computed; the others had them before.
    relabelled : int
        Rows that got another label than they had.
    bytes : int
        Size of all listed photos.
    ignored : mapping of str to int
        Files that were left out, by suffix or by what they are.
    clamped : int
        Listed photos whose modification time no table holds; see
        :data:`verger.schema.TIMES_MS`.
    """

    listed: int
    featurized: int
    rejected: int
    gone: int = 0
    truncated: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    computed: int = 0
    relabelled: int = 0
    bytes: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    clamped: int = 0

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model that made the features.

    Attributes
    ----------
    published : bool or None
        Whether the weights are the published ones; None where nobody can know.
    """

    name: str
    license: str | None = None
    weights_path: str | None = None
    weights_sha256: str | None = None
    published: bool | None = None
    n_features: int = 0
    input_size: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True, kw_only=True)
class PCARecord:
    """The PCA of a result.

    Attributes
    ----------
    components : int or float
        What was asked for: a number, or a share of the variance.
    kept : float
        Share of the variance of the kept components.
    first_ratios : tuple of float
        Shares of the first two components.
    k : mapping of str to int
        Share of the variance to the number of components that reach it.
    summed : int
        Rows that were read for the sums; the others were summed before.
    """

    n_samples: int
    n_components: int
    components: int | float
    kept: float
    standardize: bool
    center: bool
    first_ratios: tuple[float, ...]
    k: Mapping[str, int]
    summed: int = 0

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True)
class Check:
    """One thing that must hold of a result.

    Attributes
    ----------
    name : str
        What must hold, in words.
    holds : bool
    detail : str
        The numbers that were counted.
    """

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that has added to a result, and what it took.

    Attributes
    ----------
    started : str
        ISO time.
    computed : int
        Photos whose features it computed.
    engine : str
    cores : int
    seconds : mapping of str to float
        Wall time by stage.
    """

    started: str
    computed: int
    engine: str
    cores: int
    seconds: Mapping[str, float]

    def __post_init__(self) -> None:
        _check_not_negative(self)


#: How the notice of a run that failed with a result begins.
FAILED = "This run failed: "


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What ``run.json`` holds, in the order of its keys.

    Attributes
    ----------
    source, output : str
        As they are stored: absolute folders, or ``s3://bucket/prefix``.
    named_by : str or None
        The list that named the photos, where a list was the source.
    started, finished : str
        ISO times; ``finished`` is missing while a run is under way, or was killed.
    config : mapping
        All options; see :meth:`option`.
    contract : mapping
        Of :class:`verger.features.contract.FeatureContract`.
    seconds : mapping of str to float
        Wall time by stage.
    spent : Spent or None
        What the workers' time went to.
    files : mapping of str to tuple of Part
        Table to its files.
    checks : tuple of Check or None
        None where nothing was validated since the result has changed.
    runs : tuple of PastRun
        The runs before this one that added to the result, or took from it.
    up_to_date : bool or None
        True in what a run returns that had nothing to do; it writes nothing.
    """

    verger: str = ""
    source: str
    named_by: str | None = field(default=None, metadata=OMIT_NONE)
    output: str
    started: str = ""
    command: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    contract: Mapping[str, object]
    contract_hash: str
    model: ModelRecord
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, object] = field(default_factory=dict)
    counts: Counts
    notices: tuple[str, ...] = ()
    seconds: Mapping[str, float]
    spent: Spent | None = field(default=None, metadata=OMIT_NONE)
    files: Mapping[str, tuple[Part, ...]]
    pca: PCARecord | None = field(default=None, metadata=OMIT_NONE)
    checks: tuple[Check, ...] | None = field(default=None, metadata=OMIT_NONE)
    finished: str | None = field(default=None, metadata=OMIT_NONE)
    runs: tuple[PastRun, ...] = ()
    up_to_date: bool | None = field(default=None, metadata=OMIT_NONE)

    def __post_init__(self) -> None:
        _check_not_negative(self)
        for part in (part for parts in self.files.values() for part in parts):
            _check_not_negative(part)

    @property
    def n_without_vector(self) -> int:
        """Rows of ``features`` that the PCA was not fitted to, because they have no vector."""
        return max(0, self.counts.featurized - self.pca.n_samples) if self.pca else 0

    def as_past(self) -> PastRun:
        """Return what the next run says of this one."""
        return PastRun(
            started=self.started,
            computed=self.counts.computed,
            engine=str(self.machine.get("engine", "")),
            cores=int(str(self.machine.get("cpu_count") or 0)),
            seconds=self.seconds,
        )

    def option(self, name: str) -> object:
        """Return an option of the run; its default if the run was of a version without it."""
        return self.config.get(name, Config().as_dict()[name])
