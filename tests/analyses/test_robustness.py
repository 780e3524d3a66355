"""Corruptions against independent constructions, further test sets, and the callback that tests on all of them."""

import csv
import io
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import QUIET
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import Precision
from PIL import Image
from torch import Tensor, nn

from lightning_repshape.analyses.inputs import TrainerInputs
from lightning_repshape.callbacks import Corruptions, FeatureInputs, corruption_errors
from lightning_repshape.cli import main
from lightning_repshape.data import (
    CORRUPTIONS,
    DigitsDataModule,
    GeneralizationSet,
    ImageDataModule,
    ImageFolderSet,
    ImageSet,
    SplitData,
    TestImages,
    corrupt,
    corruption_constants,
    defocus_kernel,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP

DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "fog"}
DRAWN |= {"elastic_transform"}
# whose published constants do not grow in all parts, at least from the first to the last, or not even that
UNORDERED = {"glass_blur", "snow", "motion_blur", "zoom_blur"}
NO_ORDER = {"saturate", "elastic_transform"}

pytestmark = pytest.mark.usefixtures("real_figures")


def smooth_images(count: int = 6, size: int = 32, channels: int = 3) -> Tensor:
    """Pictures with edges and gradients, which noise alone does not have."""
    grid = torch.arange(size, dtype=torch.float64)
    images = torch.empty(count, size, size, channels, dtype=torch.float64)
    for n in range(count):
        for c in range(channels):
            wave = torch.sin(grid[:, None] * (n + 1) / 5 + c) * torch.cos(grid[None] * (c + 2) / 6)
            images[n, :, :, c] = 128 + 90 * wave + 30 * (grid[:, None] > grid[None] + n)
    return images.clamp(0, 255).round().to(torch.uint8)


# The corruptions


@pytest.mark.parametrize("size", [32, 64, 224])
def test_impulse_noise_replaces_the_published_share_by_black_and_white(size: int) -> None:
    image = torch.full((2, size, size, 3), 100, dtype=torch.uint8)
    before: Tensor | None = None
    for severity, amount in enumerate(corruption_constants((size, size)).amount, 1):
        noisy = corrupt(image, "impulse_noise", severity, seed=3)
        changed = noisy != image
        assert set(noisy[changed].tolist()) == {0, 255}
        values = image.numel()
        for found, share in ((changed, amount), (noisy == 0, amount / 2), (noisy == 255, amount / 2)):
            spread = math.sqrt(values * share * (1 - share))
            assert abs(int(found.sum()) - values * share) < 4.5 * spread
        # Channels by themselves: a pixel of which all three values change is rare.
        assert int(changed.all(-1).sum()) < 4 + 3 * 2 * size**2 * amount**3
        if before is not None:  # the next severity keeps what was there
            assert torch.equal(noisy[before != image], before[before != image])
        before = noisy


def test_jpeg_equals_pils_encoder() -> None:
    images = smooth_images()
    for severity, quality in enumerate((80, 65, 58, 50, 40), 1):
        found = corrupt(images, "jpeg_compression", severity)
        for image, ours in zip(images.numpy(), found.numpy(), strict=True):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            assert np.array_equal(np.asarray(Image.open(file)), ours)
    grey = smooth_images(channels=1)
    file = io.BytesIO()
    Image.fromarray(grey[0, :, :, 0].numpy()).save(file, "JPEG", quality=80)
    assert np.array_equal(np.asarray(Image.open(file)), corrupt(grey, "jpeg_compression", 1)[0, :, :, 0].numpy())


def plain_kernel(radius: float, blur: float) -> np.ndarray:
    """The disk and its smoothing as sums over pixels, written down without any convolution."""
    ring, reach = (1, 12) if radius <= 8 else (2, 14)
    taps = [math.exp(-(step**2) / (2 * blur**2)) for step in range(-ring, ring + 1)]
    side = 2 * reach + 1
    kernel = np.zeros((side, side))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            if x * x + y * y <= radius * radius:
                for i in range(-ring, ring + 1):
                    for j in range(-ring, ring + 1):
                        weight = taps[i + ring] * taps[j + ring] / sum(taps) ** 2
                        kernel[y + i + reach, x + j + reach] += weight
    return kernel / kernel.sum()


