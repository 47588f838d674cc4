"""The folder of a result: what lies where, and how a new result takes the place of an old one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verger.errors import ConfigError, OutputError, OutputExistsError, SchemaError
from verger.storage import normalize_source

TABLES = ("features", "rejected", "pca")
#: Everything that Verger ever writes below OUT; nothing else is ever touched.
OWN_NAMES = (
    *TABLES, "models", "report.html", "report.json", "scree.png", "explained_variance.csv",
    "run.json", ".staging",
)  # fmt: skip


_RUN_KEYS = ("contract", "contract_hash", "counts", "model", "seconds", "source", "output")


@dataclass(frozen=True)
class Output:
    """The folder OUT.

    Attributes
    ----------
    root : Path
        Absolute.
    """

    root: Path

    @classmethod
    def at(cls, out: str | Path) -> Output:
        """Return the layout below a folder given as a path or a ``file://`` address.

        Raises
        ------
        ConfigError
            If the folder is not on a file system that this machine has mounted.
        """
        text = normalize_source(str(out))
        if "://" in text:
            raise ConfigError(
                f"OUT={out}: must be a folder on a file system that driver and workers share"
            )
        return cls(Path(text))

    def table(self, name: str) -> Path:
        """Return the folder of a table: ``features``, ``rejected`` or ``pca``."""
        return self.root / name

    @property
    def staging(self) -> Path:
        """Folder of what is being written; the leading dot hides it from readers of Parquet."""
        return self.root / ".staging"

    @property
    def spark_pca(self) -> Path:
        """Folder of Spark's own ``PCAModel``."""
        return self.root / "models" / "pca"

    @property
    def pca_npz(self) -> Path:
        """The same model for numpy."""
        return self.root / "models" / "pca.npz"

    @property
    def moments_npz(self) -> Path:
        """Count, mean and scatter of the features, to which later photos can be added."""
        return self.root / "models" / "moments.npz"

    @property
    def explained_variance(self) -> Path:
        """Table of the whole spectrum."""
        return self.root / "explained_variance.csv"

    @property
    def scree(self) -> Path:
        """Picture of the spectrum."""
        return self.root / "scree.png"

    @property
    def run(self) -> Path:
        """Configuration, contract, versions, counts and seconds of the run."""
        return self.root / "run.json"

    # Before a run

    def prepare(self, *, source: str, overwrite: bool) -> None:
        """Check that OUT may be written; changes nothing.

        Raises
        ------
        OutputExistsError
            If it holds anything and ``overwrite`` is off, or if what it holds is no result of
            Verger's: nothing else is ever replaced.
        ConfigError
            If it lies inside the source, or the source inside it: the report's pictures would
            be listed as photos, or the photos be replaced.
        OutputError
            If it cannot be written.
        """
        try:
            self._check_apart(normalize_source(source))
            is_folder = self.root.is_dir()
            taken = self.root.is_symlink() or self.root.exists()
        except (OSError, RuntimeError) as err:  # too long a name, a circle of links
            raise OutputError(f"OUT={self.root}: cannot be a folder: {err}") from err
        if taken and not is_folder:
            what = "a link to nowhere" if self.root.is_symlink() else "a file"
            raise OutputError(f"OUT={self.root}: is {what}, not a folder; choose another name")
        if self._holds_anything():
            self._check_replaceable(overwrite)
        self._check_writable()

    def _check_replaceable(self, overwrite: bool) -> None:
        if not self.run.is_file():
            raise OutputExistsError(
                f"OUT={self.root}: is not empty, and holds no result of Verger's; "
                "choose another folder"
            )
        if not overwrite:
            raise OutputExistsError(
                f"OUT={self.root}: is not empty; choose another folder, "
                "or --overwrite to replace its result"
            )

    def _check_apart(self, source: str) -> None:
        if "://" in source:
            return
        ours, photos = self.root.resolve(), Path(source).resolve()
        if ours == photos or photos in ours.parents or ours in photos.parents:
            raise ConfigError(f"OUT={self.root}: must lie outside SRC={source}, and not around it")

    def _holds_anything(self) -> bool:
        try:
            return any(entry.name != ".staging" for entry in self.root.iterdir())
        except FileNotFoundError:
            return False
        except OSError as err:
            raise OutputError(f"OUT={self.root}: cannot be read: {err.strerror}") from err

    def _check_writable(self) -> None:
        """Find out by the nearest folder that exists, so that a refusal leaves nothing behind."""
        existing = self.root
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(
                f"OUT={self.root}: {existing} cannot be written; choose another folder"
            )

    # Reading and writing

    def check_table(self, name: str) -> Path:
        """Return a table's folder, refusing one that is not there.

        Raises
        ------
        OutputError
            Saying which command writes it.
        """
        path = self.table(name)
        if not path.is_dir():
            command = "reduce" if name == "pca" else "run or verger featurize"
            raise OutputError(f"OUT={self.root}: has no table {name!r}; verger {command} writes it")
        return path

    def read_run(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        OutputError
            If it is missing.
        SchemaError
            If it is not Verger's.
        """
        try:
            values: dict[str, Any] = json.loads(self.run.read_text("utf-8"))
        except FileNotFoundError as err:
            raise OutputError(
                f"OUT={self.root}: has no run.json; is this the folder of a finished verger run?"
            ) from err
        except (OSError, ValueError) as err:
            raise SchemaError(f"{self.run}: cannot be read: {err}") from err
        missing = [key for key in _RUN_KEYS if not isinstance(values, dict) or key not in values]
        if missing:
            raise SchemaError(f"{self.run}: is not Verger's: {missing[0]!r} is missing")
        return values

    def write_run(self, values: dict[str, Any]) -> None:
        """Replace ``run.json`` in one step."""
        write_text(self.run, _as_json(values))

    def stage_run(self, values: dict[str, Any]) -> None:
        """Write ``run.json`` into staging, to be published with the tables that it is about."""
        write_text(self.staging / self.run.name, _as_json(values))

    def start_staging(self) -> Path:
        """Make an empty staging folder."""
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir(parents=True)
        except OSError as err:
            raise OutputError(f"OUT={self.root}: cannot be written: {err.strerror}") from err
        return self.staging

    def publish(self, names: tuple[str, ...], *, stale: tuple[str, ...] = ()) -> None:
        """Move what is whole from staging into place, and drop what belonged to the old result.

        Parameters
        ----------
        names : tuple of str
            Paths below OUT that staging holds in their new form.
        stale : tuple of str
            Paths below OUT that were derived from what is replaced.
        """
        aside = self.staging / "old"
        moved: list[tuple[Path, Path]] = []
        try:
            for name in (*stale, *names):
                if (self.root / name).exists():
                    _move(self.root / name, aside / name, moved)
            for name in names:
                _move(self.staging / name, self.root / name, moved)
        except OSError as err:
            for origin, target in reversed(moved):
                target.replace(origin)
            raise OutputError(f"OUT={self.root}: cannot be replaced: {err}") from err
        shutil.rmtree(self.staging)


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _move(origin: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    origin.replace(target)
    moved.append((origin, target))


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as err:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {err.strerror or err}") from err
