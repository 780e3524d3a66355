"""What analyses write, and what they take away."""

import json
from pathlib import Path

from analysis_data import inputs

from lightning_repshape.analyses.headline import headlines
from lightning_repshape.callbacks import (
    LDAEigenvalues,
    PrincipalComponents,
    run_analyses,
)


def test_a_failure_takes_an_earlier_figure_away(tmp_path: Path) -> None:
    run_analyses([LDAEigenvalues()], inputs(), tmp_path)
    assert (tmp_path / "lda-classes.png").is_file()
    (tmp_path / "lda-logits.json").write_text("{}")
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lda-logits.json", "lda.json"]
    assert "label=7" in json.loads((tmp_path / "lda.json").read_text())["failure"]


def test_only_the_analysis_s_own_stale_files_are_taken_away(tmp_path: Path) -> None:
    run_analyses([LDAEigenvalues(name="lda-2")], inputs(), tmp_path)
    others = sorted(path.name for path in tmp_path.iterdir())
    run_analyses([PrincipalComponents(name="lda")], inputs(), tmp_path)
    assert (tmp_path / "lda-3d.png").is_file()
    listed = json.loads((tmp_path / "lda.json").read_text())["files"]
    assert {path.name for path in tmp_path.glob("lda*.png")} - set(others) <= set(listed)
    run_analyses([LDAEigenvalues()], inputs(), tmp_path)  # a success takes away what it does not write either
    assert not (tmp_path / "lda-3d.png").exists() and (tmp_path / "lda.png").is_file()
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "lda.json"])
    # what is listed elsewhere stays
    (tmp_path / "kept.png").write_text("")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/lda.json").write_text(json.dumps({"files": ["../kept.png", 3, "lda.json"]}))
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path / "in")
    assert (tmp_path / "kept.png").is_file()
    (tmp_path / "in/lda.json").write_text("{half")
    assert run_analyses([LDAEigenvalues()], inputs(), tmp_path / "in")[0].failure == ""


def test_a_notebook_shows_figures_and_tables_and_no_wall_of_tensors() -> None:
    outcome, failed = LDAEigenvalues().run(inputs()), LDAEigenvalues(label=7).run(inputs())
    for text in (repr(outcome), repr(outcome.result)):
        assert len(text) < 300 and "eigenvalue_median=" in text and "2 figures" in text and "tensor" not in text
    shown = outcome._repr_html_()
    assert shown.count("data:image/png;base64,") == 2 and "<table>" in shown and outcome.title in shown
    assert "label=7" in repr(failed) and "label=7" in failed._repr_html_()


def test_headlines_of_an_unknown_number_of_classes() -> None:
    found = headlines({"partial_retraining/error_10": 0.2, "partial_retraining/error_100": 0.1}, 0)
    assert [one.name for one in found] == ["partial_retraining/error_10"]