@pytest.mark.parametrize("size", [32, 64, 224])
def test_defocus_kernel_is_a_smoothed_disk(size: int) -> None:
    for radius, blur in corruption_constants((size, size)).disk:
        kernel, plain = defocus_kernel(radius, blur), plain_kernel(radius, blur)
        margin = (len(plain) - len(kernel)) // 2
        inner = plain[margin : margin + len(kernel), margin : margin + len(kernel)]
        assert kernel.sum() == pytest.approx(1, abs=1e-14)
        assert np.allclose(kernel, inner, atol=1e-15) and inner.sum() == pytest.approx(1, abs=1e-14)
        assert np.allclose(kernel, kernel.T, atol=1e-16) and np.allclose(kernel, kernel[::-1])
    with pytest.raises(ValueError, match="must not be negative"):
        defocus_kernel(-1, 0.1)
    plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5
    assert np.allclose(defocus_kernel(1, 0.01), np.pad(plus, 1))


def test_defocus_blur_equals_a_float64_convolution_of_the_mirrored_image() -> None:
    images = smooth_images(3)
    for severity in (1, 3, 5):
        kernel = torch.from_numpy(defocus_kernel(*corruption_constants("cifar-c").disk[severity - 1]).copy())
        reach = len(kernel) // 2
        planes = images.permute(0, 3, 1, 2).reshape(-1, 1, 32, 32).double()
        mirrored = nn.functional.pad(planes, (reach,) * 4, mode="reflect")
        expected = nn.functional.conv2d(mirrored, kernel[None, None]).view(3, 3, 32, 32).permute(0, 2, 3, 1)
        found = corrupt(images, "defocus_blur", severity)
        assert float((found.double() - expected).abs().max()) <= 0.5 + 1e-9
    flat = torch.full((1, 9, 7, 3), 201, dtype=torch.uint8)
    assert torch.equal(corrupt(flat, "defocus_blur", 5), flat)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_result_depends_on_seed_and_position_not_on_the_batch(corruption: str) -> None:
    images, index = smooth_images(7), torch.tensor([5, 0, 9, 31, 2, 8, 7])
    whole = corrupt(images, corruption, 3, index, seed=1)
    kept = images.clone()
    for size in (1, 2, 5):
        parts = zip(torch.split(images, size), torch.split(index, size), strict=True)
        assert torch.equal(torch.cat([corrupt(part, corruption, 3, at, seed=1) for part, at in parts]), whole)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert torch.equal(corrupt(images[order], corruption, 3, index[order], seed=1), whole[order])
    assert torch.equal(images, kept) and whole.dtype == torch.uint8 and whole.shape == images.shape
    other = corrupt(images, corruption, 3, index, seed=2)
    assert torch.equal(other, whole) == (corruption not in DRAWN)
    state = torch.get_rng_state()
    corrupt(images, corruption, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert corrupt(images[:0], corruption, 1).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("size", [32, 64, 96, 224])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_severity_is_worse_than_the_one_before(corruption: str, size: int) -> None:
    constants = corruption_constants((size, size)).name
    if corruption == "glass_blur":
        size = min(size, 48)  # pixel after pixel
    # Spectra as photographs have them, falling with the frequency.
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) + 1 / size
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(2, 3, size, size))) / frequency
    pictures = np.fft.ifft2(noise).real
    pictures = (128 + 50 * pictures / pictures.std()).clip(0, 255).round().transpose(0, 2, 3, 1)
    images = torch.from_numpy(pictures).to(torch.uint8)
    distances = [
        float((corrupt(images, corruption, severity, constants=constants).double() - images.double()).pow(2).mean())
        for severity in range(1, 6)
    ]
    assert min(distances) > 0
    if corruption in UNORDERED:
        assert distances[4] > distances[0], distances
    elif corruption not in NO_ORDER:
        assert all(later > earlier for earlier, later in itertools.pairwise(distances)), distances


def test_constants_go_by_the_nearest_published_size() -> None:
    sides = {8: "cifar-c", 28: "cifar-c", 32: "cifar-c", 45: "cifar-c", 46: "tiny-imagenet-c", 64: "tiny-imagenet-c"}
    sides |= {96: "tiny-imagenet-c", 119: "tiny-imagenet-c", 120: "imagenet-c", 224: "imagenet-c", 512: "imagenet-c"}
    for side, name in sides.items():
        assert corruption_constants((side, 2 * side)).name == name
    image = torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)
    stronger = corrupt(image, "impulse_noise", 5, constants="imagenet-c")
    assert int((stronger != image).sum()) > 2 * int((corrupt(image, "impulse_noise", 5) != image).sum())


