"""A flipped bit of a table's file is a finding, and never ends a validation."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from support.results import write_vectors
from verger.job.validate import validate_output
from verger.result.record import Counts

N_FLIPS = 150


def test_a_flipped_bit_is_a_finding(tmp_path: Path) -> None:
    """One bit at a time: marks and length of the footer, and a sample of all the other bytes."""
    output = write_vectors(tmp_path, np.ones((20, 8), np.float32), labels=["a"] * 20)
    record = output.read_run()
    counts = Counts(listed=20, featurized=20, rejected=0)
    files = {**record.files, "rejected": ()}
    output.write_run(replace(record, contract={"n_features": 8}, counts=counts, files=files))
    file = tmp_path / output.part_names("features")[0]
    whole = file.read_bytes()
    ends = [*range(4), *range(len(whole) - 8, len(whole))]
    for place in [*ends, *random.Random(0).sample(range(4, len(whole) - 8), N_FLIPS)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        found = {check.name: check.holds for check in validate_output(None, output).checks}
        assert not found["every file of features/ has the bytes that were written"], place
