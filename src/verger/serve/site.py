"""The page that does the work itself, as a folder that any web server gives: no Python there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verger.classify.predict import Predictor
from verger.errors import OutputError, OutputExistsError
from verger.files.paths import is_below
from verger.files.reading import read_ahead
from verger.result.output import Output
from verger.serve.answers import draw_thumbnail
from verger.serve.browser import RUNTIME, Browser, check_runtime, describe_browser, export_browser
from verger.serve.guard import page_policy
from verger.serve.look import Look

if TYPE_CHECKING:
    from verger.classify.export.check import ExportCheck

# How the script begins that keeps the files of a site for a visitor; it names all others.
_KEEPER, _HEAD = "sw.js", "const { version, kept, pictures } = "


@dataclass(frozen=True)
class Site:
    """A folder that was written.

    Attributes
    ----------
    path : str
    size_bytes : int
    n_files : int
    n_labels : int
    check : ExportCheck
        What the exported file gives on photos, beside the pipeline.
    """

    path: str
    size_bytes: int
    n_files: int
    n_labels: int
    check: ExportCheck


def export_site(
    out: str | Path,
    folder: str | Path,
    ort_web: Path,
    *,
    look: Look | None = None,
    facts: Mapping[str, str] | None = None,
    precision: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Site:
    """Write the page, the exported classifier and their runtime as a folder of static files.

    Parameters
    ----------
    out : path
        The folder of a result with a classifier, or ``s3://bucket/prefix``.
    folder : path
        Of the site; empty, or with ``overwrite`` a site that was written before and nothing else.
    ort_web : path
        The folder of onnxruntime-web's files.
    look : Look, optional
    facts : mapping of str to str, optional
        Label to a line about it.
    precision : str, optional
        As for :func:`verger.classify.export.app.export_app`.
    overwrite : bool
    **options
        As for :meth:`verger.classify.predict.Predictor.load`.

    Raises
    ------
    ConfigError
        If a file of the runtime is missing.
    OutputExistsError
        If the folder holds anything else.
    OutputError, ContractError, SourceError, ValidationError
        As from :func:`verger.classify.export.app.export_app`.
    """
    target = _check_folder(folder, overwrite=overwrite)
    check_runtime(ort_web)
    predictor = Predictor.load(out, **options)
    browser = export_browser(predictor, out, ort_web, precision)
    written = _files(browser, predictor, look or Look(), facts or {})
    pictures = _pictures(browser, predictor, Output.at(out).read_run().source)
    written[_KEEPER] = _service_worker(written, list(pictures))
    _replace(target, written | pictures)
    sizes = [len(content) for content in (written | pictures).values()]
    n_labels = len(predictor.classifier.labels)
    return Site(str(target), sum(sizes), len(sizes), n_labels, browser.check)


def _check_folder(folder: str | Path, *, overwrite: bool) -> Path:
    target = Path(folder).expanduser().absolute()
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{target}: is a file; name a folder")
    if not target.exists() or not any(target.iterdir()):
        return target
    own = _own_files(target)
    if not overwrite:
        raise OutputExistsError(f"{target}: holds a site; --overwrite replaces it")
    for path in sorted(target.rglob("*")):
        is_folder = path.is_dir() and not path.is_symlink()
        if not is_folder and path.relative_to(target).as_posix() not in own:
            raise OutputExistsError(f"{path}: is not part of the site that --overwrite replaces")
    return target


def _own_files(target: Path) -> set[str]:
    """Return the names of a site's files, of which its ``sw.js`` has a list."""
    try:
        head = (target / _KEEPER).read_text("utf-8").partition(";\n")[0]
        values = json.loads(head.removeprefix(_HEAD))
        return {"index.html", _KEEPER, *values["kept"], *values["pictures"]}
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise OutputExistsError(f"{target}: is not empty, and holds no site of Verger's") from err


def _files(
    browser: Browser, predictor: Predictor, look: Look, facts: Mapping[str, str]
) -> dict[str, bytes]:
    """Return what the page needs, by name below the folder, but for the service worker."""
    policy = f"{page_policy(wasm=True)}; worker-src 'self'"
    page = look.page(in_browser=True, max_bytes=0, labels=None, policy=policy)
    static = resources.files("verger.serve").joinpath("static")
    files = {
        "index.html": page.encode(),
        "manifest.webmanifest": json.dumps(look.manifest()).encode(),
        "app.json": json.dumps(describe_browser(browser, predictor, facts)).encode(),
        "app.onnx": browser.graph,
    }
    if browser.references.paths:
        files["nearest.onnx"] = browser.references.graph
    files |= {f"logo-{side}.png": icon for side, icon in look.logo.items()}
    files |= {f"ort/{name}": (browser.ort_web / name).read_bytes() for name in RUNTIME}
    return files | {f"static/{entry.name}": entry.read_bytes() for entry in static.iterdir()}


def _pictures(browser: Browser, predictor: Predictor, source: str) -> dict[str, bytes]:
    """Return the pictures of the known photos that can still be read."""
    known = enumerate(browser.references.paths)
    allowed = {f"known/{number}.jpg": path for number, path in known if is_below(path, source)}
    drawn = (draw_thumbnail(each, predictor.decoding) for each in read_ahead(allowed.values()))
    return {name: picture for name, picture in zip(allowed, drawn, strict=True) if picture}


def _service_worker(files: Mapping[str, bytes], pictures: list[str]) -> bytes:
    """Return the script that keeps the files; its name for them changes with their content."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    kept = ["./", *sorted(name for name in files if name != "index.html")]
    values = {"version": digest.hexdigest()[:16], "kept": kept, "pictures": pictures}
    head = f"{_HEAD}{json.dumps(values)};\n"
    return head.encode() + resources.files("verger.serve").joinpath(_KEEPER).read_bytes()


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder beside the target, and let it take its place."""
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, content in files.items():
            place = beside / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
    except OSError as err:
        raise OutputError(f"{target}: cannot be written: {err}") from err
