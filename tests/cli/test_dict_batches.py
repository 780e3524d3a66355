"""Another project's model that takes dictionaries by keyword and returns a dataclass, from the command line."""

import json
from pathlib import Path

import pytest
import torch
from cli_runs import QUIET

from lightning_repshape.cli import main

THEIRS = """
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader


@dataclass
class Output:
    logits: Tensor
    last_hidden_state: Tensor
    pooler_output: Tensor


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.embed, self.block = nn.Embedding(9, 8), nn.GRU(8, 6, batch_first=True)
        self.classifier = nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask):
        states, last = self.block(self.embed(input_ids) * attention_mask[..., None])
        return Output(self.classifier(last[0]), states, last[0])


class Data(LightningDataModule):
    def loader(self):
        source = torch.Generator().manual_seed(0)
        ids = torch.randint(0, 9, (60, 5), generator=source)
        rows = [{"input_ids": x, "attention_mask": torch.ones(5), "labels": int(x.sum()) % 3} for x in ids]
        return DataLoader(rows, batch_size=20)

    train_dataloader = test_dataloader = val_dataloader = loader
"""


def test_a_model_that_takes_keywords(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_tmp / "their_text.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(in_tmp))
    words = [
        "analyze",
        "--model",
        "their_text.Model",
        "--data",
        "their_text.Data",
        "--analyses",
        "lda,collapse",
        *QUIET,
    ]
    words += ["--unpack", "**,labels", "--run_dir", "run", "--ckpt_path", "none"]
    assert main([*words, "--layer", "[pooler_output]"]) == 0
    assert main([*words, "--layer", "block[0]"]) == 0
    assert main([*words, "--layer", "classifier.input"]) == 0
    folders = {path.parent.name for path in (in_tmp / "run" / "analysis").rglob("lda.json")}
    assert len(folders) == 3
    capsys.readouterr()
    assert main([*words, "--layer", "block"]) == 1  # a tuple of two
    assert "name one of its values: block[0], block[1]" in capsys.readouterr().err
    assert torch.is_grad_enabled()
    words[words.index("lda,collapse")] = "similarity,dimension"
    assert main(words) == 0
    folder = in_tmp / "run" / "analysis"
    assert json.loads((folder / "similarity.json").read_text())["names"] == ["embed", "classifier"]
    found = json.loads((folder / "dimension.json").read_text())
    assert "lidar" not in found["scalars"] and any("no augmented views" in note for note in found["notes"])
    layers = ["classifier.input", "block[0]", "[pooler_output]", "classifier"]
    assert main([*words, "--similarity.layers", json.dumps(layers)]) == 0
    found = json.loads((folder / "similarity.json").read_text())
    assert found["names"] == layers and found["cka"][0][2] == pytest.approx(1)
