"""A static site works from any web server, and without one after the first visit."""

from __future__ import annotations

import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.browser import RUNTIME, run_script
from verger.classify.predict import Predictor
from verger.errors import OutputExistsError
from verger.serve.look import Look
from verger.serve.site import export_site


class Plain(SimpleHTTPRequestHandler):
    """Python's own server of files; it ends when it is asked for ``/stop``."""

    def do_GET(self) -> None:
        if self.path.endswith("/stop"):
            threading.Thread(target=self._stop).start()
        super().do_GET()

    def _stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("www") / "fruit"  # below the root, as on GitHub Pages
    export_site(trained, folder, RUNTIME, look=Look(title="Our orchard"))
    return folder


def test_a_site_names_a_photo_without_a_network(
    site: Path, trained: Path, photos: Path, tmp_path: Path
) -> None:
    photo = sorted(photos.rglob("*.jpg"))[7]
    neighbour = shutil.copytree(site, site.with_name("other")) / "sw.js"
    neighbour.write_text(neighbour.read_text().replace('"version": "', '"version": "other'))
    pictures = Path(os.environ.get("VERGER_SCREENSHOTS", tmp_path))
    handler = partial(Plain, directory=str(site.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    root = f"http://127.0.0.1:{server.server_port}/"
    seen = run_script("site.mjs", f"{root}fruit/", f"{root}other/", photo, pictures)
    (expected,) = Predictor.load(trained).predict([photo.read_bytes()], ["photo"])
    assert seen["gone"]
    assert len(seen["caches"]) == 2  # each site keeps its own
    assert seen["name"] == expected.prediction
    assert len(seen["similar"]) == 3
    assert all(seen["similar"])
    assert [url for url in seen["requests"] if not url.startswith((root, f"blob:{root}"))] == []
    assert seen["problems"] == seen["installability"] == []


def test_a_folder_of_other_files_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds no site of Verger's"):
        export_site(trained, tmp_path, RUNTIME, overwrite=True)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_site_is_replaced_only_where_all_files_are_its_own(
    site: Path, trained: Path, tmp_path: Path
) -> None:
    """Such as the CNAME and the .git of a site on GitHub Pages."""
    folder = shutil.copytree(site, tmp_path / "site")
    name = folder / "CNAME"
    name.write_text("fruit.example")
    with pytest.raises(OutputExistsError, match="CNAME: is not part of the site"):
        export_site(trained, folder, RUNTIME, overwrite=True)
    assert name.read_text() == "fruit.example"
    name.unlink()
    export_site(trained, folder, RUNTIME, look=Look(title="Second"), overwrite=True)
    assert "<title>Second</title>" in (folder / "index.html").read_text()
