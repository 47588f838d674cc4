"""One photo and the pipeline: the same probabilities, in a bucket too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.results import train, write_result
from support.runs import new_bucket
from verger.classify.predict import Predictor
from verger.features.model import Model
from verger.files.tables import read_part
from verger.files.vectors import vectors_of
from verger.result.output import Output
from verger.similar.photo import find_similar, search


@pytest.mark.parametrize("on", ["features", "pca"])
def test_one_photo_gets_the_probabilities_of_the_table(result: Path, on: str) -> None:
    """Features that Spark's workers have stored, and those of a photo alone: within 1e-5."""
    output = Output.at(result)
    classifier = train(output, "logistic", on)
    table = read_part(output.folder, output.part_names("features")[0])
    expected = classifier.probabilities(vectors_of(table["features"].combine_chunks()))
    paths = table["path"].to_pylist()
    found = Predictor.load(result).predict((Path(p).read_bytes() for p in paths), paths)
    for row, prediction in zip(expected, found, strict=True):
        told = [score.probability for score in prediction.top]
        np.testing.assert_allclose(told, np.sort(row)[::-1][:5], rtol=0, atol=1e-5)
        assert prediction.prediction == classifier.labels[row.argmax()]
        assert prediction.nearest[0].path == prediction.path


def test_stored_features_are_searched(result: Path) -> None:
    output = Output.at(result)
    table = read_part(output.folder, output.part_names("features")[0])
    vectors = vectors_of(table["features"].combine_chunks())
    (found,) = search(output, vectors[3], 1)
    assert found.path == table["path"][3].as_py()
    assert found.label == table["label"][3].as_py()


def test_a_result_in_a_bucket_predicts(s3: str, photos: Path, model: Model) -> None:
    bucket = new_bucket(s3)
    train(write_result(f"s3://{bucket}/out", photos, model))
    file = sorted(photos.rglob("*.jpg"))[7]
    (found,) = Predictor.load(f"s3://{bucket}/out").predict([file.read_bytes()], ["x"])
    assert found.prediction == file.parent.name
    assert found.nearest[0].path == str(file)
    assert find_similar(file.read_bytes(), f"s3a://{bucket}/out", k=1)[0].path == str(file)
