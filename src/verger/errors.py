"""Every exception that Verger raises on purpose.

::

    VergerError
    ├── UsageError (ValueError)                 the caller's mistake: the command line exits 2
    │   ├── ConfigError                         an option or a key of the configuration file
    │   ├── UnknownModelError (LookupError)     no such model
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   ├── EmptySourceError                    a source without one photo
    │   └── OutputExistsError (FileExistsError) OUT holds what may not be replaced
    ├── EnvironmentNotReadyError (RuntimeError) Java, Spark or the memory do not fit: exit 1
    ├── SourceError (OSError)                   a source that cannot be listed
    ├── OutputError (OSError)                   OUT cannot be written or read
    ├── BusyError (BlockingIOError)             another run is writing to OUT
    ├── WeightsError (ValueError)               weights or a model file that cannot be used
    │   └── WeightsNotFoundError (FileNotFoundError)
    ├── ContractError (ValueError)              two parts that disagree on the feature contract
    ├── SchemaError (ValueError)                a table without the columns or types it must have
    ├── ReduceError (ValueError)                features that no PCA can be fitted to
    ├── ClassifierError (ValueError)            photos that no classifier can be fitted to
    ├── InspectionError (ValueError)            photos that cannot be compared with one another
    ├── ErrorRateError (RuntimeError)           more photos rejected than max_error_rate allows
    ├── TasksLostError (RuntimeError)           processes died, and a task was tried often enough
    ├── CloudError (RuntimeError)               AWS refuses, cannot be reached, or lacks something
    ├── JobError (RuntimeError)                 a run on EMR did not end well
    └── ValidationError (RuntimeError)          a stored result that does not hold

Each leaf is also the builtin exception that a caller would expect. In a run, a photo that cannot
be decoded is no exception but a row of the table ``rejected``; for a photo alone it is
:class:`verger.features.preprocess.DecodeError`, which is a VergerError and a ValueError too.
"""

from __future__ import annotations

#: Note on whatever ends a run of which something is committed, Ctrl-C too.
KEPT = "what is committed is kept; run the same command again, and it resumes"


class VergerError(Exception):
    """Root of all errors that Verger raises on purpose.

    Examples
    --------
    >>> try:
    ...     verger.Config(components=-1)
    ... except verger.VergerError as error:
    ...     print(error)
    components=-1 must be ...
    """

    def __str__(self) -> str:
        # KeyError and OSError have a __str__ of their own; the text given is the whole message.
        return str(self.args[0]) if self.args else self.__class__.__name__


class UsageError(VergerError, ValueError):
    """Something that the caller asked for cannot be meant; nothing was started."""


class ConfigError(UsageError):
    """An option, or a key of the configuration file, is unknown or out of bounds."""


class UnknownModelError(UsageError, LookupError):
    """No model has this name, and no file either."""


class SourceNotFoundError(UsageError, FileNotFoundError):
    """The source of the photos does not exist."""


class EmptySourceError(UsageError):
    """The source exists but holds no photo that the glob lets through."""


class OutputExistsError(UsageError, FileExistsError):
    """The output folder already holds something."""


class BusyError(VergerError, BlockingIOError):
    """Another run is writing to the output folder."""


class EnvironmentNotReadyError(VergerError, RuntimeError):
    """Java, Spark or the machine cannot do what was asked."""


class SourceError(VergerError, OSError):
    """The source exists but cannot be listed."""


class OutputError(VergerError, OSError):
    """The output folder cannot be written or read."""


class WeightsError(VergerError, ValueError):
    """A file of weights, or a model file, is damaged or not what it should be."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """The weights of a model are nowhere on this machine and could not be fetched."""


class ContractError(VergerError, ValueError):
    """Two parts of the pipeline disagree on the feature contract."""


class SchemaError(VergerError, ValueError):
    """A table lacks the columns or the types that the contract between stages asks for."""


class ReduceError(VergerError, ValueError):
    """No PCA can be fitted to these features, or not with this number of components."""


class ClassifierError(VergerError, ValueError):
    """No classifier can be trained on these photos, or none be tested."""


class InspectionError(VergerError, ValueError):
    """There are too few photos to compare them with one another."""


class ErrorRateError(VergerError, RuntimeError):
    """More photos were rejected than ``max_error_rate`` allows; what was done is kept."""


class TasksLostError(VergerError, RuntimeError):
    """The processes of a task died, and it was tried often enough; what was done is kept."""


class CloudError(VergerError, RuntimeError):
    """AWS has refused something, cannot be reached, or lacks what is asked for."""


class JobError(VergerError, RuntimeError):
    """A run on EMR has failed, was cancelled, or ran out of its time."""


class ValidationError(VergerError, RuntimeError):
    """A stored result does not hold what it says."""


def missing_extra(needed: str | None, by: str, extra: str) -> EnvironmentNotReadyError:
    """Return the error of a package that only an extra brings, with the command that installs it.

    Verger may be on no package index, so that the command names the folder that this Verger was
    installed from, as pip recorded it (PEP 610).

    Parameters
    ----------
    needed : str or None
        The module that cannot be imported.
    by : str
        The command or option that needs it.
    extra : str
    """
    return EnvironmentNotReadyError(
        f"{needed} is not installed, which {by} needs: pip install {_requirement(extra)}"
    )


def _requirement(extra: str) -> str:
    import json  # an error alone needs them
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote

    try:
        origin = json.loads(distribution("verger").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if "dir_info" not in origin or not url.startswith("file://"):
        return f"'verger[{extra}]'"
    editable = "-e " if origin["dir_info"].get("editable") else ""
    return f"{editable}'{unquote(url.removeprefix('file://'))}[{extra}]'"
