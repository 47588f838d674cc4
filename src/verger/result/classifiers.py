"""Where the classifiers of a result lie: the one without a name, and those with one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verger.errors import ConfigError, OutputError
from verger.result.output import (
    CLASSIFIER_NPZ,
    EVALUATION,
    PREDICTIONS,
    SPARK_CLASSIFIER,
    TRAINING,
    Output,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NAMED_NPZ = re.compile(rf"models/classifier-({_NAME.pattern})\.npz")


@dataclass(frozen=True)
class ClassifierFiles:
    """The files below OUT of one classifier.

    Attributes
    ----------
    name : str
        Empty for the one that the report shows.

    Raises
    ------
    ConfigError
        If the name could be no name of a file.
    """

    name: str = ""

    def __post_init__(self) -> None:
        if self.name and not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"name={self.name!r}: must be letters, digits, - and _, 40 at most, and begin with "
                "a letter or a digit"
            )

    @property
    def npz(self) -> str:
        """The classifier as arrays."""
        return f"models/classifier-{self.name}.npz" if self.name else CLASSIFIER_NPZ

    @property
    def spark_model(self) -> str:
        """The folder of the same in Spark's format."""
        return f"{SPARK_CLASSIFIER}-{self.name}" if self.name else SPARK_CLASSIFIER

    @property
    def training(self) -> str:
        """What it was trained on."""
        return f"classifier/{self.name}/training.json" if self.name else TRAINING

    @property
    def evaluation(self) -> str:
        """What it is worth."""
        return f"classifier/{self.name}/evaluation.json" if self.name else EVALUATION

    @property
    def predictions(self) -> str:
        """The folder of the table of what it said of held-out photos."""
        return f"classifier/{self.name}/predictions" if self.name else PREDICTIONS


#: The classifier without a name.
UNNAMED = ClassifierFiles()


def list_classifiers(output: Output) -> list[ClassifierFiles]:
    """List the trained classifiers of a result, the one without a name first."""
    names = sorted(entry.name for entry in output.folder.files("models"))
    found = [ClassifierFiles()] if CLASSIFIER_NPZ in names else []
    matches = (_NAMED_NPZ.fullmatch(name) for name in names)
    return found + [ClassifierFiles(match[1]) for match in matches if match]


def no_classifier(output: Output, npz: str) -> OutputError:
    """Return the error of a classifier's file that is not there: it says which OUT has."""
    which = "" if npz == CLASSIFIER_NPZ else f" of this name ({npz})"
    names = [files.name or "one without a name" for files in list_classifiers(output)]
    if not names:
        return OutputError(
            f"OUT={output.root}: has no classifier{which}; verger classify trains one"
        )
    return OutputError(
        f"OUT={output.root}: has no classifier{which or ' without a name'}, but "
        f"{' and '.join(names)}; --name NAME chooses one with a name"
    )


def list_described(output: Output) -> list[ClassifierFiles]:
    """List the names of which OUT says how they were trained or tested; the empty one first."""
    below = output.folder.folders("classifier")
    named = [ClassifierFiles(name) for name in sorted(below) if _NAME.fullmatch(name)]
    exists = output.folder.exists
    return [f for f in (UNNAMED, *named) if exists(f.training) or exists(f.evaluation)]
