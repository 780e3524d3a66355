"""Work tells how far it is where somebody looks, and comes to the same where nobody does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_data import inputs
from PIL import Image
from rich.progress import Progress
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape.analyses import PartialDatasetRetraining
from lightning_repshape.analyses.components import TSNE
from lightning_repshape.analyses.geodesic import FisherGeodesic
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.features.passes import extract_features
from lightning_repshape.functional.stacked_heads import HeadRecipe, solve_head
from lightning_repshape.terminal.progress import TrainerBars, shown_on, task, terminal_bars, trainer_bars


class Seen:
    """Bars that keep what they are told."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.totals: dict[str, float | None] = {}
        self.open: list[str] = []

    def add_task(self, description: str, *, total: float | None) -> str:
        self.done.setdefault(description, 0)
        self.totals[description] = total
        self.open.append(description)
        return description

    def advance(self, task_id: str, advance: float = 1) -> None:
        self.done[task_id] += advance

    def remove_task(self, task_id: str) -> None:
        self.open.remove(task_id)


def test_a_task_is_shown_while_it_lasts() -> None:
    seen = Seen()
    with shown_on(lambda: seen):
        with task("work", 3) as advance:
            advance(2)
            assert seen.open == ["work"] and seen.done == {"work": 2} and seen.totals == {"work": 3}
        with pytest.raises(RuntimeError), task("that fails"):
            raise RuntimeError
        with shown_on(lambda: None), task("for nobody") as advance:
            advance(1)
    with task("later") as advance:
        advance(1)
    assert seen.open == [] and list(seen.done) == ["work", "that fails"]


def decode(folder: Path) -> Any:
    for number in range(3):
        Image.new("L", (4, 4), number).save(folder / f"{number}.png")
    return ImageFiles(tuple(str(folder / f"{number}.png") for number in range(3)), 4, 4, 1).decode().sum().item()


def analyse(analysis: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        found = analysis.compute(inputs())
        return found.scalars

    return run


def solve(folder: Path) -> float:
    rows = torch.randn(1_200, 3, generator=torch.Generator().manual_seed(0))
    return float(solve_head(rows, (rows[:, 0] > 0).long(), HeadRecipe(hidden=()), num_classes=2).losses)


def take(folder: Path) -> float:
    loader = DataLoader(TensorDataset(torch.ones(9, 4), torch.zeros(9, dtype=torch.int64)), batch_size=4)
    return float(extract_features(nn.Sequential(nn.Identity()), loader, "0").features.sum())


LONG = {
    "taking features": (take, 9),
    "decoding images": (decode, 3),
    "retraining heads": (analyse(PartialDatasetRetraining(sizes=[6, 30], repeats=[3, 2], updates=5)), 5),
    "geodesic": (analyse(FisherGeodesic(updates=5)), None),
    "solving a head on": (solve, None),
    "t-SNE of": (analyse(TSNE(max_samples=20)), None),
}


@pytest.mark.parametrize("text", LONG)
def test_long_work_tells_and_is_the_same(text: str, tmp_path: Path) -> None:
    work, total = LONG[text]
    alone = work(tmp_path)
    seen = Seen()
    with shown_on(lambda: seen):
        assert work(tmp_path) == alone
    told = next(name for name in seen.done if name.startswith(text))
    assert not seen.open
    if text == "solving a head on":  # which stops by itself: told is a bound
        assert 0 < seen.done[told] < seen.totals[told]
    if total is not None:
        assert seen.totals[told] == total and seen.done[told] == pytest.approx(total)


def test_work_without_an_end_shows_how_long_it_takes() -> None:
    bars: Any = terminal_bars()
    time = bars.columns[-1]
    for total, text in ((None, "since 00:00"), (5, "--:--")):
        bars.add_task("work", total=total)
        assert str(time.render(bars.tasks[-1])) == text
    bars.stop()


def test_beside_a_trainer_s_bar() -> None:
    class Callback:
        progress = Progress(disable=True)

    assert trainer_bars(Callback()) is None and trainer_bars(None) is None
    bars = TrainerBars(Callback.progress)
    key = bars.add_task("unknown", total=None)
    bars.advance(key, 2)
    assert [(shown.total, shown.completed) for shown in Callback.progress.tasks] == [(float("inf"), 2)]
    bars.remove_task(key)
    assert not Callback.progress.tasks
