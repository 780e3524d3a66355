"""The calls of ``fit`` that rows stand for, budgets, and ``--row`` on the command line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from study_runs import all_rows, options, own

from lightning_repshape.cli.training import check_fit
from lightning_repshape.errors import ConfigError
from lightning_repshape.studies.calls import digest, row_words, take_row
from lightning_repshape.studies.reading import find_row, read_studies
from lightning_repshape.studies.rows import Variant, as_word


@pytest.mark.proof
def test_every_row_is_a_valid_call_of_fit() -> None:
    """Parsed are so many that every base meets each kind of fragment and option that it meets in some row.

    Fragments that set the same options of the same classes are of one kind. All methods meet all scenarios in
    tests/configs/test_configs.py.
    """
    kinds: dict[Path, Any] = {}

    def kind(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return tuple(kind(own, f"{path}.{key}") for key, own in value.items())
        if isinstance(value, list):
            return path, tuple(kind(own, "") for own in value)
        return path, value if path.endswith("class_path") else type(value).__name__

    def parts(words: list[str]) -> set[Any]:
        paths = [Path(word) for name, word in zip(words[::2], words[1::2], strict=True) if name == "--config"]
        for path in paths:
            if path not in kinds:
                kinds[path] = kind(yaml.safe_load(path.read_text()), "")
        met = {(paths[0], kinds[path]) for path in paths[1:]}
        for option, value in options(words).items():
            met.add((None if option.startswith("trainer.") else paths[0], kind(value, option)))
        return met

    calls: dict[str, list[str]] = {}
    found: dict[str, set[Any]] = {}
    for row in all_rows():
        value = row.select.values[0] if row.select is not None else None
        words = row_words(row, Variant(row.seeds[0], value, epochs=0.5, retrain=row.retrain is not None))
        assert words[-2:] == ["--seed_everything", str(row.seeds[0])], row.id
        calls[row.id], found[row.id] = words, parts(words)
    seen: set[Any] = set()
    chosen = []
    while new := {row_id: met - seen for row_id, met in found.items() if not met <= seen}:
        chosen.append(max(new, key=lambda row_id: len(new[row_id])))
        seen |= found[chosen[-1]]
    assert len(chosen) > 60
    check_fit({row_id: calls[row_id] for row_id in chosen})


def test_a_row_with_an_option_that_does_not_exist() -> None:
    words = row_words(find_row("aaai19/table-7/default/cw_vr"), Variant())
    with pytest.raises(ConfigError, match="first"):
        check_fit({"first": [*words, "--model.init_args.regularizer.weight", "1"]})


def test_a_budget_scales_epochs_milestones_and_images() -> None:
    row = find_row("feed-backward/table-1/resnet32-c10/softmax")
    found = options(row_words(row, Variant(epochs=0.1)))
    assert found["trainer.max_epochs"] == 30
    assert found["model.init_args.lr_scheduler.init_args.milestones"] == [10, 20, 25]
    found = options(row_words(row, Variant(epochs=0.001, train_size=900)))
    assert found["trainer.max_epochs"] == 1 and found["data.init_args.train_size"] == 900
    annealed = options(row_words(find_row("iclr21/table-1/cifar10-resnet18/fixed"), Variant(epochs=0.25)))
    assert annealed["trainer.max_epochs"] == annealed["model.init_args.lr_scheduler.init_args.T_max"] == 50
    whole = options(row_words(row, Variant()))
    assert not {"trainer.max_epochs", "data.init_args.train_size"} & set(whole)


def test_a_budget_leaves_a_validation_to_choose_by() -> None:
    row = find_row("aaai19/table-7/data-1k/cw_vr")
    assert options(row_words(row, Variant(epochs=0.5)))["trainer.check_val_every_n_epoch"] == 5
    assert options(row_words(row, Variant(epochs=0.004)))["trainer.check_val_every_n_epoch"] == 2


def test_a_budget_never_enlarges_the_training_set() -> None:
    row = find_row("aaai19/table-7/data-1k/cw_vr")
    assert "data.init_args.train_size" not in options(row_words(row, Variant(train_size=2000)))
    assert options(row_words(row, Variant(train_size=500)))["data.init_args.train_size"] == 500
    assert options(row_words(row, Variant(epochs=0.5)))["trainer.max_epochs"] == 250


def test_a_budget_of_steps_and_none_at_all(tmp_path: Path) -> None:
    file = own(tmp_path, overrides={"trainer.max_steps": 100, "trainer.max_epochs": -1})
    found = options(row_words(read_studies(file)[0].rows[0], Variant(epochs=0.25)))
    assert found["trainer.max_steps"] == 25 and found["trainer.max_epochs"] == -1
    (study,) = read_studies(own(tmp_path, configs=["method/cw-vr"]))
    with pytest.raises(ConfigError, match=r"baseline sets neither trainer.max_epochs nor trainer.max_steps"):
        row_words(study.rows[0], Variant(epochs=0.5))


@pytest.mark.parametrize("epochs", [0.0, -0.5, 1.5, float("nan")])
def test_a_budget_is_a_fraction(epochs: float) -> None:
    with pytest.raises(ConfigError, match=r"it must be a fraction of the epochs in \(0, 1\]"):
        Variant(epochs=epochs)
    with pytest.raises(ConfigError, match="at least one is needed"):
        Variant(train_size=0)


def test_values_and_retraining() -> None:
    row = find_row("aaai19/table-8/width-32/cw_vr")
    words = row_words(row, Variant(seed=3, value="10", retrain=True))
    configs = [Path(word).stem for name, word in zip(words[::2], words[1::2], strict=True) if name == "--config"]
    assert configs == ["cifar10-cnn", "width-32", "cw-vr", "merged-validation"]
    assert options(words)["model.init_args.regularizers.init_args.weight"] == 10
    assert options(words)["seed_everything"] == 3
    assert "merged-validation" not in " ".join(row_words(row, Variant(value="10")))
    with pytest.raises(ConfigError, match="chooses nothing by validation"):
        row_words(find_row("aaai19/table-8/width-32/baseline"), Variant(value="10"))


@pytest.mark.parametrize("value", [None, True, 1, 100, 0.001, 1e-7, 0.1 + 0.2, [42], {"a": 1}, "cosine"])
def test_words_are_read_as_the_same_value(value: Any) -> None:
    assert yaml.safe_load(as_word(value)) == value or float(as_word(value)) == value


@pytest.mark.parametrize("words", [["--row", "{}"], ["--row={}"]])
def test_taking_a_row_from_the_command_line(words: list[str]) -> None:
    name = "aaai19/table-8/width-32/cw_vr"
    row = find_row(name)
    given = [word.format(name) for word in words]
    taken, about = take_row([*given, "--row.value", "0.1", "--row.budget=0.5", "--row.retrain", "true"])
    assert taken == row_words(row, Variant(0, "0.1", 0.5, None, True))
    variant = {"seed": 0, "value": "0.1", "epochs": 0.5, "train_size": None, "retrain": True}
    assert about == {"row": name, **variant, "digest": digest(row, Variant(0, "0.1", 0.5, None, True))}
    others = [digest(row, Variant(0, "1", 0.5, None, True)), digest(row, Variant(0, "0.1", 0.5))]
    assert about["digest"] not in others and digest(row, Variant(1, "0.1", 0.5)) == others[1], "the seed plays no part"


def test_words_before_and_behind_a_row_stay_there() -> None:
    before, behind = ["--config", "mine.yaml"], ["--data.root", "data", "--seed_everything", "7"]
    taken, about = take_row([*before, "--row", "aaai19/table-7/default/vr", *behind, "--row.train_size", "100"])
    assert taken[:2] == before and taken[-4:] == behind
    assert taken[2:-4] == row_words(find_row("aaai19/table-7/default/vr"), Variant(seed=7, train_size=100))
    assert about["seed"] == 7 and about["train_size"] == 100
    assert take_row(behind) == (behind, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "aaai19/table-7/default/cw_rv"], "aaai19/table-7/default/cw_vr"),
        (["--row"], "--row needs a value behind it"),
        (
            ["--row", "aaai19/table-7/default/vr", "--row.budgets", "1"],
            "no option '--row.budgets'.*--row.budget",
        ),
        (["--row.budget", "0.5"], "name the row with --row ID"),
        (["--row", "aaai19/table-7/default/vr", "--row.budget", "much"], "--row.budget is 'much', which is no float"),
        (["--row", "aaai19/table-7/default/vr", "--row.budget", "0"], "it must be a fraction"),
        (["--row", "aaai19/table-7/default/vr", "--row.train_size", "1.5"], "'1.5', which is no int"),
        (["--row", "aaai19/table-7/default/vr", "--row.retrain", "yes"], "it must be true or false"),
        (["--row", "aaai19/table-7/default/vr", "--row.value", "0.02"], "no value '0.02' to choose from.*0.01"),
        (["--row", "aaai19/table-7/default/baseline", "--row.value", "1"], "chooses nothing by validation"),
    ],
)
def test_wrong_words_on_a_row(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_row(words)
