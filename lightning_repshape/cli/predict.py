"""``predict --images``: what a trained model takes images of one's own for, without its training data."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lightning_repshape import plots
from lightning_repshape.cli.options import images_parser
from lightning_repshape.cli.parsing import given_device
from lightning_repshape.data.preprocessing import Preprocessing, find_images
from lightning_repshape.errors import ConfigError
from lightning_repshape.export import RepshapeModel
from lightning_repshape.runs.files import csv_text
from lightning_repshape.runs.folders import claim_folder, folder_name, given_path, is_run_folder
from lightning_repshape.runs.predictions import top_cells, top_header, write_table
from lightning_repshape.terminal.progress import shown_in_terminal, task

_AT_ONCE = 64
_ON_SHEET = 64  # thumbnails
_PRINTED = 10  # images whose classes are shown in the terminal
_THUMBNAIL = 180  # pixels of the longer side
_NAME = 20  # letters that fit below a thumbnail


def read_model(options: Any, command: str) -> RepshapeModel:
    """The model that the options of ``predict --images`` and ``export`` mean."""
    run, checkpoint = options.run_dir, options.ckpt_path
    which = checkpoint if checkpoint in ("best", "last") else "best"
    source = run if checkpoint in (None, "best", "last") else checkpoint
    if source is None:
        raise ConfigError(f"{command} needs trained weights: give --run_dir RUN, or --ckpt_path FILE")
    return RepshapeModel.from_run(source, which, trust=options.trust)


def run(words: list[str]) -> int:
    """Runs ``predict`` with ``--images``; returns 0."""
    options = images_parser().parse_args(words)
    header = top_header(options.top)
    images = given_path(options.images or "", "--images")
    paths = find_images(images)
    model = read_model(options, "predict")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    model.to(given_device(device))
    found: list[list[tuple[str, float]]] = []
    with shown_in_terminal(), task("images", len(paths)) as advance:
        for start in range(0, len(paths), _AT_ONCE):
            found += model.top(paths[start : start + _AT_ONCE], options.top)
            advance(_AT_ONCE)
    folder = _folder(model, options, images)
    shown = [path if images.is_file() else str(Path(path).relative_to(images)) for path in paths]
    table = folder / f"predictions-{folder_name(images.resolve().stem)}.csv"
    cells = [top_cells([name for name, _ in best], [value for _, value in best], options.top) for best in found]
    write_table(table, ("image", *header), [(path, *row) for path, row in zip(paths, cells, strict=True)])
    some = paths[:_ON_SHEET]
    captions = [
        f"{_short(best[0][0])}  {100 * best[0][1]:.0f} %\n{_short(Path(path).name)}"
        for path, best in zip(some, found, strict=False)
    ]
    title = f"{len(paths):,} images" if len(some) == len(paths) else f"the first {len(some)} of {len(paths):,} images"
    title = "" if len(paths) == 1 else title
    pictures = [_thumbnail(path, model.preprocessing) for path in some]
    sheet = plots.save_figure(plots.contact_sheet(pictures, captions, title), table.with_suffix(".png"), vector=False)
    _print(shown, found, options.top)
    console = Console()
    console.print(f"predictions: {table}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"contact sheet: {sheet}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _folder(model: RepshapeModel, options: Any, images: Path) -> Path:
    """The run's folder; of an export or a checkpoint on its own, a new one."""
    run = Path(options.run_dir) if options.run_dir and is_run_folder(options.run_dir) else model.origin.run
    return run if run is not None else claim_folder(Path("runs") / folder_name(f"{images.resolve().stem}+predict"))


def _thumbnail(path: str, preprocessing: Preprocessing) -> Any:
    """The image as it is, but small: uint8 H x W x 3."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        width, height = (ImageOps.exif_transpose(opened) if preprocessing.exif else opened).size
    scale = _THUMBNAIL / max(width, height, _THUMBNAIL)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    grey = preprocessing.input_shape[0] == 1
    files = Preprocessing((), (1 if grey else 3, rows, columns), (), (), exif=preprocessing.exif).files([path])
    return np.repeat(files.decode_one(path), 3, axis=2) if grey else files.decode_one(path)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def _print(paths: list[str], found: list[list[tuple[str, float]]], top: int) -> None:
    """A table of the first images."""
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    for number in range(1, min(top, len(found[0])) + 1):
        table.add_column("class" if number == 1 else f"{number}.", overflow="fold")
        table.add_column("%", justify="right")
    for path, best in list(zip(paths, found, strict=True))[:_PRINTED]:
        cells = [cell for name, value in best for cell in (csv_text(name), f"{100 * value:.1f}")]
        table.add_row(path, *cells)
    console = Console(highlight=False, markup=False)
    console.print(table)
    if len(paths) > _PRINTED:
        console.print(f"... and {len(paths) - _PRINTED:,} more")
