import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.studies.cells import StudyResult
from lightning_repshape.studies.check import check_report
from lightning_repshape.studies.jobs import Job
from lightning_repshape.studies.reading import read_studies
from lightning_repshape.studies.report import write_report
from lightning_repshape.studies.results import read_results
from lightning_repshape.studies.rows import Study, Variant
from lightning_repshape.studies.values import statistics

STUDY = """
format: 1
paper: Müller and Søn, 2020
title: Two methods | and a line
data: Ziffern
overrides: {trainer.max_epochs: 10}
figures:
  error: {metric: test/error, scale: 100, unit: "%"}
  loss: {metric: test/loss, digits: 3, over: plain}
seeds: [0, 1, 2]
baseline: plain
columns: {all: {title: all images}, few: {title: few images}}
methods:
  plain: {title: Plain}
  penalty:
    title: Penalty λ
    select: {option: model.init_args.weight, values: [0.1, 1, 10], metric: val/error}
published:
  source: table 1
  cells: [all/error, few/error]
  values:
    plain: [[2.5, 0.1], {range: [8, 12]}]
    penalty: [2.0, did not converge]
notes: [A note.]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    file = tmp_path / "small.yaml"
    file.write_text(STUDY, encoding="utf-8")
    return read_studies(file)[0]


class Results:
    """Run folders made by hand."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study

    def run(
        self,
        row: str,
        seed: int,
        error: float | None,
        *,
        value: str | None = None,
        epochs: float = 1.0,
        size: int | None = None,
        retrain: bool = False,
        validation: float | None = None,
        status: str = "finished",
        speed: float = 100.0,
        memory: float = 500.0,
        loss: float | None = None,
    ) -> Path:
        column, method = row.split("/")
        found = self.study.row(column, method)
        assert found is not None
        job = Job(found, Variant(seed, value, epochs, size, retrain), self.folder)
        job.folder.mkdir(parents=True)
        fit: dict[str, Any] = {"stage": "fit", "status": "finished", "steps": 50, "steps_per_second": speed}
        sessions = [{**fit, "peak_memory_mb": memory}]
        if status == "finished":
            sessions.append({"stage": "test", "status": "finished", "peak_memory_mb": 9e9})
        elif status == "failed":
            sessions[0] |= {"status": "failed", "error": "DivergenceError: loss <nan> | at step 3"}
        else:
            sessions[0] |= {"status": status}
        machine = {"cpu": "some processor", "threads": 1, "accelerator": "cpu"}
        manifest = {"format": 1, "study": job.about(), "machine": machine, "sessions": sessions}
        (job.folder / "manifest.json").write_text(json.dumps(manifest))
        figures: dict[str, float] = {} if error is None else {"test/error": error, "step": 50}
        if loss is not None:
            figures["test/loss"] = loss
        (job.folder / "metrics.json").write_text(json.dumps(figures))
        if validation is not None:
            text = f"step,epoch,val/error\n10,0,{validation + 0.2}\n20,1,{validation}\n30,2,{validation + 0.1}\n"
            (job.folder / "metrics.csv").write_text(text)
        return job.folder

    def read(self) -> StudyResult:
        return read_results(self.folder, [self.study])[0]


@pytest.fixture
def results(tmp_path: Path, study: Study) -> Results:
    folder = tmp_path / "studies"
    folder.mkdir()
    return Results(folder, study)


PLAIN = {0: 0.0251, 1: 0.0262, 2: 0.0247}
PENALTY = {0: 0.0212, 1: 0.0231, 2: 0.0199}


def fill(results: Results) -> None:
    """The first column whole, the second with a failure, an interruption and a choice that is not made."""
    for seed, error in PLAIN.items():
        results.run("all/plain", seed, error, loss=0.1 + seed, speed=100 + seed)
    for value, validation in (("0.1", 0.03), ("1", 0.02), ("10", 0.5)):
        results.run("all/penalty", 0, PENALTY[0], value=value, validation=validation, loss=0.2, speed=50, memory=600)
    for seed in (1, 2):
        results.run("all/penalty", seed, PENALTY[seed], value="1", loss=0.3 + seed, speed=50 + seed, memory=600)
    results.run("few/plain", 0, 0.10)
    results.run("few/plain", 1, None, status="failed")
    results.run("few/plain", 2, None, status="killed")
    results.run("few/penalty", 0, 0.09, value="0.1", validation=0.1)
    results.run("few/penalty", 0, None, value="1", status="failed")


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
    file.write_text(STUDY.replace("baseline: plain", "baseline: plain\nretrain: {overrides: {trainer.max_epochs: 5}}"))
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


