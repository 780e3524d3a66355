"""Figures of the analyses."""

import numpy as np
from analysis_data import clusters


def test_representations_side_by_side() -> None:
    from lightning_repshape.plots.points import representations_figure

    part = clusters()
    columns = {
        "a": {"values": part.features[:, :2].numpy(), "labels": part.labels.numpy(), "units": np.array([0, 1])},
        "b": {"points": part.features[:, :3].numpy(), "explained": np.array([0.5, 0.3, 0.1]),
              "point_labels": part.labels.numpy()},
    }  # fmt: skip
    figure = representations_figure(columns, ["x", "y", "z"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "", "components after the activation function"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "z"]


def test_classes_that_are_not_drawn_are_counted() -> None:
    from lightning_repshape.plots.points import units_figure

    values, names = np.linspace(0, 1, 48)[:, None], [str(k) for k in range(12)]
    assert units_figure(values, np.arange(48) % 12, [0], names, "units").get_suptitle() == (
        "units (first 10 of 12 classes)"
    )
    assert units_figure(values, np.arange(48) % 10, [0], names, "units").get_suptitle() == "units"