def test_corruptions_that_cannot_be() -> None:
    images = smooth_images(1)
    with pytest.raises(ConfigError, match=r"no corruption 'impuls_noise'; did you mean 'impulse_noise'"):
        corrupt(images, "impuls_noise", 1)  # type: ignore[arg-type]
    for severity in (0, 6, -1):
        with pytest.raises(ConfigError, match=rf"severity {severity} of defocus_blur: severities are 1, 2, 3, 4 and 5"):
            corrupt(images, "defocus_blur", severity)
    with pytest.raises(ConfigError, match=r"no constants 'cifar'; did you mean 'cifar-c'"):
        corrupt(images, "defocus_blur", 1, constants="cifar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"uint8 N x H x W x C, got torch.float32"):
        corrupt(images.float(), "defocus_blur", 1)
    with pytest.raises(ValueError, match=r"one position an image, got \(2,\) for 1 images"):
        corrupt(images, "impulse_noise", 1, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        corrupt(images[..., :2], "jpeg_compression", 1)


# Testing on all of them


class Brightness(ImageDataModule):
    """Ten grey levels; a model that reads the mean grey is right on all of them."""

    def describe(self) -> ImageSet:
        return ImageSet("Brightness", ("dark", "light"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3, val_size=0.2)

    def load_split(self, split: str) -> SplitData:
        count = 40 if split == "train" else 23
        labels = torch.arange(count) % 2
        images = smooth_images(count) // 4 + (labels * 128).to(torch.uint8)[:, None, None, None]
        return SplitData(images, labels)


class MeanGrey(nn.Module):
    """Calls light what has a pixel above a threshold, so that salt turns dark images light."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.flatten(1).max(dim=1).values - 0.9
        return torch.stack((-light, light), dim=1)


class Another(GeneralizationSet):
    """The same two classes in the other order, 11 images; the first is of the wrong kind."""

    def __init__(self, name: str = "another", classes: Sequence[str] = ("light", "dark")) -> None:
        super().__init__(name)
        self.classes = classes

    def open(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> TestImages:
        from lightning_repshape.data.further import match_classes

        table = match_classes(self.name, self.classes, class_names)
        labels = table[torch.arange(11) % 2]
        images = torch.zeros(11, 32, 32, 3, dtype=torch.uint8)
        images[labels == 1] = 255
        images[0] = 0
        blocks = torch.cat([images] * 4 + [255 - images])
        return TestImages(labels, images, {"fog": blocks})


def test_errors_are_counted_by_set_corruption_and_severity() -> None:
    data, model = Brightness(eval_batch_size=4), MeanGrey()
    model.train()
    found = corruption_errors(model, data, ["impulse_noise", "defocus_blur"], [1, 5], [Another()])
    assert model.training
    kinds = [("clean", 0), *((kind, severity) for kind in ("impulse_noise", "defocus_blur") for severity in (1, 5))]
    expected = [("test", *kind) for kind in kinds] + [("another", *kind) for kind in [*kinds, ("fog", 1), ("fog", 5)]]
    assert [(count.set, count.corruption, count.severity) for count in found] == expected
    # By hand: corrupt, look for a white pixel, compare.
    images, labels = data.images("test"), data.labels("test")
    for count in found[:5]:
        seen = images if count.severity == 0 else corrupt(images, count.corruption, count.severity)  # type: ignore[arg-type]
        wrong = (seen.flatten(1).max(dim=1).values > 0.9 * 255).long() != labels
        assert (count.errors, count.images) == (int(wrong.sum()), 23)
    by_key = {count.key: count.errors for count in found}
    assert by_key["another/clean/error"] == 1 and by_key["another/fog/1/error"] == 1
    assert by_key["another/fog/5/error"] == 10
    assert {key for key in by_key if key.startswith("test/")} >= {"test/clean/error", "test/impulse_noise/5/error"}


def module_for(data: ImageDataModule) -> SupervisedModule:
    torch.manual_seed(0)
    return SupervisedModule(data.num_classes, data.input_shape, lambda shape: MLP(shape, widths=(8,)))


def test_the_callback_writes_logs_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Brightness(eval_batch_size=5)
    module = module_for(data)
    callback = Corruptions(severities=[2, 4], sets=[Another()])
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[callback], **options)  # type: ignore[arg-type]
    trainer.test(module, datamodule=data, verbose=False)
    counts = corruption_errors(module, data, severities=[2, 4], sets=[Another()])
    assert callback.counts == counts
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    for count in counts:
        assert metrics[f"test/corruptions/{count.key}"] == pytest.approx(count.error)
    assert metrics["test/corruptions/test/clean/error"] == pytest.approx(metrics["test/error"])
    own = [count.error for count in counts if count.set == "test" and count.severity]
    assert metrics["test/corruptions/mean_error"] == pytest.approx(sum(own) / 6)
    folder = tmp_path / "analysis"
    assert {path.name for path in folder.iterdir()} == {f"corruptions.{kind}" for kind in ("json", "csv", "png", "pdf")}
    rows = list(csv.DictReader((folder / "corruptions.csv").open()))
    assert [int(row["errors"]) for row in rows] == [count.errors for count in counts]
    written = json.loads((folder / "corruptions.json").read_text())
    assert written["constants"] == "cifar-c" and written["sets"]["another"]["images"] == 11
    assert written["sets"]["test"]["errors"]["impulse_noise"]["4"] == pytest.approx(own[1], abs=1e-6)
    assert "the images are 32 x 32" in written["notes"][0]
    printed = capsys.readouterr().out
    assert "test set of Brightness" in printed and "impulse noise" in printed and "another" in printed


def test_during_training_and_at_its_end(tmp_path: Path) -> None:
    data = DigitsDataModule(train_size=50)
    callback = Corruptions(["impulse_noise"], [5], when="fit", every_n_epochs=1, name="noise")
    states = []
    for callbacks in ([], [callback]):
        module = module_for(data)
        trainer = Trainer(
            max_epochs=1,
            default_root_dir=tmp_path,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(module, datamodule=data)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert (tmp_path / "analysis" / "epoch-001" / "noise.csv").is_file()
    assert float(trainer.callback_metrics["train/noise/mean_error"]) == pytest.approx(callback.counts[-1].error)


def test_sets_alone_and_bad_sets(tmp_path: Path) -> None:
    data = Brightness()
    assert [count.key for count in corruption_errors(MeanGrey(), data, [], sets=[Another()])] == [
        "test/clean/error",
        "another/clean/error",
        *(f"another/fog/{severity}/error" for severity in range(1, 6)),
    ]
    with pytest.raises(ConfigError, match="there is nothing to test"):
        Corruptions([])
    with pytest.raises(ConfigError, match="severities is empty"):
        Corruptions(severities=[])
    with pytest.raises(ConfigError, match="severity 7"):
        Corruptions(severities=[1, 7])
    with pytest.raises(ConfigError, match=r"did you mean 'jpeg_compression'\?"):
        Corruptions(["jpeg_compresion"])
    with pytest.raises(ConfigError, match=r"two further test sets are called 'another'"):
        Corruptions(sets=[Another(), Another()])
    for name in ("test", "", "a/b"):
        with pytest.raises(ConfigError, match="cannot be used"):
            Another(name)
    message = r"it lacks 'dark'; it has 2 classes \('darkk', 'grey'\) besides \('darkk'; did you mean 'dark'\?\)"
    callback = Corruptions(sets=[Another(classes=("light", "darkk", "grey"))])
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[callback], logger=False, accelerator="cpu")
    with pytest.raises(DataError, match=message):  # before anything runs
        trainer.test(module_for(data), datamodule=data, verbose=False)
    outcome = Corruptions().run(FeatureInputs({}))
    assert "need a model and images" in outcome.failure
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[Corruptions(sets=[Another()])], logger=False)
    with pytest.raises(DataError, match="need one of this package's image data modules"):
        trainer.test(module_for(data), data.test_dataloader(), verbose=False)


def test_without_an_image_data_module_the_test_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Brightness()
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[Corruptions()], logger=False, accelerator="cpu", enable_progress_bar=False
    )
    trainer.test(module_for(data), data.test_dataloader(), verbose=False)
    assert "one of this package's image data modules" in capsys.readouterr().err
    assert "failure" in json.loads((tmp_path / "analysis" / "corruptions.json").read_text())


# The command line, and several processes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "digits"
    words = ["--config", "quickstart", "--trainer.max_epochs", "2", "--run_dir", str(folder), "--then_test", "false"]
    assert main(["fit", *words, *QUIET]) == 0
    return folder


def digit_folder(root: Path) -> None:
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (20, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{number}.png")


def test_sets_corruptions_and_severities_in_one_call(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digit_folder(tmp_path / "new-digits")
    words = ["test", "--run_dir", str(trained), "--trainer.callbacks+=Corruptions"]
    words += ["--trainer.callbacks.severities=[1,5]", "--trainer.callbacks.sets+=ImageFolderSet"]
    assert main([*words, "--trainer.callbacks.sets.root=new-digits", *QUIET]) == 0, capsys.readouterr().err
    rows = list(csv.DictReader((trained / "analysis" / "corruptions.csv").open()))
    assert [row["set"] for row in rows] == ["test"] * 7 + ["new-digits"] * 7
    assert {row["images"] for row in rows[7:]} == {"30"}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["test/corruptions/test/clean/error"] == pytest.approx(metrics["test/error"])
    assert "test/corruptions/new-digits/defocus_blur/5/error" in metrics
    printed = capsys.readouterr().out
    assert "defocus blur" in printed and "defocus_blur/5" not in printed  # in the table of its own
    capsys.readouterr()
    assert main([*words, "--trainer.callbacks.sets.root=nowhere", *QUIET]) == 1
    assert (
        f"no folder {Path('nowhere').absolute()}; set root to the folder that holds <class>/<image>"
        in capsys.readouterr().err
    )


def test_analyze_corrupts_when_it_is_asked_to(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "--run_dir", str(trained), *QUIET, "--analyses", "corruptions"]
    assert main([*words, "--corruptions.corruptions", "[jpeg_compression]"]) == 0, capsys.readouterr().err
    page = (trained / "analysis" / "index.html").read_text()
    assert "Corrupted and further test sets" in page and "jpeg compression" in page
    rows = list(csv.DictReader((trained / "analysis" / "corruptions.csv").open()))
    assert [row["severity"] for row in rows] == ["0", "1", "2", "3", "4", "5"]


class Failing(Brightness):
    """Images that one process cannot read."""

    def images(self, split: str, index: Tensor | None = None) -> Tensor:  # type: ignore[override]
        raise DataError("the disk is gone")


def rank_counts(rank: int, world_size: int, failing: bool) -> list[tuple[Any, ...]] | str:
    """What the callback counts on a rank, with what it needs of a trainer."""

    def reduce(tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        if world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    data = (Failing if failing and rank == 1 else Brightness)(eval_batch_size=4)
    strategy = SimpleNamespace(reduce=reduce)
    trainer = SimpleNamespace(datamodule=data, world_size=world_size, global_rank=rank, strategy=strategy)
    trainer.precision_plugin = Precision()
    callback = Corruptions(severities=[1, 5], sets=[Another()])
    outcome = callback.run(TrainerInputs(trainer, module_for(data)))  # type: ignore[arg-type]
    return outcome.failure or [tuple(count) for count in callback.counts]


def test_processes_count_what_one_counts(gloo: GlooPool) -> None:
    one = rank_counts(0, 1, False)
    assert isinstance(one, list) and len(one) == 16
    assert gloo.run(rank_counts, False) == [one, one]
    assert gloo.run(rank_counts, True) == ["the disk is gone"] * 2  # said by both, and none waits for the other


def test_a_folder_as_a_test_set(tmp_path: Path) -> None:
    digit_folder(tmp_path / "set")
    names = tuple(str(label) for label in reversed(range(10)))
    read = ImageFolderSet(str(tmp_path / "set"), fit="crop", name="mine").open(names, (1, 8, 8))
    assert read.images is not None and read.images.shape == (30, 8, 8, 1)
    assert read.labels.tolist() == [label for label in reversed(range(10)) for _ in range(3)]
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigError, match=r"the name 'test' cannot be used; set name to one without"):
        ImageFolderSet(str(tmp_path / "test"))
    for path in (tmp_path / "set" / "4").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no images in the class folder .*4; fill or remove it"):
        ImageFolderSet(str(tmp_path / "set")).open(names, (1, 8, 8))
    (tmp_path / "set" / "4").rmdir()
    with pytest.raises(DataError, match=r"the folder .*set has other classes than the model: it lacks '4'\."):
        ImageFolderSet(str(tmp_path / "set")).open(names, (1, 8, 8))
    with pytest.raises(ConfigError, match=r"fit='squash'"):
        ImageFolderSet(str(tmp_path / "set"), fit="squash")  # type: ignore[arg-type]
