"""Corrupted images a second, by corruption and image size; the test set is corrupted batch by batch while it is tested.

"store" fetches the images from the uint8 store and does nothing to them: what a clean test pays.
"""

from collections.abc import Callable

import timing
import torch

from lightning_repshape.data import CORRUPTIONS, ImageStore, corrupt


def main() -> None:
    """Measures and prints."""
    options = timing.arguments(__doc__)
    sizes, count = ((32,), 200) if options.quick else ((32, 64, 96), 1000)
    rows = []
    for size in sizes:
        coarse = torch.rand(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
        pictures = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        images = (255 * pictures).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        store, index = ImageStore(images), torch.arange(count)
        candidates: dict[str, Callable[[], object]] = {"store": lambda store=store, index=index: store.gather(index)}
        for corruption in CORRUPTIONS:
            for severity in (1, 5):
                candidates[f"{corruption} {severity}"] = lambda c=corruption, s=severity, i=images: corrupt(i, c, s)
        clock = timing.processor_clock(options)
        seconds = timing.interleaved(candidates, repeats=3 if options.quick else 5, clock=clock)
        for name, value in seconds.items():
            rows.append({"size": f"{size} x {size}", "version": name, "images/s": round(count / value)})
    timing.report("corrupted images a second, in one thread", rows)


if __name__ == "__main__":
    main()
