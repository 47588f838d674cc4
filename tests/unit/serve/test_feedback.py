"""What visitors say is one line of a CSV file; a photo is kept only if it is sent."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from verger import serve
from verger.classify.predict import Predictor
from verger.errors import ConfigError
from verger.features.outcomes import Decoding
from verger.serve.feedback import COLUMNS, Feedback
from verger.serve.limits import Limits, Refused
from verger.serve.look import Look


def test_feedback_is_a_list_of_paths_and_labels(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    """A photo is kept without its metadata; labels that would be formulas are refused."""
    predictor = Predictor.load(trained)
    label, file = predictor.classifier.labels[0], tmp_path / "said.csv"
    with Image.open(min(photos.rglob("*.jpg"))) as image:
        exif = image.getexif()
        exif[0x010E] = "taken at home"
        image.save(tmp_path / "mine.jpg", exif=exif)
    photo = (tmp_path / "mine.jpg").read_bytes()
    assert b"taken at home" in photo
    app = serve.create_app(predictor, feedback=Feedback(file, predictor.classifier.labels))
    with TestClient(app, "http://localhost") as client:
        for params, body, status in (
            ({"label": "Pêche, jaune", "prediction": label}, b"", 204),
            ({"label": label}, photo, 204),
            ({"label": "=HYPERLINK(1)"}, b"", 422),
            ({"label": label, "prediction": "no label of ours"}, b"", 422),
            ({"label": label}, b"no photo", 422),
        ):
            assert client.post("/feedback", params=params, content=body).status_code == status
    Feedback(file)  # is added to by the next server
    rows = list(csv.reader(file.read_text("utf-8").splitlines()))
    assert rows[0] == list(COLUMNS)
    assert [row[1:3] for row in rows[1:]] == [["Pêche, jaune", label], [label, ""]]
    assert rows[1][0] == ""
    (kept,) = (tmp_path / "said-photos").iterdir()
    assert rows[2][0] == str(kept)
    assert b"taken at home" not in kept.read_bytes()
    with Image.open(kept) as image:
        assert image.size == (100, 100)


def test_an_answer_is_a_line_of_its_own_though_an_editor_cut_the_one_before(tmp_path: Path) -> None:
    heard = Feedback(tmp_path / "said.csv", ["Apple"])
    heard.file.write_text("path,label,prediction,time\n,Apple,,yesterday")
    for _ in range(2):
        heard.add("Apple", "", b"", Decoding())
    rows = list(csv.reader(heard.file.read_text().splitlines()))
    assert [row[1] for row in rows[1:]] == ["Apple"] * 3


def test_no_photo_is_kept_once_the_file_is_full(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verger.serve.feedback.MOST_BYTES", 0)
    heard = Feedback(tmp_path / "said.csv", ["Apple"])
    with pytest.raises(Refused, match="full"):
        heard.add("Apple", "", min(photos.rglob("*.jpg")).read_bytes(), Decoding())
    assert not heard.photos.exists()


def test_feedback_has_the_places_and_content_types_of_predictions(
    trained: Path, tmp_path: Path
) -> None:
    """All requests share the places; a page of another site may post text unasked."""
    predictor = Predictor.load(trained)
    heard = Feedback(tmp_path / "said.csv", predictor.classifier.labels)
    for kind, n_places, status in (("text/plain", 1, 415), ("image/jpeg", 0, 503)):
        app = serve.create_app(predictor, feedback=heard, limits=Limits(max_waiting=n_places))
        params, headers = {"label": "Apple"}, {"Content-Type": kind}
        response = TestClient(app, "http://localhost").post(
            "/feedback", params=params, headers=headers
        )
        assert response.status_code == status


def test_a_page_that_does_the_work_says_when_a_photo_leaves_the_device() -> None:
    page = Look().page(in_browser=True, max_bytes=0, labels=["Apple"])
    assert ">Your photo does not leave this device unless you tick that box.<" in page
    assert ">Your photo does not leave this device.<" not in page


def test_another_file_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("name,price\n")
    with pytest.raises(ConfigError, match="is no file of feedback"):
        Feedback(tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text() == "name,price\n"


def test_a_page_has_its_owners_title_logo_and_language(trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 100), "red").save(tmp_path / "logo.png")
    look = Look.of(title="Fruit & <more>", lang="fr", logo=tmp_path / "logo.png")
    app = serve.create_app(Predictor.load(trained), look=look)
    with TestClient(app, "http://localhost") as client:
        page = client.get("/").text
        manifest = client.get("/manifest.webmanifest").json()
        icons = [client.get(f"/{icon['src']}") for icon in manifest["icons"]]
    assert "<h1>Fruit &amp; &lt;more&gt;</h1>" in page
    assert '<html lang="fr" data-lang>' in page
    assert manifest["name"] == "Fruit & <more>"
    assert [icon.status_code for icon in icons] == [200, 200]
    assert Look(lang="fr").manifest()["name"] == "Qu\u2019y a-t-il sur cette photo ?"
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ConfigError, match="not an image"):
        Look.of(logo=tmp_path / "text.png")
