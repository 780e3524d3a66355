"""Figures: what is drawn, named and left out, from numbers alone."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lightning_repshape import plots
from lightning_repshape.plots.kit import class_look, line_look, name_of


def test_matplotlib_is_imported_when_a_figure_is_drawn() -> None:
    code = "import sys; from lightning_repshape import plots; assert 'matplotlib' not in sys.modules; "
    code += "plots.new_figure(); assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_hundred_classes_look_different_and_ten_lines_do() -> None:
    assert len({tuple(class_look(number).items()) for number in range(100)}) == 100
    assert len({line_look(number)["color"] for number in range(10)}) == 10
    assert [name_of(["a", "b"], label) for label in (1, 2)] == ["b", "2"]


@pytest.mark.parametrize(("classes", "columns", "listed"), [(21, 1, 22), (22, 2, 23), (43, 2, 44), (200, 1, 22)])
def test_a_legend_grows_wide_and_is_then_cut(classes: int, columns: int, listed: int) -> None:
    points = np.random.default_rng(0).random((classes, 2))
    wrong = np.arange(classes) < 2
    figure = plots.map_figure(points, np.arange(classes), [f"class {k}" for k in range(classes)], wrong, "")
    figure.draw_without_rendering()
    lefts = {round(text.get_window_extent().x0) for legend in figure.legends for text in legend.get_texts()}
    assert len(lefts) == columns
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == listed and "misclassified" in texts
    assert texts[-1] == ("… and 180 more" if classes == 200 else "misclassified")


def test_dots_of_a_class_keep_their_look_in_the_plane_and_in_space() -> None:
    points, labels = np.random.default_rng(0).random((30, 3)), np.arange(30) % 3
    plane = plots.plane_figure(points, labels, ["a", "b", "c"], np.array([0.5, 0.3]), None, "")
    space = plots.space_figure({"": (points, np.array([0.5, 0.3, 0.2]))}, labels, ["a", "b", "c"])
    colours = [[dots.get_facecolor()[0, :3].tolist() for dots in own.axes[0].collections] for own in (plane, space)]
    assert colours[0] == colours[1] and len(colours[0]) == 3


def test_toy_and_partial_retraining_figures() -> None:
    stream = np.random.default_rng(0)
    panel = (stream.random((20, 2)), np.arange(20) % 2, stream.random((5, 5)), np.array([0, 1, 0, 1]))
    figure = plots.toy_figure({"joint": panel, "FOCA": panel, "third": panel})
    assert [axes.get_visible() for axes in figure.axes[:4]] == [True, True, True, False]
    steps = np.array([1, 10, 100])
    curves = {"joint": (steps, np.array([1, 0.5, 0.4])), "FOCA": (steps, 0.1 ** steps.clip(1, 3))}
    assert plots.spread_figure(curves, 2e-4).axes[0].get_yscale() == "log"
    sizes, spread = np.array([10, 100, 1000]), np.array([0.05, 0.01, 0.0])
    of_heads = {"FOCA": (sizes, np.array([0.02, 0.012, 0.01]), spread), "Plain": (sizes, spread + 0.02, spread)}
    figure = plots.partial_retraining_figure(of_heads, joint={"Plain": 0.01})
    figure.draw_without_rendering()
    assert {text.get_text() for text in figure.axes[0].texts} == {"joint", "all"}
    assert figure.axes[0].get_ylim()[0] > 0


@pytest.mark.parametrize("classes", [10, 100, 200])
def test_names_beside_a_matrix_do_not_overlap(classes: int) -> None:
    names = [f"class number {number}" for number in range(classes)]
    for draw in (plots.cosines_figure, plots.confusion_figure):
        figure = draw(np.eye(classes), names, "cosines")
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert len(boxes) >= min(classes, 20)
        boxes.sort(key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_similar_classes_stand_side_by_side() -> None:
    group = np.random.default_rng(0).permutation(np.arange(60) % 3)
    cosines = (group[:, None] == group[None]).astype(float)
    axes = plots.cosines_figure(cosines, [str(own) for own in group], "cosines").axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert (np.abs(np.diff(shown, axis=0)).sum(axis=1) > 0).sum() == 2, "two borders between three groups"
    assert "side by side" in axes.get_xlabel()


def test_counts_have_whole_ticks_and_many_eigenvalues_are_sorted() -> None:
    cosines, counts = np.array([0.1, 0.2]), np.array([0, 1])
    axes = plots.confusion_cosine_figure(cosines, counts, [("a", "b")] * 2, 0.5, "").axes[0]
    axes.figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in axes.get_yticks())
    values = np.random.default_rng(0).random(100)
    bars = plots.eigenvalues_figure(values, np.full(100, np.nan), [str(k) for k in range(100)], 1).axes[0].patches
    assert [bar.get_height() for bar in bars] == sorted(values, reverse=True)


def test_severities_and_sheets_of_corruptions(tmp_path: Path) -> None:
    lines = {f"kind_{n}": ([1, 3, 5], [0.1, 0.2, 0.3]) for n in range(12)}
    panels = {"one": lines, "two": dict(list(lines.items())[:1]), "three": {}, "four": {}}
    figure = plots.severities_figure(panels, {"one": {"clean": 0.05}, "two": {"kind_0": 0.1}})
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["kind 0", "kind 1"] and "clean" in texts and "clean (dashed)" in texts
    figure.savefig(tmp_path / "a.png")
    stream = np.random.default_rng(0)
    pictures = {"x": (2, 32, 32, 3), "y": (2, 8, 8, 1)}
    images = {name: list(stream.integers(0, 256, shape, dtype=np.uint8)) for name, shape in pictures.items()}
    sheet = plots.corruptions_sheet(images, "ab")
    sheet.savefig(tmp_path / "b.png")
    assert len(sheet.axes) == 4


def test_representations_side_by_side() -> None:
    points, labels = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    columns = {
        "a": {"values": points[:, :2], "labels": labels, "units": np.array([0, 1])},
        "b": {"points": points, "explained": np.array([0.5, 0.3, 0.1]), "point_labels": labels},
    }
    figure = plots.representations_figure(columns, ["x", "y", "z"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "", "components after the activation function"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "z"]


def test_classes_that_are_not_drawn_are_counted() -> None:
    values, names = np.linspace(0, 1, 48)[:, None], [str(k) for k in range(12)]
    assert plots.units_figure(values, np.arange(48) % 12, [0], names, "units").get_suptitle() == (
        "units (first 10 of 12 classes)"
    )
    assert plots.units_figure(values, np.arange(48) % 10, [0], names, "units").get_suptitle() == "units"


def test_names_are_no_formulas(tmp_path: Path) -> None:
    names = ["$x^$", r"\frac{$", r"$\alpha$"]
    source, labels = np.random.default_rng(0), np.arange(12) % 3
    share, points = source.random((3, 3)), source.random((12, 2))
    lines = {"$x^$ $": (np.array([1, 10]), np.array([1.0, 10.0])), names[2]: (np.array([1, 10]), np.array([2.0, 9.0]))}
    spread = plots.spread_figure(lines, 0.1)
    figures = [
        plots.confusion_figure(share, names, "$x^$"),
        plots.map_figure(points, labels, names, None, "$x^$"),
        plots.cosines_figure(share, names, "$x^$"),
        spread,
    ]
    for figure in figures:
        plots.save_figure(figure, tmp_path / "figure.png")
    shown = [text.get_text() for text in spread.axes[0].get_xticklabels() if text.get_parse_math()]
    assert any("10" in text and "$" in text for text in shown), "powers of ten are still set as such"
    assert not any(text.get_parse_math() for text in figures[0].axes[0].get_xticklabels())
