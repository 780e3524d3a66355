"""A comparison as a page, figures, JSON and CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightning_repshape import page, plots
from lightning_repshape.analyses.headline import Headline, headlines
from lightning_repshape.analyses.result import plain
from lightning_repshape.comparisons.comparison import Comparison
from lightning_repshape.comparisons.pictures import pictures
from lightning_repshape.page import Card, Section, Shown, Strong
from lightning_repshape.plots import save_figure
from lightning_repshape.runs.files import csv_text, plain_number, write_json, written_atomically
from lightning_repshape.runs.folders import folder_name, make_folder
from lightning_repshape.terminal.printing import figure_text

PAGE = "index.html"
FIGURES = "figures.csv"
RECORD = "comparison.json"
_NONE = "–"
_COSTS = {
    "train_seconds": ("training", "{:,.0f} s"),
    "steps": ("steps", "{:,.0f}"),
    "step_seconds": ("a step", "{:.2g} s"),
    "memory_mb": ("peak memory", "{:,.0f} MB"),
    "parameters": ("parameters", "{:,.0f}"),
}


def headline_rows(comparison: Comparison, asked: Sequence[str] = ()) -> list[tuple[Headline, tuple[float, ...]]]:
    """The figures that matter most, and some of analyses that were asked for by name, and each model's value."""
    known = {name: next((v for v in values if v == v), math.nan) for name, values in comparison.scalars.items()}
    found = headlines(known, len(comparison.contenders[0].class_names), most=6, asked=asked)
    return [(one, comparison.scalars[one.name]) for one in found]


def best_of(values: Sequence[float], better: str) -> set[int]:
    """Positions of the best values; none where all are the same or there is no better."""
    known = [value for value in values if value == value]
    if not better or len(set(known)) < 2:
        return set()
    best = min(known) if better == "lower" else max(known)
    return {at for at, value in enumerate(values) if value == best}


