"""Input: images a second of crop + flip + normalise, against torchvision and PIL per sample, and against the limit.

The images are random, of CIFAR-10's size. "limit" fetches the batch and casts it to float32, without augmentation and
normalisation.
"""

from pathlib import Path

import torch
from timing import arguments, interleaved, report
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_repshape.data import ImageDataModule, ImageLoader, ImageSet, SplitData
from lightning_repshape.data.module import SplitName


class RandomImages(ImageDataModule):
    """Random images of CIFAR-10's size; ``root`` states how many."""

    def describe(self) -> ImageSet:
        """CIFAR-10's size."""
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        return ImageSet("random", tuple("0123456789"), (3, 32, 32), mean, std, largest=50_000)

    def load_split(self, split: SplitName) -> SplitData:
        """Random images."""
        count = int(Path(self.root).name)
        source = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=source)
        return SplitData(images, torch.randint(0, 10, (count,), generator=source))


class PerSample(Dataset[tuple[Tensor, int]]):
    """What users do today: torchvision's transforms on PIL images, one by one."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        from torchvision import transforms

        self.images, self.labels = images.numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, augmented and normalised."""
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def main() -> None:
    """Prints the table."""
    options = arguments(__doc__ or "")
    device = torch.device(options.device)
    count = 10_000 if options.quick else 50_000
    few = 1_000 if options.quick else 2_000  # enough for the slow way
    repeats = 3 if options.quick else 5
    rows: list[dict[str, object]] = []
    for batch_size in (100, 500):
        ours = RandomImages(root=str(count), batch_size=batch_size, augment="crop-flip")
        plain = RandomImages(root=str(count), batch_size=batch_size)
        workers = RandomImages(root=str(count), batch_size=batch_size, augment="crop-flip", num_workers=2)
        workers.setup("fit")
        loader = workers.train_dataloader()
        images, labels = plain.images("train"), plain.labels("train")
        flat = images.view(count, -1)
        slow = {
            n: DataLoader(
                PerSample(images[:few], labels[:few]),
                batch_size=batch_size,
                shuffle=True,
                num_workers=n,
                persistent_workers=n > 0,
            )
            for n in (0, 2)
        }

        def limit(flat: Tensor = flat, batch_size: int = batch_size) -> None:
            for index in torch.randperm(count).split(batch_size):
                _ = flat.index_select(0, index).to(device).to(torch.float32)

        def per_sample(loader: DataLoader[tuple[Tensor, int]]) -> None:
            for x, _ in loader:
                _ = x.to(device)

        def epoch(module: RandomImages) -> None:
            for _ in module.batches("train", device):
                pass

        def epoch_with_workers(loader: ImageLoader = loader) -> None:
            for batch in loader:
                _ = batch.to(device)

        seconds = interleaved(
            {
                "limit": limit,
                "ours, not augmented": lambda module=plain: epoch(module),
                "ours": lambda module=ours: epoch(module),
                "ours, 2 workers": epoch_with_workers,
                "PIL, 0 workers": lambda loader=slow[0]: per_sample(loader),
                "PIL, 2 workers": lambda loader=slow[2]: per_sample(loader),
            },
            repeats=repeats,
            min_seconds=0.01,
        )
        rate = {name: (few if "PIL" in name else count) / spent for name, spent in seconds.items()}
        rows += [
            {
                "way": name,
                "batch": batch_size,
                "images/s": f"{value:,.0f}",
                "x PIL, 0 workers": value / rate["PIL, 0 workers"],
                "x PIL, 2 workers": value / rate["PIL, 2 workers"],
                "limit / it": rate["limit"] / value,
            }
            for name, value in rate.items()
        ]
    report("Input: crop + flip + normalise, 32 x 32 colour", rows)


if __name__ == "__main__":
    main()
