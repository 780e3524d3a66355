"""Maps of samples to hover over: which image it is, its class, and what the model takes it for; drawn by Bokeh."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_repshape.analyses.inputs import Split
from lightning_repshape.analyses.result import Outcome
from lightning_repshape.errors import ConfigError, RepshapeError
from lightning_repshape.features.reader import Unpack
from lightning_repshape.features.store import analysis_loader
from lightning_repshape.plots.kit import colour, name_of
from lightning_repshape.runs.files import written_atomically

FILE = "points.html"
_MOST = 2000  # samples of a map, which is sent with their images
_SIDE = 48  # pixels of a thumbnail
_LISTED = 20  # classes that fit the legend
_TIP = """<div style="font: 13px sans-serif; max-width: 20rem">{picture}
<div><b>@true</b></div><div>@said</div><div style="color: #777">sample @row</div></div>"""
_PICTURE = '<img src="@image" alt="" style="width: 96px; image-rendering: pixelated">'

Thumbnails = Callable[[Split, Tensor], Sequence[str]]
"""URIs of a split's samples at some positions."""


def check_bokeh() -> None:
    """Raises a ConfigError if Bokeh is not installed."""
    try:
        import bokeh.plotting  # noqa: F401
    except ImportError as error:
        raise ConfigError("--interactive needs Bokeh, which is not installed: pip install bokeh") from error


def write_maps(path: Path, title: str, outcomes: Sequence[Outcome], thumbnails: Thumbnails | None) -> Path | None:
    """Writes one page with a map for each outcome that has points (principal components, t-SNE).

    The page holds everything, Bokeh's own 1.3 MB included. Returns its path; None, and no file, if there are no points.
    """
    from bokeh.embed import file_html
    from bokeh.layouts import column
    from bokeh.resources import INLINE

    found = [one for one in outcomes if one.result is not None and {"points", "rows"} <= one.result.arrays.keys()]
    if not found:
        return None
    page = column([_map(outcome, thumbnails) for outcome in found], sizing_mode="stretch_width")
    text = file_html(page, INLINE, title)
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _map(outcome: Outcome, thumbnails: Thumbnails | None) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.models.annotations import Legend
    from bokeh.plotting import figure

    assert outcome.result is not None
    arrays: Mapping[str, Any] = outcome.result.arrays
    names, split = outcome.result.content["class_names"], outcome.result.content["split"]
    kept = np.linspace(0, len(arrays["rows"]) - 1, min(_MOST, len(arrays["rows"]))).astype(int)
    points, labels, rows = (arrays[name][kept] for name in ("points", "point_labels", "rows"))
    predicted = arrays["predicted"][kept] if "predicted" in arrays else labels
    images = None if thumbnails is None else thumbnails(split, torch.from_numpy(rows))
    heading = f"{outcome.title}: {len(rows):,} {split} samples (hover over one; scroll to enlarge)"
    tools = "pan,wheel_zoom,box_zoom,reset,save"
    drawn: Any = figure(height=640, sizing_mode="stretch_width", title=heading, tools=tools, active_scroll="wheel_zoom")
    present = np.unique(labels).tolist()
    if len(present) <= _LISTED:
        drawn.add_layout(Legend(click_policy="hide"), "right")
    right = (predicted == labels) | (labels < 0)
    told = [
        f"taken for {name_of(names, int(label))}" + ("" if true < 0 else f" ({'right' if own else 'wrong'})")
        for own, label, true in zip(right, predicted, labels, strict=True)
    ]
    said = np.array(told if "predicted" in arrays else [""] * len(labels))
    dots: list[Any] = []
    for number, label in enumerate(present):
        mine = labels == label
        data = {
            "x": points[mine, 0],
            "y": points[mine, 1],
            "row": rows[mine],
            "true": [name_of(names, label)] * int(mine.sum()),
            "said": said[mine],
            "edge": np.where(right[mine], colour(number), "#000000"),
        }
        if images is not None:
            data["image"] = [images[place] for place in np.flatnonzero(mine).tolist()]
        look: dict[str, Any] = {"legend_label": name_of(names, label)} if len(present) <= _LISTED else {}
        look |= {"size": 7, "fill_color": colour(number), "fill_alpha": 0.7, "line_color": "edge"}
        dots.append(drawn.scatter("x", "y", source=ColumnDataSource(data), **look))
    tip = _TIP.format(picture="" if images is None else _PICTURE)
    drawn.add_tools(HoverTool(renderers=dots, tooltips=tip, point_policy="snap_to_data"))
    return drawn


def thumbnails_of(trainer: Trainer, unpack: Unpack) -> Thumbnails:
    """Small pictures of a trainer's images, empty URIs where samples are no images of one or three channels."""

    def take(split: Split, rows: Tensor) -> list[str]:
        raw = getattr(getattr(trainer, "datamodule", None), "images", None)
        if callable(raw):
            return [_uri(image.permute(2, 0, 1).float()) for image in raw(split, rows)]
        try:
            data = analysis_loader(trainer, split).dataset
            return [_uri(data[row][unpack[0]]) for row in rows.tolist()]
        except (RepshapeError, TypeError, KeyError, IndexError):
            return [""] * len(rows)

    return take


def _uri(image: Any) -> str:
    """A picture C x H x W of any range as a URI; empty where it is none."""
    from PIL import Image

    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] not in (1, 3):
        return ""
    pixels = image.detach().cpu().float()
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / (high - low).clamp(min=1e-12) * 255).byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(grey.squeeze(-1) if grey.shape[-1] == 1 else grey)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    kind = "png" if grey.shape[-1] == 1 else "jpeg"
    picture.save(file, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
