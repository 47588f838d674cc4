"""The report reads run.json, and changes nothing in it but the seconds of its own stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from support.results import write_vectors
from verger.config import Config
from verger.files.records import as_json
from verger.files.tables import part_name, stored_schema, write_part
from verger.job.pipeline import run_report
from verger.result.clock import Clock, sum_by_worker
from verger.result.output import RUN
from verger.result.record import Check
from verger.schema import REJECTED, arrow_schema


def test_a_report_changes_no_byte_of_run_json_but_the_seconds(tmp_path: Path) -> None:
    """What the workers spent, the checks and the files are the same bytes before and after."""
    output = write_vectors(tmp_path / "out", *[[[1.0, 2.0]]], labels=["a"])
    table = pa.Table.from_pylist([], arrow_schema(REJECTED))
    schema = stored_schema(REJECTED, "c0ffee")
    rejected = write_part(output.folder, part_name("rejected"), table, schema)
    record = output.read_run()
    record = replace(
        record,
        files={**record.files, "rejected": (rejected,)},
        spent=sum_by_worker([(1, Clock().reading())], wall_s=2, cores=2),
        checks=(Check("all is well", True, "1"),),
        seconds={"list": 0.25},
    )
    output.write_run(record)
    run_report(output.root, Config())
    after = output.read_run()
    assert after.seconds.keys() == {"list", "report"}
    assert after.seconds["list"] == 0.25
    assert output.folder.read(RUN) == as_json(replace(record, seconds=after.seconds))
