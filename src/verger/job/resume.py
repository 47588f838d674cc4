"""Where a run begins: with nothing, with a result to add to, or with a killed run to finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verger.errors import ContractError, OutputExistsError, VergerError
from verger.features.contract import FeatureContract
from verger.files.tables import Part
from verger.result.journal import Start, latest_attempt
from verger.result.output import RUN, Output
from verger.result.record import RunRecord


@dataclass(frozen=True)
class State:
    """Where a run begins.

    Attributes
    ----------
    record : RunRecord or None
        ``run.json`` of the result that is added to; None where the result is to be a new one.
    markers : list of str
        Batches that an unfinished run has committed, and this one takes over.
    """

    record: RunRecord | None
    markers: list[str]

    @property
    def published(self) -> Mapping[str, Sequence[Part]]:
        """Files by table of the result that is added to."""
        return self.record.files if self.record else {}


def find_state(output: Output, root: str, contract: FeatureContract, *, overwrite: bool) -> State:
    """Find where a run begins, or refuse to mix what does not belong together.

    Parameters
    ----------
    output : Output
    root : str
        The source, in the form in which it is stored.
    contract : FeatureContract
        Of the features that the run would compute.
    overwrite : bool

    Raises
    ------
    ContractError
        If what OUT holds, finished or not, is of another contract.
    OutputExistsError
        If it is of another source.
    """
    if overwrite and not _was_killed_later(output, root, contract):
        return _begin_anew(output, root, contract)
    unfinished = latest_attempt(output)
    if unfinished is not None:
        _check_same(output, "unfinished run", unfinished.start, root, contract)
        if unfinished.start.fresh:
            return State(None, unfinished.markers())
    if not output.folder.exists(RUN):
        return State(None, [])
    record = output.read_run()
    _check_same(output, "result", record, root, contract)
    return State(record, unfinished.markers() if unfinished else [])


def _begin_anew(output: Output, root: str, contract: FeatureContract) -> State:
    """Begin with nothing, or with what a killed ``--overwrite`` has committed."""
    unfinished = latest_attempt(output)
    if unfinished is None or not unfinished.start.overwrite:
        return State(None, [])
    same = _is_same(unfinished.start, root, contract)
    return State(None, unfinished.markers() if same else [])


def _was_killed_later(output: Output, root: str, contract: FeatureContract) -> bool:
    """Whether the result is of a run like this one that was killed after it had published it.

    Its ``--overwrite`` has been carried out.
    """
    try:
        record = output.read_run()
    except VergerError:
        return False
    begun_anew = record.option("overwrite") is True and record.finished is None
    return begun_anew and _is_same(record, root, contract)


def _is_same(held: RunRecord | Start, root: str, contract: FeatureContract) -> bool:
    return (held.source, held.contract_hash) == (root, contract.hash)


def _check_same(
    output: Output, what: str, held: RunRecord | Start, root: str, ours: FeatureContract
) -> None:
    if held.contract_hash != ours.hash:
        theirs = held.contract
        raise ContractError(
            f"OUT={output.root}: holds the {what} of contract {held.contract_hash[:12]} "
            f"({theirs.get('model')}, weights {str(theirs.get('weights_sha256'))[:12]}), and this "
            f"is contract {ours.short_hash} ({ours.model}, weights {ours.weights_sha256[:12]}): "
            "features of two contracts never mix; choose another folder, or --overwrite"
        )
    if held.source != root:
        raise OutputExistsError(
            f"OUT={output.root}: holds the {what} of SRC={held.source}, and this is "
            f"SRC={root}. Rows name photos by their full paths, so that photos which were "
            "moved are others: choose another folder, or --overwrite"
        )