def write_comparison(comparison: Comparison, folder: str | Path, about: Sequence[str] = ()) -> Path:
    """Writes ``index.html``, its figures as PNG and PDF, ``comparison.json`` and ``figures.csv``; returns the page.

    Args:
        comparison: What to write.
        folder: Where; files of the same names are replaced.
        about: Lines on what was compared, for the page.
    """
    target = make_folder(folder)
    write_json(target / RECORD, plain(_record(comparison)))
    with written_atomically(target / FIGURES) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([csv_text(text) for text in ("figure", *comparison.names)])
        for name, values in comparison.scalars.items():
            rows.writerow([csv_text(name), *("" if value != value else plain_number(value) for value in values)])
    sections = [
        _features(comparison, target),
        _retraining(comparison, target),
        _errors(comparison),
        *_further(comparison, target),
        _similarity(comparison, target),
        _everything(comparison),
        _cost(comparison),
        _models(comparison),
    ]
    text = page.document(
        f"Comparison of {', '.join(comparison.names)}",
        [section for section in sections if section is not None],
        about=about,
        cards=_cards(comparison),
    )
    with written_atomically(target / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target / PAGE


def _cards(comparison: Comparison) -> list[Card]:
    cards = []
    for line, values in headline_rows(comparison)[:5]:
        at = min(best_of(values[1:], line.better), default=0) + 1  # the best of the others
        shown = " → ".join(figure_text(line.name, values[number]) for number in (0, at))
        whose = f"{comparison.names[0]} → {comparison.names[at]}. "
        cards.append(Card(line.label, shown, whose + line.meaning, line.source))
    return cards


def aligned(comparison: Comparison) -> Any:
    """The features of all models side by side."""
    panels = {name: points.numpy() for name, points in zip(comparison.names, comparison.points, strict=True)}
    first = comparison.contenders[0]
    return plots.aligned_figure(panels, comparison.labels.numpy(), first.class_names)


def _features(comparison: Comparison, folder: Path) -> Section:
    picture = save_figure(aligned(comparison), folder / "features.png")
    text = (
        f"The same {len(comparison.labels):,} test samples in the plane of the first two principal components of each "
        "model's features, scaled to the same spread and turned to lie as the first model's do."
    )
    return Section(
        "features", "Features", [*page.gallery([Shown(picture, "features side by side")]), page.paragraph(text)]
    )


def _retraining(comparison: Comparison, folder: Path) -> Section | None:
    curves, joint, rows = {}, {}, []
    for contender in comparison.contenders:
        found = contender.content("partial_retraining")
        if not found:
            continue
        sizes, mean, std = (np.asarray(found[key]) for key in ("sizes", "mean", "std"))
        curves[contender.name] = (sizes, mean, std)
        if found["joint_error"] is not None:
            joint[contender.name] = found["joint_error"]
        own = dict(zip(found["sizes"], mean.tolist(), strict=True))
        rows.append((contender.name, own, found["joint_error"]))
    if not curves:
        return None
    picture = save_figure(plots.partial_retraining_figure(curves, joint or None), folder / "retraining.png")
    known = sorted({size for _, own, _ in rows for size in own})
    cells = [[name, *(_percent(own.get(size)) for size in known), _percent(whole)] for name, own, whole in rows]
    text = (
        "Test error of fresh heads on frozen features against how many training images they saw: a flat curve says "
        "that few images tell as much as all (Sato et al., ICML 2019, Figure 2)."
    )
    headers = ["heads on n' =", *(f"{size:,}" for size in known), "the model itself"]
    table = page.table(headers, _best_of_columns(cells), [False] + [True] * (len(headers) - 1))
    return Section(
        "retraining", "Heads on few images",
        [*page.gallery([Shown(picture, "test error of retrained heads")]), page.paragraph(text), *table],
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return _NONE if value is None or value != value else f"{100 * value:.2f} %"


def _best_of_columns(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Sets the lowest value of each column but the first in bold."""
    shown = [list(row) for row in cells]
    for column in range(1, len(shown[0])):
        values = [float(row[column].split()[0]) if row[column] != _NONE else math.nan for row in shown]
        for at in best_of(values, "lower"):
            shown[at][column] = Strong(shown[at][column])
    return shown


def _errors(comparison: Comparison) -> Section | None:
    if not comparison.differences:
        return None
    error = dict(zip(comparison.names, comparison.scalars["test/error"], strict=True))
    rows = []
    for (first, second), found in comparison.differences.items():
        middle, low, high = (f"{100 * value:+.2f}".replace("-", "−") for value in found)
        sure = "no" if found.low <= 0 <= found.high else "yes"
        rows.append([first, second, _percent(error[first]), _percent(error[second]), middle, f"{low} to {high}", sure])
    text = (
        "95 % intervals of a paired bootstrap over the test samples (Efron 1979): how sure the difference is for these "
        "two trainings on other test samples. How much trainings with other seeds differ, it does not know."
    )
    headers = [
        "first",
        "second",
        "error of first",
        "error of second",
        "difference, points",
        "95 % interval",
        "beyond 0",
    ]
    return Section(
        "errors", "Differences of errors",
        [page.paragraph(text), *page.table(headers, rows, [False, False, True, True, True, True, False])],
    )  # fmt: skip


def _further(comparison: Comparison, folder: Path) -> list[Section]:
    """What several models' analyses and trainings left to draw."""
    shown: dict[str, list[Shown]] = {}
    for picture in pictures(comparison):
        png = save_figure(picture.figure, folder / f"{picture.name}.png")
        shown.setdefault(picture.section, []).append(Shown(png, picture.alt))
    return [Section(folder_name(title.lower()), title, page.gallery(figures)) for title, figures in shown.items()]


def _similarity(comparison: Comparison, folder: Path) -> Section:
    names = list(comparison.names)
    pictures = [
        Shown(
            save_figure(
                plots.similarity_figure(names, comparison.cka.numpy(), "Debiased linear CKA of features"),
                folder / "similarity.png",
            ),
            "similarity of the models' features",
        )
    ]
    if comparison.layers is not None:
        layers, values = comparison.layers
        owners = [name.partition(": ")[0] for name in layers]
        starts = [at for at in range(1, len(owners)) if owners[at] != owners[at - 1]]
        figure = plots.similarity_figure(layers, values.numpy(), "Debiased linear CKA of all layers", starts)
        pictures.append(Shown(save_figure(figure, folder / "layers.png"), "similarity of all layers"))

    def matrix(values: Tensor) -> list[str]:
        rows = [
            [name, *("–" if value != value else f"{value:.3f}" for value in row)]
            for name, row in zip(names, values.tolist(), strict=True)
        ]
        return page.table(["", *names], rows, [False] + [True] * len(names))

    return Section(
        "similarity",
        "Similarity",
        [
            *page.gallery(pictures),
            page.paragraph(
                "Centred kernel alignment is 1 for features that are the same up to rotation, shift and scale, about 0 "
                "for unrelated ones (Kornblith et al. 2019; debiased)."
            ),
            page.heading("Procrustes distance of features (0: the same shape, up to 1.41; Williams et al. 2021)"),
            *matrix(comparison.distance),
            page.heading("Share of a sample's ten nearest neighbours that are so in both (cosine; Huh et al. 2024)"),
            *matrix(comparison.neighbours),
            page.heading(
                "R² of a linear map from the row's features to the column's (Kornblith et al. 2019; adjusted)"
            ),
            *matrix(comparison.regression),
        ],
    )


def _everything(comparison: Comparison) -> Section:
    first, *others = comparison.names
    rows = []
    for name, values in comparison.scalars.items():
        row = [name, *(figure_text(name, value) for value in values)]
        rows.append([*row, *(_difference(name, values[0], value) for value in values[1:])])
    headers = ["figure", first, *others, *(f"{name} − {first}" for name in others)]
    lines = page.table(headers, rows, [False] + [True] * (len(headers) - 1))
    return Section("figures", "All figures", page.details(f"{len(rows)} figures", lines))


def _difference(name: str, first: float, value: float) -> str:
    if not (math.isfinite(first) and math.isfinite(value)):
        return _NONE
    shown = figure_text(name, value - first).replace("-", "−", 1)
    return shown if shown.startswith("−") or value == first else f"+{shown}"


def _cost(comparison: Comparison) -> Section | None:
    known = [key for key in _COSTS if any(key in contender.cost for contender in comparison.contenders)]
    if not known:
        return None
    rows = [
        [own.name, *(_COSTS[key][1].format(own.cost[key]) if key in own.cost else _NONE for key in known)]
        for own in comparison.contenders
    ]
    headers = ["model", *(_COSTS[key][0] for key in known)]
    return Section("cost", "Cost", page.table(headers, rows, [False] + [True] * len(known)))


def _models(comparison: Comparison) -> Section:
    rows = [[own.name, own.layer, own.about] for own in comparison.contenders]
    failed = [
        f"{own.name}, {outcome.name}: {outcome.failure}"
        for own in comparison.contenders
        for outcome in own.outcomes
        if outcome.failure
    ]
    lines = page.table(["model", "layer", "what it is"], rows, [False] * 3)
    lines += [page.heading("Not possible"), *page.notes(failed)] if failed else []
    return Section("models", "Models", lines)


def _record(comparison: Comparison) -> Mapping[str, Any]:
    return {
        "models": [
            {"name": own.name, "layer": own.layer, "about": own.about, "cost": dict(own.cost)}
            for own in comparison.contenders
        ],
        "test_samples": len(comparison.contenders[0].samples.labels),
        "figures": {
            name: [plain_number(value) if value == value else None for value in values]
            for name, values in comparison.scalars.items()
        },
        "error_differences": [
            {"first": first, "second": second, **found._asdict()}
            for (first, second), found in comparison.differences.items()
        ],
        "linear_cka": comparison.cka,
        "procrustes_distance": comparison.distance,
        "mutual_neighbours": comparison.neighbours,
        "linear_regression": [
            [None if value != value else value for value in row] for row in comparison.regression.tolist()
        ],
        "layers": None
        if comparison.layers is None
        else {"names": comparison.layers[0], "linear_cka": comparison.layers[1]},
        "contenders_failed": {
            own.name: {outcome.name: outcome.failure for outcome in own.outcomes if outcome.failure}
            for own in comparison.contenders
        },
    }
