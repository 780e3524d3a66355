"""The options of ``compare``, ``export`` and ``predict --images``, which nothing heavy is imported for."""

import argparse
from typing import Any

from lightning_repshape.cli.plain import PlainParser

CHECKPOINTS = ("best", "last", "none")
BASES = {
    "DigitsDataModule": "digits-mlp",
    "MNISTDataModule": "mnist-mlp",
    "CIFAR10DataModule": "cifar10-focanet-small",
    "CIFAR100DataModule": "cifar100-cnn",
    "STL10DataModule": "stl10-resnet18",
    "TinyImageNetDataModule": "tiny-imagenet-resnet18",
}

_COMPARE = """\
Puts models side by side that were tested on the same samples: figures of the test and of all analyses, features in one
aligned view, heads on few images, differences of errors with intervals, similarity of features and layers, cost.

  lightning-repshape compare runs/plain runs/foca                     two runs (their best checkpoints)
  lightning-repshape compare ours=runs/a theirs=features.npz          runs and saved features, with names
  lightning-repshape compare runs/a:best runs/a:last runs/a@fc1       checkpoints (none: untrained); another layer
  lightning-repshape compare quickstart                               a study: what is not trained yet is trained first
  lightning-repshape compare --methods plain,cw-vr,foca --data MNISTDataModule -- --data.root data

Behind '--' stand options of the training (data.root, trainer.accelerator, ...), or where nothing is trained of analyze
(lda.label, data.root, trainer.accelerator, ...). Files of features need the arrays test_features, test_labels, and
test_ids: a number or name for each test sample, the same in all files. The page, its figures, comparison.json and
figures.csv go to comparisons/NAME.
"""
_EXPORT = """\
Writes a trained model for other programs: safetensors (weights, with a config and a model card), ONNX, and a program of
torch.export. Each is held against the original, and all is written or nothing."""
# A test holds the names against the formats themselves, whose import takes seconds.
FORMATS = ("safetensors", "onnx", "torch")


def compare_parser() -> PlainParser:
    """Of ``compare``; what stands behind ``--`` is not for it."""
    parser = PlainParser(
        prog="lightning-repshape compare", description=_COMPARE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", metavar="[NAME=]MODEL[:CHECKPOINT][@LAYER]",
        help="a run's folder, a checkpoint in one, a file of features (.npz, .safetensors); or a study alone",
    )  # fmt: skip
    parser.add_argument("--layer", default="features", help="the activation of all runs (default: features)")
    parser.add_argument(
        "--ckpt_path",
        choices=CHECKPOINTS,
        default="best",
        help="of run folders (default: best; none: untrained weights)",
    )
    parser.add_argument(
        "--analyses", metavar="LIST", help="some of them, such as lda,my_file.MyAnalysis (as in analyze)"
    )
    parser.add_argument(
        "--other", metavar="SET",
        help="a second set, for transfer and as out of distribution: of runs a data module, with its options as "
        "--other.NAME; of files of features a file (or --transfer)",
    )  # fmt: skip
    parser.add_argument("--to", metavar="FOLDER", help="where the page goes (default: comparisons/NAME)")
    parser.add_argument(
        "--same_samples", action="store_true",
        help="files without test_ids hold the same samples in the same order",
    )  # fmt: skip
    parser.add_argument("--trust", action="store_true", help="import what the runs' own configs name")
    training = parser.add_argument_group("training what is compared")
    training.add_argument("--methods", metavar="LIST", help="recommended/NAME, else method/NAME: plain,cw-vr,foca")
    training.add_argument(
        "--data", metavar="CLASS", help=f"with --methods: {', '.join(BASES)}; chooses the base (default: digits)"
    )
    training.add_argument("--base", metavar="NAME", help="with --methods: another base, such as mnist-lenet")
    training.add_argument("--out", default="studies", metavar="FOLDER", help="of the runs (default: studies)")
    training.add_argument("--budget", default="1", metavar="PART", help="fraction of the epochs (default: 1)")
    training.add_argument("--jobs", metavar="N", help="trainings at once (default: as many as cores, on a GPU 1)")
    training.add_argument("--filter", action="append", default=[], metavar="WORDS", help="only these rows of a study")
    return parser


def export_parser() -> PlainParser:
    """Of ``export``."""
    parser = _source_parser("export", _EXPORT)
    parser.add_argument(
        "--format",
        default="safetensors",
        metavar="LIST",
        help=f"some of {', '.join(FORMATS)}, with commas between them (default: safetensors)",
    )
    parser.add_argument("--to", metavar="FOLDER", help="where to (default: export in the run's folder)")
    parser.add_argument(
        "--samples",
        type=int,
        default=64,
        metavar="N",
        help="images on which each is held against the original (default: 64)",
    )
    return parser


def images_parser() -> PlainParser:
    """Of ``predict`` with ``--images``."""
    parser = _source_parser("predict", "Predicts the classes of images of any sizes.")
    add_image_options(parser, str)
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU if there is one)")
    return parser


def add_image_options(parser: Any, text: Any) -> None:
    """Adds what ``predict`` takes besides the trainer's options; ``text`` is the parser's type of what may be None."""
    parser.add_argument(
        "--images",
        type=text,
        default=None,
        metavar="PATH",
        help="An image, or a folder of images, of any sizes and without labels, to be predicted in place of the test "
        "images; the training data are not needed. Writes predictions-NAME.csv and a contact sheet, "
        "predictions-NAME.png, into the run's folder.",
    )
    parser.add_argument("--top", type=int, default=1, help="How many of the most probable classes a row holds.")


def _source_parser(command: str, about: str) -> PlainParser:
    """A parser with the options on which trained model is meant."""
    parser = PlainParser(
        prog=f"lightning-repshape {command}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run_dir", metavar="RUN", help="the run's folder, or that of an export")
    parser.add_argument("--ckpt_path", metavar="FILE", help="a file, best or last (default: best)")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import what the run names of other packages than this one, PyTorch and Lightning",
    )
    return parser


LIGHT = {"compare": compare_parser, "export": export_parser}  # their helps, by command
