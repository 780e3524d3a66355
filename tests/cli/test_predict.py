"""``predict --images``: images of one's own, from a run whose data are not asked for."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_repshape import DigitsDataModule, plots
from lightning_repshape.cli import main

OLD = Path(__file__).parents[1] / "fixtures" / "run-of-0.1" / "supervised"


@pytest.fixture
def run() -> str:
    shutil.copytree(OLD, "run")
    images = DigitsDataModule().images("test", torch.arange(12))[..., 0]
    Path("photos/deeper").mkdir(parents=True)
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(f"photos/{'deeper/' if number > 9 else ''}{number:02d}.png")
    return "run"


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder(run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["predict", "--run_dir", run, "--trainer.enable_progress_bar", "false"]) == 0
    wanted = {row["image"]: row for row in table("run/predictions.csv")}
    capsys.readouterr()
    Path("photos/notes.txt").write_text("no image")
    sheets: list[list[str]] = []
    drawn = plots.contact_sheet
    monkeypatch.setattr(
        "lightning_repshape.plots.contact_sheet", lambda *given: sheets.append(list(given[1])) or drawn(*given)
    )
    with pytest.warns(UserWarning, match=r"left out 1 file\(s\) that are no images: photos/notes.txt"):
        assert main(["predict", "--run_dir", run, "--images", "photos", "--top", "3"]) == 0
    rows = table("run/predictions-photos.csv")
    assert list(rows[0])[:5] == ["image", "predicted_class", "probability", "predicted_class_2", "probability_2"]
    assert len(rows) == 12 and rows[11]["image"] == "photos/deeper/11.png"
    for number, row in enumerate(rows):
        known = list(wanted.values())[number]
        assert row["predicted_class"] == known["predicted_class"]
        assert float(row["probability"]) == pytest.approx(float(known["probability"]), abs=2e-6)
        assert float(row["probability"]) >= float(row["probability_2"]) >= float(row["probability_3"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split()[:2] == ["00.png", rows[0]["predicted_class"]] and "... and 2 more" in printed
    assert printed[-2:] == ["predictions: run/predictions-photos.csv", "contact sheet: run/predictions-photos.png"]
    assert len(sheets[0]) == 12 and sheets[0][0].splitlines()[1] == "00.png"
    assert Image.open("run/predictions-photos.png").size[0] > 1000


def test_a_file_from_a_checkpoint_elsewhere(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open("photos/03.png").resize((31, 50)).convert("RGBA").save("one.webp")
    assert main(["predict", "--ckpt_path", f"{run}/checkpoints/last.ckpt", "--images=one.webp"]) == 0
    (row,) = table("run/predictions-one.csv")
    assert list(row) == ["image", "predicted_class", "probability"] and row["image"] == "one.webp"
    assert row["predicted_class"] in capsys.readouterr().out


def test_mistakes(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("photos/04.png").write_bytes(b"no image")
    for words, status, message in (
        (["--images", "absent"], 1, "no folder or file"),
        (["--images", "empty"], 1, "no images in empty"),
        (["--images", "photos"], 1, "cannot read the image photos/04.png"),
        (["--images", ""], 2, "--images is empty"),
        (["--images", "photos", "--top", "0"], 2, "top is 0"),
        (["--images", "photos", "--device", "nonsense"], 2, "--device nonsense"),
        (["--images", "photos", "--tpo", "2"], 2, "there is no option 'tpo'; did you mean 'top'"),
    ):
        assert main(["predict", "--run_dir", run, *words]) == status, words
        assert message in capsys.readouterr().err
    assert main(["predict", "--images", "photos"]) == 2
    assert "predict needs trained weights: give --run_dir RUN" in capsys.readouterr().err
    assert not list(Path().rglob("predictions-*")) and not Path("runs").exists()
