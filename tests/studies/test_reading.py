"""Files of studies of one's own, right and wrong, and how studies and rows are found."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from study_runs import OWN, STUDY, all_rows, epochs, own, runner

from lightning_repshape.cli.training import check_fit
from lightning_repshape.errors import ConfigError
from lightning_repshape.studies.calls import row_words
from lightning_repshape.studies.jobs import Cell, open_results
from lightning_repshape.studies.reading import filtered, find_row, find_studies, read_studies
from lightning_repshape.studies.rows import Variant


def test_a_file_with_one_study(tmp_path: Path) -> None:
    (study,) = read_studies(own(tmp_path))
    assert study.id == "mine" and study.data == "digits" and study.baseline == "baseline"
    assert [row.id for row in study.rows] == [
        *("mine/default/baseline", "mine/default/cw_vr", "mine/small/baseline", "mine/small/cw_vr"),
    ]
    row = study.row("small", "cw_vr")
    assert row is not None and row.select is not None and study.row("small", "cr") is None
    assert row.seeds == (0, 1) and row.select.values == ("0.01", "1") and row.select.metric == "val/error"
    assert row.published["error"].show() == "2.00 ± 0.50"
    assert study.rows[0].select is None
    assert find_row(f"{study.file}:small/cw_vr") == find_row(f"{study.file}:cw_vr".replace(":", ":small/")) == row
    check_fit({row.id: row_words(row, Variant(value="1", epochs=0.5))})


def test_a_file_with_several_studies(tmp_path: Path) -> None:
    one = {key: value for key, value in OWN.items() if key != "format"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"format": 1, "paper": "P", "studies": {"a": one, "b": one}}))
    assert [study.id for study in find_studies(str(file))] == ["mine/a", "mine/b"]
    assert find_row(f"{file}:b/default/cw_vr").id == "mine/b/default/cw_vr"
    with pytest.raises(ConfigError, match=r"has no row 'b/default/cw_rv'.*b/default/cw_vr"):
        find_row(f"{file}:b/default/cw_rv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2; this version reads 'format: 1'"),
        ({"format": "absent"}, "has format None"),
        ({"method": {}}, "there is no key 'method'.*methods"),
        ({"methods": {}}, "'methods' must be a mapping with at least one entry"),
        ({"methods": {"baseline": {"config": []}}}, "method baseline: there is no key 'config'.*configs"),
        ({"methods": {"baseline": None, "a/b": None}}, "method 'a/b' names folders: letters"),
        ({"methods": {"..": None}}, "method '..' names folders"),
        ({"baseline": ["vr"]}, r"baseline \['vr'\] is none of the methods"),
        ({"trainings": {}}, r"no study {} stands before"),
        ({"overrides": []}, "overrides must map options"),
        ({"overrides": {"--trainer.max_epochs": 1}}, "'--trainer.max_epochs' is no option of fit"),
        ({"overrides": {"then_test": False}}, "then_test is the study's own affair"),
        ({"seeds": 0}, "seeds is 0; at least one"),
        ({"format": True}, "has format True"),
        ({"select": {"option": "a", "values": [1, 1.0]}}, "names one twice"),
        ({"columns": {"default": {"train_size": 5}}}, "column default: there is no key 'train_size'"),
        ({"figures": {"error": {"scale": 100}}}, "figure error: 'metric' must be a key"),
        ({"figures": {"error": {"metric": "test/error", "scale": 0}}}, "scale is 0"),
        ({"figures": {"error": {"metric": "test/error", "better": "less"}}}, "better is 'less'"),
        ({"figures": {"error": {"metric": "test/error", "digits": 1.5}}}, "digits is 1.5"),
        ({"figures": {"error": {"metric": "test/error", "over": "vr"}}}, "over 'vr' is none of the methods"),
        ({"seeds": [0, 1, 0]}, "names a seed twice"),
        ({"seeds": []}, "must be a list of integers"),
        ({"seeds": [-1]}, "integers of at least 0"),
        ({"seeds": True}, "must be a list of integers"),
        ({"baseline": "base"}, "baseline 'base' is none of the methods.*baseline"),
        ({"configs": ["base/digit-mlp"]}, "base/digits-mlp"),
        ({"overrides": ["trainer.max_epochs"]}, "overrides must map options"),
        ({"select": {"option": "weight", "values": []}}, "select needs 'option'"),
        ({"select": {"option": "weight", "values": [1], "best": "higher"}}, "select: there is no key 'best'"),
        ({"select": {"option": "weight", "values": [1], "better": "more"}}, "better is 'more'"),
        ({"retrain": {"config": []}}, "retrain: there is no key 'config'.*configs"),
        ({"retrain": "scenario/merged-validation"}, "is no mapping"),
        ({"methods": {"baseline": {"columns": {"smal": {}}}}}, "method baseline: there is no column 'smal'.*small"),
        ({"methods": {"baseline": {"columns": {"small": {"title": "x"}}}}}, "column small: there is no key 'title'"),
        ({"published": {"cells": ["defalt"], "values": {}}}, "cell 'defalt' is no column and figure"),
        ({"published": {"cells": ["default"], "values": {"cw_rv": [1]}}}, "'cw_rv' is none of the methods.*cw_vr"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [1, 2]}}}, "cw_vr has 2 values for 1 cells"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [[1, 2, 3]]}}}, "is no number"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [{"range": [1, "b"]}]}}}, "is no number"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [True]}}}, "is no number"),
        ({"studies": {"a": {}}}, "stands? beside 'studies'"),
    ],
)
def test_a_wrong_file_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_studies(str(own(tmp_path, **changes)))
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\nstudies: {a: [", "cannot be read as YAML"),
        ("- format: 1", "holds no mapping"),
        ("", "holds no mapping"),
        ("format: 1\nstudies: []", "'studies' must map names to studies"),
        ("format: 1\nstudies: {a: 5}", "5 is no mapping"),
    ],
)
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_studies(file)
    assert str(file) in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"no row 'aaai19/.*/cw_rv'.*aaai19/table-7/default/cw_vr"):
        find_row("aaai19/table-7/default/cw_rv")
    with pytest.raises(ConfigError, match=r"there is no study 'aaai19/table7'.*aaai19/table-7"):
        find_studies("aaai19/table7")
    with pytest.raises(ConfigError, match=r"there is no file of studies nowhere\.yaml"):
        find_studies("nowhere.yaml")
    with pytest.raises(ConfigError, match=r"there is no file of studies nowhere\.yaml"):
        find_row("nowhere.yaml:default/cw_vr")
    assert len(find_studies("aaai19")) == 6
    assert [study.id for study in find_studies("icml19/table-1")] == ["icml19/table-1"]


def test_filters() -> None:
    rows = all_rows()
    assert filtered(rows, []) == rows
    assert len(filtered(rows, ["cw_vr+mnist"])) == 8  # table 7's five columns, table 5, table 10, beside/mnist
    assert {row.study for row in filtered(rows, ["aaai19/table-7"])} == {"aaai19/table-7"}
    assert {row.method for row in filtered(rows, ["CIFAR-10+foca", "table-4+vr"])} == {"foca", "vr"}
    assert {row.column for row in filtered(rows, ["table-2+cifar10+mobilenet-v2"])} == {"cifar10-mobilenet-v2"}
    assert filtered(rows, ["table-77"]) == []


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"b": {"init_from": "aa"}}, r"method b: init_from 'aa' is none of the methods"),
        ({"b": {"init_from": "b"}}, r"must name a method that starts afresh, not itself"),
        ({"b": {"init_from": "a"}, "c": {"init_from": "b"}}, r"not b, which starts from another one"),
        ({"b": {"init_from": "a", "seeds": 3}}, r"default/b: init_from a, which lacks some of its seeds"),
        ({"b": {"init_from": "a", "retrain": {"overrides": {}}}}, r"goes without select and retrain"),
        ({"b": {"init_from": ["a"]}}, r"init_from \['a'\] is none of the methods"),
    ],
)
def test_what_a_method_starts_from(tmp_path: Path, methods: dict[str, Any], message: str) -> None:
    file = tmp_path / "my.yaml"
    content = {**STUDY, "select": False, "baseline": "a", "seeds": 2, "methods": {"a": {}, **methods}}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        find_studies(str(file))


def test_studies_may_share_their_trainings(tmp_path: Path, trace: Path) -> None:
    table = {key: value for key, value in STUDY.items() if key != "format"}
    file = tmp_path / "my.yaml"

    def written(**changes: Any) -> list[Cell]:
        second = {**table, "figures": {"loss": "test/loss"}, "trainings": "first", **changes}
        file.write_text(yaml.safe_dump({"format": 1, "studies": {"first": table, "second": second}}))
        results = open_results(tmp_path / "results", create=True)
        return [Cell(row, results) for study in find_studies(str(file)) for row in study.rows]

    own = written()
    assert [one.count("finished") for one in runner(own).run()] == [3, 5, 3, 5]
    assert set(epochs(trace).values()) == {1} and not (tmp_path / "results" / "my" / "second").exists()
    with pytest.raises(ConfigError, match=r"default/baseline is not trained in first, or not in the same way"):
        written(seeds=[1])
    with pytest.raises(ConfigError, match=r"no study 'frist' stands before; did you mean 'first'"):
        written(trainings="frist")
