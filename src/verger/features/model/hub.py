"""``hf:ORG/NAME[@REV][:FILE]``: an encoder of a model hub, as a FILE.onnx with its FILE.toml.

The revision is resolved to a commit once. Files go into the hub's own cache, where other tools
look too, and each is checked against the sum that the hub names. In Verger's cache stand links to
them and the card, which names commit, licence and sums; whoever has the card asks the hub no more.
No code of a model is run, and only ONNX, its data and JSON are read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from verger.config import HUB
from verger.engine.home import cache_folders, verger_home
from verger.errors import ConfigError, UnknownModelError, WeightsError, WeightsNotFoundError
from verger.features.model.checksum import sha256_of
from verger.features.model.download import TIMEOUT_S, download, open_url
from verger.features.model.weights import OnProgress
from verger.files.folder import Folder

_LOG = logging.getLogger("verger")

_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-][\w./-]*))?"
    r"(:(?P<file>[\w.-][\w./ -]*\.onnx))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Where encoders are, the whole model last: with two inputs it is refused.
_FILES = ("onnx/vision_model.onnx", "onnx/model.onnx", "vision_model.onnx", "model.onnx")
_CONFIGS = ("preprocessor_config.json", "config.json")
#: Licences that let anybody do anything that the project's users do; all others are asked about.
_OPEN = (
    *("afl-3.0", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-4.0", "cc0-1.0", "isc", "mit", "unlicense", "zlib"),
)
_MOST_JSON_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class HubName:
    """The parts of ``hf:ORG/NAME[@REV][:FILE]``."""

    repo: str
    revision: str = "main"
    file: str | None = None

    @classmethod
    def parse(cls, name: str) -> HubName:
        """Read a name.

        Raises
        ------
        UnknownModelError
        """
        found = _NAME.fullmatch(name)
        if found is None or ".." in name:
            raise UnknownModelError(f"model={name!r} must be hf:ORG/NAME[@REV][:FILE.onnx]")
        revision = found["revision"] or "main"
        return cls(repo=found["repo"], revision=revision, file=found["file"])

    @property
    def is_commit(self) -> bool:
        """Whether the revision cannot move."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{HUB}{self.repo}@{self.revision}" + (f":{self.file}" if self.file else "")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What only the user can say of a model on the hub.

    Attributes
    ----------
    accept_license : bool
        For licences that are not open, and for models behind a form.
    output : str, optional
        The tensor that the features are; by default ``image_embeds``, then ``pooler_output``.
    pool : {"cls", "mean"}, optional
        How the tokens of a transformer become one vector.
    """

    accept_license: bool = False
    output: str | None = None
    pool: str | None = None


def fetch_from_hub(
    name: str, choice: Choice | None = None, on_progress: OnProgress | None = None
) -> Path:
    """Return the ONNX file of a model on the hub, with its card beside it; fetch what is missing.

    Raises
    ------
    UnknownModelError, WeightsNotFoundError
        If there is no such model, or it cannot be fetched.
    WeightsError
        If what came is not what the hub says it is.
    ConfigError
        If its licence has to be accepted, or its preprocessing is not one that Verger computes.
    """
    asked = HubName.parse(name)
    if asked.is_commit and asked.file and choice is None and (path := _fetched(asked)):
        return path
    hub = _Hub.from_environment()
    listed = hub.look_up(asked)
    file = asked.file or next((f for f in _FILES if f in listed.files), None)
    if file is None or file not in listed.files:
        there = sorted(f for f in listed.files if f.endswith(".onnx"))[:8]
        raise UnknownModelError(f"model={name!r}: has no {file or _FILES[1]}; it has {there}")
    pinned = HubName(repo=asked.repo, revision=listed.commit, file=file)
    if choice is None and (path := _fetched(pinned)):
        return path
    choice = choice or Choice()
    _check_license(pinned, listed, choice)
    return _write(hub, listed, pinned, choice, on_progress)


def is_fetched(name: str) -> bool:
    """Whether a name is of one file of a commit, and that is on this machine."""
    asked = HubName.parse(name)
    return asked.is_commit and asked.file is not None and _fetched(asked) is not None


def _fetched(name: HubName) -> Path | None:
    """Return the file of a commit that has its card beside it, in any cache of this user's."""
    places = (_place(name, cache) for cache in cache_folders())
    return next((p for p in places if p.with_suffix(".toml").is_file() and p.is_file()), None)


