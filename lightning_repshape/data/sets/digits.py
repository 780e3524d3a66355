"""scikit-learn's handwritten digits, the set that needs no download."""

from typing import Any

import torch

from lightning_repshape.data.choosing import stratified
from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName
from lightning_repshape.seeding import key_to_seed

DIGITS = ImageSet(
    name="Digits",
    class_names=tuple("0123456789"),
    input_shape=(1, 8, 8),
    mean=(0.3053,),
    std=(0.3761,),
    val_size=300,
    val_split="stratified",
    largest=1797,
)
_TEST_SIZE = 300


class DigitsDataModule(ImageDataModule):
    """The 1,797 grey 8 x 8 handwritten digits that scikit-learn carries.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits". 300 test images are a fixed stratified
    draw, the same whatever the options; of the other 1,497, 300 are the validation part by default (stratified, by
    ``split_seed``), which leaves 1,197 to train on. A pixel's value 0..16 becomes uint8 as ``round(255 v / 16)``, one
    to one.

    Args:
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most.
        **kwargs: Every other option of :class:`ImageDataModule`, except those of sets on the disk: ``root``,
            ``download``, ``memory_budget_gb`` and ``cache_dir``.
    """

    def __init__(self, *, crop_padding: int = 1, **kwargs: Any) -> None:
        super().__init__(
            root="data", crop_padding=crop_padding, download=False, memory_budget_gb=4.0, cache_dir=None, **kwargs
        )

    def describe(self) -> ImageSet:
        """Names, shape and defaults, known before anything is read."""
        return DIGITS

    def load_split(self, split: SplitName) -> SplitData:
        """Reads a split as published."""
        from sklearn.datasets import load_digits

        values, targets = load_digits(return_X_y=True)
        labels = torch.from_numpy(targets).long()
        images = (torch.from_numpy(values) * (255 / 16)).round().to(torch.uint8).view(-1, 8, 8, 1)
        rows = stratified(labels, _TEST_SIZE, key_to_seed("digits-test"))
        if split == "train":
            left = torch.ones(len(labels), dtype=torch.bool)
            left[rows] = False
            rows = left.nonzero().flatten()
        return SplitData(images[rows], labels[rows], [f"digits/{row:05d}" for row in rows.tolist()])