def records(folder: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return {(row["column"], row["method"], row["figure"]): row for row in csv.DictReader(file)}


def test_the_files_of_a_report(results: Results, tmp_path: Path) -> None:
    fill(results)
    folder = tmp_path / "report"
    assert write_report(folder, [results.read()]) == folder / "report.html"
    rows = records(folder)
    assert len(rows) == 8
    row = rows["all", "penalty", "error"]
    assert float(row["mean"]) == pytest.approx(100 * np.mean(list(PENALTY.values())))
    assert (row["n"], row["seeds"], row["value"], row["published"]) == ("3", "0 1 2", "1", "2.0")
    assert (row["best_ours"], row["best_published"]) == ("true", "true")
    row = rows["few", "plain", "error"]
    assert (row["published"], row["failed_seeds"], row["ci_low"]) == ("8 to 12", "1", "")
    assert rows["few", "penalty", "error"]["published"] == "did not converge"

    text = (folder / "report.md").read_text(encoding="utf-8")
    for line in (line for line in text.splitlines() if line.startswith("|")):
        assert line.endswith("|")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert tables[0].splitlines()[0] == "| method | all images | paper | few images | paper |"
    assert tables[0].splitlines()[3] == (
        "| Penalty λ | **2.14 ± 0.16 (3)** | **2.00** | selection 2 of 3 | did not converge |"
    )
    assert "10.00 (1 of 3, 1 failed)" in text and "A note." in text and "&lt;nan> \\| at step 3" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Müller" in page and "<strong>2.14 ± 0.16 (3)</strong>" in page and "&lt;nan&gt;" in page
    for target in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'>\s]+)""", page):
        assert target.startswith(("data:image/png;base64,", "#"))
    assert "url(" not in page and "@import" not in page and "<script" not in page
    assert not list(folder.glob(".*"))


def test_budgets_are_marked(results: Results, tmp_path: Path) -> None:
    results.run("all/plain", 0, 0.02, epochs=0.3, size=500)
    results.run("few/plain", 0, 0.02)
    write_report(tmp_path / "report", [results.read()])
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "2.00 (1 of 3)¹ ²" in text
    assert "- ¹ 0.3 of the epochs" in text and "- ² at most 500 training images" in text
    row = records(tmp_path / "report")["all", "plain", "error"]
    assert (row["epochs"], row["train_size"]) == ("0.3", "500")


def test_the_check_finds_nothing_in_a_report_as_written(results: Results, tmp_path: Path) -> None:
    fill(results)
    write_report(tmp_path / "report", [results.read()])
    assert check_report(tmp_path / "report", results.folder) == []
    shutil.move(results.folder, tmp_path / "elsewhere")
    assert check_report(tmp_path / "report", tmp_path / "elsewhere") == []


def test_the_check_finds_what_was_changed(results: Results, tmp_path: Path) -> None:
    fill(results)
    report = tmp_path / "report"
    write_report(report, [results.read()])
    metrics = results.folder / "small/all/plain/seed-1/metrics.json"
    kept = metrics.read_text()
    metrics.write_text(kept.replace("0.0262", "0.0252"))
    problems = check_report(report, results.folder)
    assert any("plain/seed-1: metrics.json was changed" in problem for problem in problems)
    assert any("the report has 2.62" in problem and "2.52" in problem for problem in problems)
    metrics.write_text(kept)

    shutil.move(metrics.parent, tmp_path / "gone")
    assert check_report(report, results.folder) == ["run small/all/plain/seed-1 is missing"]
    shutil.move(tmp_path / "gone", metrics.parent)

    manifest = metrics.parent / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"finished"', '"killed"'))
    assert check_report(report, results.folder) == ["run small/all/plain/seed-1 is interrupted"]
    manifest.write_text(whole)

    table = report / "report.csv"
    text = table.read_text(encoding="utf-8")
    for name in ("mean", "std", "ci_low", "p_paired", "difference", "step_time_ratio"):
        value = records(report)["all", "penalty", "error"][name]
        assert value in text
        table.write_text(text.replace(value, repr(float(value) + 0.01)), encoding="utf-8")
        assert any(f"all/penalty/error: {name} is" in problem for problem in check_report(report, results.folder)), name
    # What nothing else is computed from is covered by the file's checksum.
    table.write_text(text.replace("true", "false"), encoding="utf-8")
    assert check_report(report, results.folder) == ["report.csv was changed after the report was written"]
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n", encoding="utf-8")
    assert len(check_report(report, results.folder)) >= 1
    table.write_text(text, encoding="utf-8")

    file = report / "report.json"
    content = json.loads(file.read_text())
    content["numbers"][0]["value"] += 1
    file.write_text(json.dumps(content))
    problems = check_report(report, results.folder)
    assert any("seed 0: the report has" in problem for problem in problems)
    assert any("mean is" in problem for problem in problems)


def test_the_check_needs_a_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.json is missing"):
        check_report(tmp_path, tmp_path)


def test_a_new_report_takes_away_the_old_ones_pictures(results: Results, tmp_path: Path) -> None:
    fill(results)
    report = tmp_path / "report"
    write_report(report, [results.read()])
    assert (report / "small-error.png").is_file()
    (report / "mine.txt").write_text("stays")
    rows = [row.id for row in results.study.rows if row.column == "all"]
    write_report(report, read_results(results.folder, [results.study], rows))
    assert not (report / "small-error.png").exists() and (report / "small.png").is_file()
    assert (report / "mine.txt").is_file() and check_report(report, results.folder) == []
