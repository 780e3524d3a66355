"""Training on identities and verifying pairs, from Python and from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from published_formats import (
    write_people,
    write_ytf,
)
from torch.nn import functional as F

from lightning_repshape.callbacks import ROCCurves
from lightning_repshape.cli import main
from lightning_repshape.configs_library import names
from lightning_repshape.data import (
    CASIAWebFaceDataModule,
    FaceVerificationDataModule,
    IdentityPairs,
    PairTable,
    VerificationPairs,
    YTFPairs,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.functional import (
    area_under_curve,
    fold_verification,
    pair_cosines,
    roc_curve,
)
from lightning_repshape.modules import SupervisedModule, VerificationModule, VerifiesPairs, verify_pairs
from lightning_repshape.networks import FaceResNet


def small_net(shape: tuple[int, ...]) -> FaceResNet:
    return FaceResNet(shape, width=8, filters=4, units=(0, 0, 0, 0), batch_norm=True)


def identities(root: str) -> CASIAWebFaceDataModule:
    return CASIAWebFaceDataModule(root, image_size=(24, 20), channels=1, classes=6, batch_size=8, eval_batch_size=9)


def strangers(root: str) -> VerificationPairs:
    return IdentityPairs(root, identities=-6, folds=3, name="strangers")


def friends(root: str) -> VerificationPairs:
    return IdentityPairs(root, identities=["s7", "s8", "s9", "s10"], folds=2, name="friends")


def quiet(folder: Path, **options: Any) -> Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    more = {"enable_model_summary": False, "default_root_dir": str(folder), "accelerator": "cpu", "max_epochs": 1}
    return Trainer(**{**settings, **more, **options})  # type: ignore[arg-type]


def reference(module: VerificationModule, table: PairTable, data: CASIAWebFaceDataModule) -> float:
    """The accuracy, from images that are read here one by one."""
    features = []
    module.eval()
    for (path,) in table.paths:
        picture = torch.from_numpy(np.asarray(Image.open(path)).copy())[None, None].float() / 255
        x = (picture - 0.5) / 0.5
        with torch.no_grad():
            features.append((module.backbone(x) + module.backbone(x.flip(3)))[0].double())
    stacked = torch.stack(features)
    return fold_verification(
        pair_cosines(stacked[table.first], stacked[table.second]), table.same, table.folds
    ).accuracy


def test_the_module_trains_on_identities_and_verifies_pairs(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers, friends], friends)
    torch.manual_seed(0)
    module = VerificationModule(6, (1, 24, 20), small_net, flip_average=True)
    trainer = quiet(tmp_path, max_epochs=2, callbacks=[ROCCurves()])
    trainer.fit(module, data)
    assert 0 <= float(trainer.callback_metrics["val/verification_error"]) <= 1
    assert "train/loss" in trainer.callback_metrics and "val/error" not in trainer.callback_metrics
    assert module.monitor == "val/verification_error"
    trainer.test(module, data, verbose=False)
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    table = data.pair_sets("test")[0].table
    accuracy = reference(module, table, data.identities)  # type: ignore[arg-type]
    assert figures["test/verification_accuracy"] == pytest.approx(accuracy)
    assert figures["test/verification_error"] == figures["test/strangers/verification_error"]
    assert figures["test/friends/auc"] <= 1 and figures["test/weight_separability"] > 0
    assert "test/tar_at_far_0.001" not in figures  # too few pairs to tell
    for name in ("strangers", "friends"):
        assert (tmp_path / "analysis" / f"roc-{name}.png").is_file()
        assert (tmp_path / "analysis" / f"roc-{name}.pdf").is_file()
    content = json.loads((tmp_path / "analysis" / "roc-strangers.json").read_text())
    assert content["accuracy"] == pytest.approx(accuracy) and content["tar_at_far"]["0.001"] is None
    again = verify_pairs(module, data, flip_average=True)
    assert again["strangers"].accuracy == pytest.approx(accuracy) and set(again) == {"strangers", "friends"}
    assert data.checksums()["test-strangers.pairs"].startswith("blake2b:")
    with pytest.raises(DataError, match="without class labels"):
        data.analysis_dataloader("test")


def test_videos_are_compared_by_the_mean_of_their_frames(tmp_path: Path) -> None:
    write_ytf(tmp_path)
    write_people(tmp_path / "people", people=3, images=2)

    def people(root: str) -> CASIAWebFaceDataModule:
        return CASIAWebFaceDataModule(root, folder="people", image_size=(24, 20), channels=1, eval_batch_size=5)

    data = FaceVerificationDataModule(str(tmp_path), people, [YTFPairs])
    torch.manual_seed(0)
    net = small_net((1, 24, 20)).eval()
    result = verify_pairs(net, data)["ytf"]
    table = data.pair_sets("test")[0].table
    means = []
    for paths in table.paths:
        frames = torch.stack([torch.from_numpy(np.asarray(Image.open(path)).copy()) for path in paths])
        with torch.no_grad():
            features = net((frames[:, None].float() / 255 - 0.5) / 0.5)
        means.append(F.normalize(features.double(), dim=1).mean(dim=0))
    means_of = torch.stack(means)
    scores = pair_cosines(means_of[table.first], means_of[table.second])
    assert result.auc == pytest.approx(area_under_curve(roc_curve(scores, table.same)))


def test_without_validation_pairs_classification_is_validated(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))

    def with_validation(root: str) -> CASIAWebFaceDataModule:
        return CASIAWebFaceDataModule(root, image_size=(24, 20), channels=1, classes=6, val_size=6)

    data = FaceVerificationDataModule(root, with_validation, [strangers])
    module = VerificationModule(6, (1, 24, 20), small_net)
    trainer = quiet(tmp_path)
    trainer.fit(module, data)
    assert module.monitor == "val/error" and "val/error" in trainer.callback_metrics


def test_partial_passes_and_wrong_modules_say_so(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers], friends)
    module = VerificationModule(6, (1, 24, 20), small_net)
    with pytest.warns(UserWarning, match="pairs have been seen"):
        quiet(tmp_path, limit_test_batches=1).test(module, data, verbose=False)
    with pytest.raises(ConfigError, match="SupervisedModule cannot verify pairs"):
        quiet(tmp_path).fit(SupervisedModule(6, (1, 24, 20), small_net), data)
    with pytest.raises(ConfigError, match="several sets with one name"):
        FaceVerificationDataModule(root, identities, [strangers, strangers])
    with pytest.raises(ConfigError, match="no test pairs"):
        quiet(tmp_path).test(module, FaceVerificationDataModule(root, identities), verbose=False)
    known = FaceVerificationDataModule(root, identities, [lambda root: IdentityPairs(root, folds=2, name="all")])
    with pytest.warns(UserWarning, match="6 people of the test pairs have the names of identities to train on"):
        known.pair_sets("test")


def test_any_module_can_verify_pairs(tmp_path: Path) -> None:
    class Plain(VerifiesPairs, SupervisedModule):
        pass

    root = str(write_people(tmp_path / "set", people=12, images=4))
    data = FaceVerificationDataModule(root, identities, [strangers])
    module = Plain(6, (1, 24, 20), small_net)
    trainer = quiet(tmp_path)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert "test/verification_error" in trainer.callback_metrics


def test_faces_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "faces", people=40, images=3)
    words = ["fit", "--config", "faces-att", "--data.root", "faces", "--run_dir", "run", "--trainer.max_epochs", "1"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    words += ["--model.backbone.filters", "2", "--model.reconstruction_weight", "0.001"]
    assert main(words) == 0
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= figures["test/verification_error"] <= 1 and 0 <= figures["test/auc"] <= 1
    assert (tmp_path / "run" / "analysis" / "roc-att.png").is_file()
    again = ["test", "--run_dir", "run", "--trainer.enable_progress_bar", "false"]
    assert main(again) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/auc"] == figures["test/auc"]
    assert main([*words[:-2], "--data.root", "nowhere", "--run_dir", "other"]) == 1


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("faces/")])
def test_configs_of_table_2_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", name, "--model.reconstruction_weight", "0.001", "--print_config"]) == 0
    assert "VerificationModule" in capsys.readouterr().out
