"""What run folders say of a study's cells."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from study_runs import PENALTY, PLAIN, TWO_METHODS, Results, fill

from lightning_repshape.errors import DataError
from lightning_repshape.studies.check import check_report
from lightning_repshape.studies.reading import read_studies
from lightning_repshape.studies.report import write_report
from lightning_repshape.studies.results import read_results
from lightning_repshape.studies.values import statistics


def test_mean_spread_interval_and_paired_test_are_those_of_numpy_and_scipy(results: Results) -> None:
    fill(results)
    cell = results.read().cell("all", "penalty")
    assert cell is not None and cell.value == "1" and cell.count("finished") == 3 and cell.marks == ()
    own, base = 100 * np.array(list(PENALTY.values())), 100 * np.array(list(PLAIN.values()))
    found = cell.figures["error"]
    assert found.statistics.values == pytest.approx(dict(enumerate(own)))
    assert found.statistics.mean == pytest.approx(own.mean())
    assert found.statistics.std == pytest.approx(own.std(ddof=1))
    interval = stats.t.interval(0.95, 2, loc=own.mean(), scale=own.std(ddof=1) / math.sqrt(3))
    assert found.statistics.interval == pytest.approx(interval)
    # The paired t-test is a t-test of the differences against zero.
    assert found.statistics.p == pytest.approx(stats.ttest_1samp(own - base, 0).pvalue)
    assert found.difference == pytest.approx(own.mean() - 2.0)
    assert found.best is True and found.best_published is True
    plain = results.read().cell("all", "plain")
    assert plain is not None and plain.figures["error"].best is False
    assert plain.figures["error"].statistics.p is None and plain.cost.step_ratio is None


def test_ratio_figures_are_by_common_seed(results: Results) -> None:
    fill(results)
    cell = results.read().cell("all", "penalty")
    assert cell is not None
    expected = np.array([0.2, 1.3, 2.3]) / np.array([0.1, 1.1, 2.1])
    assert list(cell.figures["loss"].statistics.values.values()) == pytest.approx(expected)
    assert cell.figures["loss"].statistics.p == pytest.approx(stats.ttest_1samp(expected - 1, 0).pvalue)


def test_ratio_without_a_common_seed_is_that_of_the_means() -> None:
    found = statistics({0: 3.0, 1: 5.0}, {2: 2.0})
    assert (found.mean, found.std, found.n, found.values) == (2.0, None, 1, {})
    assert statistics({0: 3.0}, {}).mean is None
    assert statistics({0: 3.0}, {1: 0.0}).mean is None


@pytest.mark.parametrize(
    ("own", "base"), [({0: 1.0}, {0: 2.0}), ({0: 1.3, 1: 2.3}, {0: 1.1, 1: 2.1}), ({0: 1.0, 1: 2.0}, {2: 1.0})]
)
def test_no_test_where_there_is_nothing_to_test(own: dict[int, float], base: dict[int, float]) -> None:
    assert statistics(own, baseline=base).p is None


def test_cost_is_a_median_over_seeds_of_all_their_sessions(results: Results) -> None:
    fill(results)
    folder = results.folder / "small/all/penalty/value-1_seed-0"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sessions"].insert(0, {"stage": "fit", "status": "killed", "steps": 150, "steps_per_second": 30.0})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    cell = results.read().cell("all", "penalty")
    assert cell is not None
    seconds = [(150 / 30 + 50 / 50) / 200, 1 / 51, 1 / 52]
    assert cell.cost.step_seconds == pytest.approx(np.median(seconds))
    assert cell.cost.step_ratio == pytest.approx(np.median(seconds) / (1 / 101))
    assert cell.cost.memory_ratio == pytest.approx(600 / 500) and cell.cost.gpu_memory_mb is None


def test_runs_of_another_kind_of_machine_give_no_ratio(results: Results) -> None:
    fill(results)
    for file in (results.folder / "small/all/plain").rglob("manifest.json"):
        file.write_text(file.read_text().replace('"accelerator": "cpu"', '"accelerator": "Another GPU"'))
    cell = results.read().cell("all", "penalty")
    assert cell is not None and cell.cost.step_ratio is None and cell.cost.step_seconds is not None


def test_every_seed_is_kept_and_a_choice_that_is_not_made_says_so(results: Results) -> None:
    fill(results)
    found = results.read()
    plain, penalty = found.cell("few", "plain"), found.cell("few", "penalty")
    assert plain is not None and penalty is not None
    assert [run.state for run in plain.repeats.values()] == ["finished", "failed", "interrupted"]
    assert plain.figures["error"].statistics.n == 1 and plain.figures["error"].statistics.std is None
    assert any("DivergenceError" in line for line in plain.failures)
    assert penalty.remark == "selection 2 of 3" and penalty.value is None
    assert penalty.figures["error"].statistics.mean is None
    assert penalty.count("missing") == 3 and any("value 1:" in line for line in penalty.failures)
    assert plain.figures["error"].best is None  # it stands alone


def test_a_choice_among_failures_is_made(results: Results) -> None:
    results.run("all/penalty", 0, 0.02, value="0.1", validation=0.1)
    results.run("all/penalty", 0, None, value="1", status="failed")
    results.run("all/penalty", 0, 0.02, value="10", validation=math.nan)
    cell = results.read().cell("all", "penalty")
    assert cell is not None and cell.value == "0.1" and cell.choice is not None
    assert set(cell.choice.failed) == {"1", "10"} and cell.seeds("finished") == [0]


def test_the_fullest_finished_budget_is_shown_with_its_own_choice(results: Results) -> None:
    # A choice at 0.1 of the epochs prefers 10, one at 0.3 prefers 1; repeats at 0.3 and one more at 0.5 of both.
    for epochs, best in ((0.1, "10"), (0.3, "1")):
        for value in ("0.1", "1", "10"):
            results.run("all/penalty", 0, 0.3, value=value, epochs=epochs, validation=0.1 if value == best else 0.2)
    for seed in (0, 1):
        results.run("all/plain", seed, 0.4 + 0.01 * seed, epochs=0.5)
        results.run("all/plain", seed, 0.1, epochs=0.3)
    results.run("all/penalty", 1, 0.25, value="1", epochs=0.5)
    results.run("all/penalty", 2, 0.26, value="10", epochs=0.5)
    results.run("all/penalty", 1, None, value="1", epochs=1.0, status="killed")
    results.run("all/penalty", 2, 0.1, value="1", epochs=1.0, size=100)  # a limit of images is less than none
    cell = results.read().cell("all", "penalty")
    assert cell is not None and (cell.epochs, cell.train_size, cell.value) == (0.5, None, "1")
    assert cell.choice is not None and cell.choice.epochs == 0.3
    assert cell.marks == ("0.5 of the epochs", "value chosen at 0.3 of the epochs")
    assert cell.figures["error"].statistics.values == {1: 25.0}
    assert [number.value for number in cell.figures["error"].baseline] == pytest.approx([40.0, 41.0])


def test_repeats_after_a_choice_are_those_that_are_retrained(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        TWO_METHODS.replace("baseline: plain", "baseline: plain\nretrain: {overrides: {trainer.max_epochs: 5}}")
    )
    results = Results(tmp_path / "studies", read_studies(file)[0])
    for value, validation in (("0.1", 0.3), ("1", 0.1), ("10", 0.2)):
        results.run("all/penalty", 0, 0.5, value=value, validation=validation)
    with pytest.raises(DataError):
        read_results(results.folder, [results.study], [results.study.rows[0].id])
    cell = results.read().cell("all", "penalty")
    assert cell is not None and cell.remark == "chosen, not trained" and cell.count("missing") == 3
    results.run("all/penalty", 0, 0.2, value="1", retrain=True)
    cell = results.read().cell("all", "penalty")
    assert cell is not None and cell.figures["error"].statistics.values == {0: 20.0}


def test_corrupt_and_unknown_runs_are_named(results: Results) -> None:
    fill(results)
    (results.folder / "small/all/plain/seed-2/metrics.json").write_text("{")
    (results.folder / "small/all/penalty/value-10_seed-0/metrics.csv").write_text("step,val/error\n1,nonsense\n")
    shutil.copytree(results.folder / "small/all/plain/seed-1", results.folder / "small/all/plain/copy")
    stranger = results.folder / "old/row/seed-0"
    stranger.mkdir(parents=True)
    (stranger / "manifest.json").write_text(json.dumps({"study": {"row": "old/row/gone"}, "sessions": []}))
    found = results.read()
    corrupt = found.folder.corrupt
    assert set(corrupt) == {"small/all/penalty/value-10_seed-0", "small/all/plain/copy", "small/all/plain/seed-2"}
    assert found.folder.unknown == {"old/row/seed-0": "old/row/gone"}
    plain, penalty = found.cell("all", "plain"), found.cell("all", "penalty")
    assert plain is not None and plain.seeds("corrupt") == [2] and plain.seeds("finished") == [0, 1]
    assert penalty is not None and penalty.value == "1"
    write_report(results.folder / "report", [found])
    text = (results.folder / "report/report.md").read_text()
    assert "small/all/plain/seed-2" in text and "old/row/gone" in text
    assert check_report(results.folder / "report", results.folder) == []


def test_a_figure_that_is_no_number_is_left_out_and_named(results: Results) -> None:
    results.run("all/plain", 0, 0.02)
    results.run("all/plain", 1, math.nan)
    cell = results.read().cell("all", "plain")
    assert cell is not None and cell.figures["error"].statistics.values == {0: 2.0}
    assert any("seed 1: test/error is nan" in note for note in cell.notes)
    assert any("seed 0: test/loss is missing" in note for note in cell.notes)


def test_no_finished_training_says_what_there_is(results: Results) -> None:
    with pytest.raises(DataError, match="none is begun"):
        results.read()
    results.run("all/plain", 0, None, status="failed")
    results.run("all/plain", 1, None, status="killed")
    with pytest.raises(DataError, match="1 failed, 1 interrupted"):
        results.read()
