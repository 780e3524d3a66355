"""Damaged files of every format: the right read or one DataError; ``benchmarks/mutated_files.py`` has the long form."""

from pathlib import Path

import pytest
from mutations import READERS, Reader, damage_in


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_right_or_refused(reader: Reader, tmp_path: Path) -> None:
    outcome = damage_in(reader, tmp_path, 25)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert outcome.counts["refused"] > 0 and sum(outcome.counts.values()) == 25
