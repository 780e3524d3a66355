"""Draws test images under every corruption (rows) and severity (columns).

Usage: python docs/examples/corruption_sheet.py CIFAR10DataModule --root data --images 6 --out docs/figures/x.png
"""

import argparse
from pathlib import Path

import torch

import lightning_repshape
from lightning_repshape.data import CORRUPTIONS, SEVERITIES, corrupt
from lightning_repshape.plots import corruptions_sheet, save_figure


def main() -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="Name of a data module.")
    parser.add_argument("--root", default="data", help="Its root folder.")
    parser.add_argument("--images", type=int, nargs="+", default=[0], help="Positions in the test set.")
    parser.add_argument("--out", type=Path, default=Path("corruptions.png"), help="The PNG file.")
    options = parser.parse_args()
    data = getattr(lightning_repshape, options.data)(root=options.root)
    rows = {}
    for position in options.images:
        index = torch.tensor([position])
        image = data.images("test", index)
        for corruption in CORRUPTIONS:
            versions = [corrupt(image, corruption, severity, index) for severity in SEVERITIES]
            name = corruption.replace("_", " ") + (f" ({position})" if len(options.images) > 1 else "")
            rows[name] = [picture[0].numpy() for picture in (image, *versions)]
    headings = ["clean", *(f"severity {severity}" for severity in SEVERITIES)]
    print(save_figure(corruptions_sheet(rows, headings), options.out, vector=False))


if __name__ == "__main__":
    main()
