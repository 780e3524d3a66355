"""scikit-learn's handwritten digits, the set that needs no download."""

from typing import Literal

import torch

from lightning_repshape.data.module import ImageDataModule, ImageSet, SplitData, SplitName, stratified
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
        batch_size: Training images a batch (of each rank). Default: 128.
        eval_batch_size: Validation, test and prediction images a batch. Default: 1000.
        val_size: Images (int) or share (float below 1) of the 1,497 that become the validation part; 0: none. Default:
            None, 300.
        val_split: Which these are: the "last" ones, or a "stratified" draw by ``split_seed``. Default: None,
            "stratified".
        train_size: Use only this many training images. Default: None, all.
        train_subset: Which these are: the "first" ones, or "per-class", which draws ``train_size`` images of every
            class. Default: "first".
        classes: Use only the first n classes, or those named, in this order. Default: None, all.
        renumber: Whether the labels of the chosen ``classes`` are counted from 0. Default: True.
        augment: "none", "flip", "shift" or "crop-flip", as in :class:`ImageDataModule`. Default: "none".
        crop_padding: Pixels by which "shift" and "crop-flip" move an image at most. Default: 1.
        normalize: "standard" or "unit". Default: "standard".
        drop_last: Whether to leave out the last training batch where it is smaller. Default: False.
        num_workers: Worker processes that fetch the images. Default: 0.
        seed: Seed of shuffling and augmentation. Default: None, the run's seed.
        split_seed: Seed of the validation draw and of ``train_subset="per-class"``. Default: 0.

    Raises:
        ConfigError: An option or a class that cannot be.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float | None = None,
        val_split: Literal["last", "stratified"] | None = None,
        train_size: int | None = None,
        train_subset: Literal["first", "per-class"] = "first",
        classes: int | list[str | int] | None = None,
        renumber: bool = True,
        augment: Literal["none", "flip", "shift", "crop-flip"] = "none",
        crop_padding: int = 1,
        normalize: Literal["standard", "unit"] = "standard",
        drop_last: bool = False,
        num_workers: int = 0,
        seed: int | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            val_split=val_split,
            train_size=train_size,
            train_subset=train_subset,
            classes=classes,
            renumber=renumber,
            augment=augment,
            crop_padding=crop_padding,
            normalize=normalize,
            drop_last=drop_last,
            num_workers=num_workers,
            seed=seed,
            split_seed=split_seed,
        )

    def _describe(self) -> ImageSet:
        return DIGITS

    def _load(self, split: SplitName) -> SplitData:
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
