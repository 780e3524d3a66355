"""Small trainings of every module give what they gave when the fixture was written."""

import json
from pathlib import Path

import pytest
from small_runs import FIXTURE, RUNS, differences, train

KNOWN = json.loads(FIXTURE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RUNS)
def test_results_are_those_that_were_recorded(name: str, tmp_path: Path) -> None:
    assert differences(train(name, tmp_path), KNOWN[name], exact=False) == []


def test_a_difference_is_found() -> None:
    changed = json.loads(json.dumps(KNOWN["supervised"]))
    changed["figures"]["test/loss"] *= 1.00001
    assert differences(changed, KNOWN["supervised"], exact=False) == []
    assert differences(changed, KNOWN["supervised"], exact=True)
    changed["figures"]["test/loss"] *= 1.01
    assert len(differences(changed, KNOWN["supervised"], exact=False)) == 1