def _place(name: HubName, cache: Path) -> Path:
    return cache / "models" / name.repo.replace("/", "--") / name.revision / str(name.file)


def _check_license(name: HubName, listed: _Listed, choice: Choice) -> None:
    gated = ", behind a form" if listed.gated else ""
    _LOG.warning("%s: licence %s%s", name, listed.license, gated)
    if (listed.license in _OPEN and not gated) or choice.accept_license:
        return
    raise ConfigError(
        f"model={str(name)!r}: its licence is {listed.license}{gated}, which is not an open one; "
        f"read it on the model's page, then verger models fetch {name} --accept-license"
    )


def _write(
    hub: _Hub, listed: _Listed, name: HubName, choice: Choice, on_progress: OnProgress | None
) -> Path:
    """Fetch a model's files, and write links to them and the card."""
    from verger.features.model.custom import data_files, load_graph  # imports onnx
    from verger.features.model.hub_card import translate
    from verger.features.model.output import describe_output

    file, path = str(name.file), _place(name, verger_home())
    config = next((c for c in _CONFIGS if c in listed.files), None)
    if config is None:
        raise ConfigError(f"model={str(name)!r}: has no {' and no '.join(_CONFIGS)}")
    sources = {Path(config).name: hub.fetch(listed, config, None)}
    card = translate(_json(sources[config].read_bytes(), config), f"{name}: {config}")
    sources[path.name] = hub.fetch(listed, file, on_progress)
    graph = load_graph(sources[path.name])
    for data in data_files(path, graph):
        beside = str(PurePosixPath(file).with_name(data))
        sources[data] = hub.fetch(listed, beside, on_progress)
    card |= describe_output(path, graph, choice.output, choice.pool)
    card |= {"license": listed.license, "source": str(name)}
    sums = {source: sha256_of(target) for source, target in sorted(sources.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    for link, target in sources.items():
        (path.parent / link).unlink(missing_ok=True)
        (path.parent / link).symlink_to(target.resolve())
    lines = [f"{key} = {json.dumps(value)}" for key, value in card.items()]
    lines += ["", "[sha256]", *(f"{json.dumps(key)} = {json.dumps(v)}" for key, v in sums.items())]
    part = path.with_suffix(".toml.part")
    part.write_text("\n".join(lines) + "\n", "utf-8")
    part.replace(path.with_suffix(".toml"))
    return path


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What the hub says of a commit: its files with their sums, None where it names none."""

    repo: str
    commit: str
    license: str
    gated: bool
    files: Mapping[str, _Sum | None]


@dataclass(frozen=True)
class _Sum:
    """Size of a file, and its sha256, or the sum by which git names its content."""

    size: int
    name: str

    def check(self, path: Path) -> None:
        if len(self.name) == 64:
            digest = sha256_of(path)
        else:
            content = path.read_bytes()
            git = b"blob %d\0" % len(content) + content
            digest = hashlib.sha1(git, usedforsecurity=False).hexdigest()
        if digest != self.name:
            path.unlink()
            raise WeightsError(f"{path.name}: has the sum {digest} instead of {self.name}")


@dataclass(frozen=True, kw_only=True)
class _Hub:
    """A hub, and its cache on this machine."""

    endpoint: str
    cache: Path
    offline: bool
    token: str | None

    @classmethod
    def from_environment(cls) -> _Hub:
        env = os.environ
        caches = Path(env.get("XDG_CACHE_HOME") or "~/.cache")
        home = Path(env.get("HF_HOME") or caches / "huggingface")
        endpoint = (env.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"HF_ENDPOINT={endpoint!r} must begin with https://")
        return cls(
            endpoint=endpoint,
            cache=Path(env.get("HF_HUB_CACHE") or home / "hub").expanduser(),
            offline=env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
            token=env.get("HF_TOKEN") or None,
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def folder(self, repo: str) -> Path:
        return self.cache / f"models--{repo.replace('/', '--')}"

    def look_up(self, name: HubName) -> _Listed:
        """Resolve a revision, and list its files."""
        if self.offline:
            return self._from_cache(name)
        revision = urllib.parse.quote(name.revision, safe="")
        url = f"{self.endpoint}/api/models/{name.repo}/revision/{revision}?blobs=true"
        values = self._ask(url, name)
        commit = values.get("sha")
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise WeightsError(f"{url}: names no commit")
        if name.is_commit and commit != name.revision:
            raise WeightsError(f"{url}: answers with commit {commit}")
        data = values.get("cardData") or {}
        tags = [str(tag) for tag in values.get("tags") or ()]
        tagged = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
        stated = data.get("license_name") if data.get("license") == "other" else None
        found = stated or data.get("license") or (tagged[0] if tagged else "not declared")
        files = {str(s["rfilename"]): _sum_of(s) for s in values.get("siblings") or ()}
        return _Listed(
            repo=name.repo,
            commit=commit,
            license=str(found),
            gated=bool(values.get("gated")),
            files=files,
        )

    def _ask(self, url: str, name: HubName) -> dict[str, Any]:
        try:
            with open_url(url, self.headers, TIMEOUT_S) as answer:
                values = _json(answer.read(_MOST_JSON_BYTES), url)
        except urllib.error.HTTPError as err:
            err.close()
            if err.code in (401, 403):
                raise WeightsNotFoundError(
                    f"model={str(name)!r}: the hub answers {err.code}; it does not exist, or is "
                    "private or behind a form: accept its terms on its page, and set HF_TOKEN"
                ) from err
            if err.code == 404:
                raise UnknownModelError(f"model={str(name)!r}: the hub has no such model") from err
            raise WeightsNotFoundError(f"model={str(name)!r}: {url}: {err}") from err
        except OSError as err:
            raise WeightsNotFoundError(
                f"model={str(name)!r}: {self.endpoint} cannot be reached ({err}); HF_ENDPOINT "
                "names a mirror, and HF_HUB_OFFLINE=1 looks only into the hub's cache"
            ) from err
        if not isinstance(values, dict):
            raise WeightsError(f"{url}: answers with no JSON object")
        return values

    def _from_cache(self, name: HubName) -> _Listed:
        folder, commit = self.folder(name.repo), name.revision
        ref = folder / "refs" / name.revision
        if not name.is_commit and ref.is_file():
            commit = ref.read_text("utf-8").strip()
        snapshot = folder / "snapshots" / commit
        if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
            raise WeightsNotFoundError(
                f"model={str(name)!r}: HF_HUB_OFFLINE is set, and the hub's cache {self.cache} "
                "does not have it"
            )
        names = (p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file())
        return _Listed(
            repo=name.repo,
            commit=commit,
            license="not known offline",
            gated=False,
            files=dict.fromkeys(names),
        )

    def fetch(self, listed: _Listed, file: str, on_progress: OnProgress | None) -> Path:
        """Return the path of a file of a commit in the hub's cache; download it if need be."""
        folder = self.folder(listed.repo)
        path = folder / "snapshots" / listed.commit / file
        if file not in listed.files:
            raise WeightsError(f"{listed.repo}: its graph needs {file}, which is not there")
        wanted = listed.files[file]
        if path.is_file():
            if wanted is not None:
                wanted.check(path.resolve())
            return path
        if wanted is None:
            raise WeightsError(f"{listed.repo}: the hub names no sum of {file}")
        blob = folder / "blobs" / wanted.name
        if not blob.is_file():
            quoted = urllib.parse.quote(file)
            url = f"{self.endpoint}/{listed.repo}/resolve/{listed.commit}/{quoted}"
            self._download(url, blob, wanted, on_progress)
        wanted.check(blob)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))
        return path

    def _download(self, url: str, blob: Path, wanted: _Sum, on_progress: OnProgress | None) -> None:
        if len(wanted.name) == 64:
            download(
                url,
                blob,
                size_bytes=wanted.size,
                sha256=wanted.name,
                headers=self.headers,
                on_progress=on_progress,
            )
            return
        try:
            with open_url(url, self.headers, TIMEOUT_S) as answer:
                content = answer.read(_MOST_JSON_BYTES)
        except OSError as err:
            raise WeightsNotFoundError(f"{url} cannot be fetched ({err})") from err
        Folder(str(blob.parent)).write(blob.name, content)


def _sum_of(sibling: Mapping[str, Any]) -> _Sum | None:
    large = sibling.get("lfs") or {}
    name = str(large.get("sha256") or sibling.get("blobId") or "")
    size = large.get("size", sibling.get("size"))
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name) or type(size) is not int:
        return None
    return _Sum(size, name)


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as err:
        raise WeightsError(f"{where}: is no JSON: {err}") from err
