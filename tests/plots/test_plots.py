"""Figures: what is drawn, named and left out, from numbers alone."""

import subprocess
import sys
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


@pytest.mark.parametrize(("classes", "columns"), [(22, 1), (23, 2), (60, 4), (61, 0)])
def test_a_legend_grows_wide_and_then_goes(classes: int, columns: int) -> None:
    points = np.random.default_rng(0).random((classes, 2))
    figure = plots.map_figure(points, np.arange(classes), [f"class {k}" for k in range(classes)], None, "")
    figure.draw_without_rendering()
    lefts = {round(text.get_window_extent().x0) for legend in figure.legends for text in legend.get_texts()}
    assert len(lefts) == columns


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


def test_the_heat_map_names_a_hundred_classes() -> None:
    for classes, named in ((10, True), (100, True), (200, False)):
        names = [f"class {number}" for number in range(classes)]
        axes = plots.cosines_figure(np.eye(classes), names, "cosines").axes[0]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert ([label.get_text() for label in labels] == names) is named


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


def test_names_are_no_formulas() -> None:
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
        figure.draw_without_rendering()
    shown = [text.get_text() for text in spread.axes[0].get_xticklabels() if text.get_parse_math()]
    assert any("10" in text and "$" in text for text in shown), "powers of ten are still set as such"
    assert not any(text.get_parse_math() for text in figures[0].axes[0].get_xticklabels())
