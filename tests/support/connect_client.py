"""What a user does over Spark Connect, in a process of its own: an address asks for Connect.

    python -m support.connect_client ADDRESS PHOTOS FOLDER

Writes what it gets into FOLDER, as pickles.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

import verger

MODEL = "efficientnet_lite0"


def rows_of(frame: DataFrame) -> dict[str, dict[str, Any]]:
    return {row.path: row.asDict() for row in frame.collect()}


def refusal(spark: SparkSession, photos: str, folder: Path) -> str:
    """Return what ``verger run`` says in such a session."""
    try:
        verger.run(f"{photos}/not-yet-listed", folder / "out", verger.Config(model=MODEL))
    except verger.VergerError as err:
        return str(err)
    return ""


def main(address: str, photos: str, folder: Path) -> None:
    spark = SparkSession.builder.remote(address).getOrCreate()
    model = verger.load_model(MODEL)
    found: dict[str, Any] = {"refusal": refusal(spark, photos, folder)}
    for reader in ("arrow", "spark"):
        images = verger.read_images(spark, photos, reader=reader)
        found[reader] = rows_of(verger.featurize(images, model=model))
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    one = files.load(Path(photos).as_uri()).where("path LIKE '%/0_100.jpg'")
    vectors = verger.ImageFeaturizer(modelName=MODEL).transform(one).select("path", "features")
    fitted = verger.PCA(k=2).fit(vectors)
    found["scores"] = {
        row.path.removeprefix("file:"): (row.features.toArray(), row.features_pca.toArray())
        for row in fitted.transform(vectors).collect()
    }
    fitted.save(str(folder / "pca"))
    (folder / "found").write_bytes(pickle.dumps((found, fitted.pc.toArray())))
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
