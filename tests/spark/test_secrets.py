"""What a run prints and writes holds no secret of its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from verger.cli import app

PASSWORD = "hunter2-Xq9"
SECRETS = {
    "spark.jars.repositories": f"https://user:{PASSWORD}@repository.example/maven",
    "spark.ssl.keyPassword": PASSWORD,
    "spark.ssl.keyPass": PASSWORD,
    "spark.hadoop.fs.s3a.secret.key": PASSWORD,
    "spark.executorEnv.GITHUB_PAT": PASSWORD,
    "spark.executorEnv.DATABASE_URL": f"postgres://user:{PASSWORD}@host/photos",
    "spark.executorEnv.JDBC": f"jdbc:h2:mem;user=me;pwd={PASSWORD}",
    "spark.executorEnv.HEADERS": f"Authorization: Bearer {PASSWORD}",
}
OPTIONS = [word for pair in SECRETS.items() for word in ("--conf", "=".join(pair))]


@pytest.mark.parametrize("more", [[], ["--json"], ["--dry-run"], ["--dry-run", "--json"]])
def test_no_secret_is_printed_or_written_down(
    spark: SparkSession, photos: Path, tmp_path: Path, more: list[str]
) -> None:
    """The terminal, the plan, the JSON, run.json, both reports and the journal hide them all."""
    words = ["run", str(photos), str(tmp_path / "out"), "--model", "efficientnet_lite0"]
    done = CliRunner().invoke(app, [*words, "--components", "2", *OPTIONS, *more])
    assert done.exit_code == 0, done.output
    assert PASSWORD not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    if "--dry-run" not in more:
        record = (tmp_path / "out" / "run.json").read_text()
        assert record.count("(hidden)") >= 2 * len(SECRETS)  # in the options and in the command
        assert "spark.ssl.keyPassword" in record
        assert (tmp_path / "out" / "report.html").is_file()
