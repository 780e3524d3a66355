"""The figures of the analyses. Functions take numbers and return a matplotlib figure; nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape.plots.kit import (
    MARKERS,
    PALETTE,
    Array,
    features_figure,
    new_figure,
    outside_legend,
    scatter_by_class,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#8C8C8C"


def discriminant_figure(
    panels: Mapping[str, tuple[Array, Array]], class_name: str, eigenvalue: float, second_axis: str, threshold: float
) -> "Figure":
    """One class against the rest in the plane of its discriminant axis, a panel a split.

    Args:
        panels: N x 2 coordinates and N booleans (whether a sample is of the class) by heading.
        class_name: The class.
        eigenvalue: Named in the heading.
        second_axis: What the vertical axis is.
        threshold: The best threshold on the test samples, drawn in the panels that are not of training samples; NaN or
            infinite: none.

    Returns:
        The figure.
    """
    figure = new_figure(2.2 + 4.0 * len(panels), 4.2)
    rows = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (heading, (points, member)) in zip(rows, panels.items(), strict=True):
        size = float(np.clip(4000 / max(len(points), 1), 3, 30))
        order = (("rest", ~member, _GREY, "o"), (f"class {class_name}", member, PALETTE[0], "^"))
        for name, mask, colour, marker in order:
            axes.scatter(
                points[mask, 0],
                points[mask, 1],
                s=size,
                color=colour,
                marker=marker,
                linewidths=0,
                alpha=0.7,
                label=name,
                rasterized=len(points) > 2000,
            )
        if np.isfinite(threshold) and not heading.startswith("training"):
            axes.axvline(threshold, color=PALETTE[5], linestyle="--", linewidth=1.2, label="best threshold")
        style(axes, f"discriminant axis of class {class_name}", "", heading)
    rows[0].set_ylabel(second_axis)
    shown = "infinite (no spread along the axis)" if np.isinf(eigenvalue) else f"{eigenvalue:.3g}"
    figure.suptitle(f"Class {class_name} against the rest, eigenvalue {shown}", fontsize="medium", x=0.01, ha="left")
    outside_legend(figure, rows[-1])
    return figure


def eigenvalues_figure(values: Array, errors: Array, class_names: Sequence[str], label: int) -> "Figure":
    """Eigenvalues of all classes as bars, and the threshold test errors below them.

    Args:
        values: K eigenvalues; infinite ones are drawn hatched up to the top and marked.
        errors: K errors (fractions); NaN where there are none.
        class_names: K names.
        label: The class that is set apart by colour.

    Returns:
        The figure.
    """
    classes = len(values)
    has_errors = bool(np.isfinite(errors).any())
    figure = new_figure(float(np.clip(2.4 + 0.4 * classes, 4.2, 14)), 5.2 if has_errors else 3.4)
    rows = figure.subplots(2 if has_errors else 1, 1, sharex=True, squeeze=False)[:, 0]
    finite = values[np.isfinite(values)]
    top = float(finite.max()) * 1.6 if len(finite) and finite.max() > 0 else 1.0
    numbers = np.arange(classes)
    colours = [PALETTE[0] if k == label else PALETTE[4] for k in range(classes)]
    bars = rows[0].bar(numbers, np.where(np.isinf(values), top, np.nan_to_num(values)), color=colours, width=0.75)
    for bar, value in zip(bars, values, strict=True):
        if np.isinf(value):
            bar.set_hatch("//")
            bar.set_facecolor("none")
            bar.set_edgecolor(PALETTE[0])
        text = "∞" if np.isinf(value) else "" if np.isnan(value) else f"{value:.3g}"
        if classes <= 20:
            x = bar.get_x() + bar.get_width() / 2
            rows[0].annotate(text, (x, bar.get_height()), ha="center", va="bottom", fontsize="x-small")
    rows[0].margins(y=0.12)
    style(rows[0], "" if has_errors else "class against the rest", "LDA eigenvalue", "Each class against the rest")
    if has_errors:
        rows[1].bar(numbers, 100 * np.nan_to_num(errors), color=colours, width=0.75)
        style(rows[1], "class against the rest", "threshold test error (%)")
    if classes <= 40:
        long = max(map(len, class_names), default=0) > 3
        rows[-1].set_xticks(numbers, class_names, rotation=45 if long else 0, ha="right" if long else "center")
    return figure


def plane_figure(
    points: Array, labels: Array, class_names: Sequence[str], shares: Array, wrong: Array | None, title: str
) -> "Figure":
    """Features on their first two principal components.

    Args:
        points: N x 2 or more coordinates.
        labels: N class indices.
        class_names: Names for the legend.
        shares: Share of the variance along each component.
        wrong: N booleans, the misclassified samples, or None.
        title: The heading.

    Returns:
        The figure.
    """
    return features_figure(points[:, :2], labels, class_names, [float(share) for share in shares[:2]], wrong, title)


def space_figure(
    panels: Mapping[str, tuple[Array, Array]], labels: Array, class_names: Sequence[str], title: str = ""
) -> "Figure":
    """Features on their first three principal components, a panel a layer.

    Args:
        panels: N x 3 coordinates and the share of the variance along each component, by heading.
        labels: N class indices.
        class_names: Names for the legend.
        title: The heading of the whole. Default: none.

    Returns:
        The figure.
    """
    figure = new_figure(2.0 + 4.8 * len(panels), 5.2)
    for column, (heading, (points, shares)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), column, projection="3d")
        _space(axes, points, labels, class_names, shares)
        axes.set_title(heading, fontsize="medium", loc="left")
    if title:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    outside_legend(figure, figure.axes[0], "class")
    return figure


def _space(
    axes: Any,
    points: Array,
    labels: Array,
    class_names: Sequence[str],
    shares: Array,
    ticks: int = 8,
    zoom: float = 0.88,
) -> None:
    size = float(np.clip(4000 / max(len(points), 1), 3, 30))
    for number, label in enumerate(np.unique(labels)):
        mask = labels == label
        axes.scatter(
            *points[mask, :3].T,
            s=size,
            color=PALETTE[number % len(PALETTE)],
            marker=MARKERS[(number // len(PALETTE)) % len(MARKERS)],
            linewidths=0,
            alpha=0.75,
            label=class_names[label] if label < len(class_names) else str(label),
            rasterized=len(points) > 2000,
        )
    for setter, k in ((axes.set_xlabel, 0), (axes.set_ylabel, 1), (axes.set_zlabel, 2)):
        setter(f"component {k + 1} ({100 * shares[k]:.0f} %)", fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.locator_params(nbins=ticks)
    axes.set_box_aspect(None, zoom=zoom)  # the third axis's label would be cut off


def representations_figure(columns: Mapping[str, Mapping[str, Array]], class_names: Sequence[str]) -> "Figure":
    """Representations side by side (AAAI 2019, Figures 1, 2, 4 and 5), a column each.

    Rows, as far as there is something to show: a unit's histogram by class, two units' scatter by class, the first
    three principal components before and after the activation function. Every panel has its own scale, since
    regularizers change the size of activations most of all.

    Args:
        columns: By heading, the arrays that :class:`RepresentationCharacteristics` (``values``, ``labels``, ``units``)
            and :class:`PrincipalComponents` (``points``, ``explained``, ``point_labels``; with ``before_`` in front,
            those of the layer before) save.
        class_names: K names.

    Returns:
        The figure.
    """
    rows = [
        ("histogram", "values"),
        ("scatter", "values"),
        ("before the activation function", "before_points"),
        ("after the activation function", "points"),
    ]
    rows = [row for row in rows if any(row[1] in arrays for arrays in columns.values())]
    figure = new_figure(1.2 + 3.0 * len(columns), 0.4 + sum(2.2 if kind == "histogram" else 3.0 for kind, _ in rows))
    heights = [2.2 if kind == "histogram" else 3.0 for kind, _ in rows]
    grid = figure.add_gridspec(len(rows), len(columns), height_ratios=heights)
    for column, (heading, arrays) in enumerate(columns.items()):
        for row, (kind, key) in enumerate(rows):
            if key not in arrays:
                continue
            solid = key.endswith("points")
            axes = figure.add_subplot(grid[row, column], projection="3d" if solid else None)
            if kind == "histogram":
                _histogram(axes, arrays["values"][:, 0], arrays["labels"], class_names)
                style(axes, f"activation of unit {arrays['units'][0]}", "samples" if column == 0 else "")
            elif kind == "scatter":
                values, units = arrays["values"], arrays["units"]
                scatter_by_class(axes, values[:, :2], arrays["labels"], class_names)
                style(axes, f"activation of unit {units[0]}", f"activation of unit {units[1]}")
            else:
                shares = arrays["before_explained" if key.startswith("before") else "explained"]
                _space(axes, arrays[key], arrays["point_labels"], class_names, shares, ticks=4, zoom=0.78)
                axes.set_title(f"components {kind}", fontsize="x-small", loc="left")
            if row == 0:
                axes.set_title(heading, fontsize="medium", loc="left")
    outside_legend(figure, next(axes for axes in figure.axes if axes.get_legend_handles_labels()[0]), "class")
    return figure


def _histogram(axes: "Axes", values: Array, labels: Array, class_names: Sequence[str]) -> None:
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, 51)
    for number, label in enumerate(np.unique(labels)):
        axes.hist(
            values[labels == label],
            bins=list(edges),
            histtype="stepfilled",
            color=PALETTE[number % len(PALETTE)],
            alpha=0.55,
            label=class_names[label] if label < len(class_names) else str(label),
        )
    # a ReLU's zeros would hide all else: the axis ends where 98 % of the other bars do
    heights = np.concatenate([np.histogram(values[labels == label], edges)[0][1:] for label in np.unique(labels)])
    if len(heights) and heights.max() > 0:
        axes.set_ylim(0, 1.15 * float(np.quantile(heights[heights > 0], 0.98)))


def retraining_figure(errors: Mapping[int, Array], joint: float | None, total: int, title: str) -> "Figure":
    """Test error against the number of training samples, mean and standard deviation, each head a dot.

    Args:
        errors: Test errors (fractions) of the heads by number of samples.
        joint: The model's own test error, or None.
        total: Number of training samples; that size is labelled "all".
        title: The heading.

    Returns:
        The figure.
    """
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    sizes = sorted(errors)
    means = [100 * float(errors[size].mean()) for size in sizes]
    spread = [100 * float(errors[size].std(ddof=1)) if len(errors[size]) > 1 else 0.0 for size in sizes]
    for size in sizes:
        if len(errors[size]) > 1:
            dots = 100 * errors[size]
            axes.scatter(np.full(len(dots), size), dots, s=8, color=PALETTE[4], alpha=0.4, linewidths=0, zorder=1)
    if any(len(errors[size]) > 1 for size in sizes):
        axes.scatter([], [], s=14, color=PALETTE[4], linewidths=0, label="one head")
    axes.errorbar(
        sizes, means, yerr=spread, color=PALETTE[0], marker="o", markersize=4.5, capsize=3, linewidth=1.6,
        label="mean and standard deviation", zorder=3,
    )  # fmt: skip
    if joint is not None:
        axes.axhline(100 * joint, color=PALETTE[5], linestyle="--", linewidth=1.2, label="the model itself (joint)")
    axes.set_xscale("log")
    lowest = min(float(values.min()) for values in errors.values())
    highest = max(float(values.max()) for values in errors.values())
    if lowest > 0 and highest / lowest > 8 and (joint is None or joint > 0):
        axes.set_yscale("log")
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    # of sizes so near to each other that their labels would touch, the larger one is labelled
    labelled = [size for size, after in zip(sizes, [*sizes[1:], np.inf], strict=True) if after >= 2 * size]
    axes.set_xticks(labelled, [f"{size:,}\n(all)" if size == total else f"{size:,}" for size in labelled])
    axes.minorticks_off()
    style(axes, "training samples n' of the head", "test error (%)", title)
    outside_legend(figure, axes)
    return figure


def geodesic_figure(lines: Mapping[str, Array], errors: Array | None, many: int, few: int) -> "Figure":
    """Fisher lengths of the segments by layer, and the test error along the line.

    Args:
        lines: P segment lengths by layer; ``"full"`` is that of all layers.
        errors: P + 1 test errors (fractions), or None.
        many: Number of samples of the head where the line starts.
        few: Number of samples of the head where it ends.

    Returns:
        The figure.
    """
    figure = new_figure(9.4 if errors is not None else 6.2, 3.8)
    panels = figure.subplots(1, 2 if errors is not None else 1, squeeze=False)[0]
    positive = True
    for number, (name, segments) in enumerate(lines.items()):
        full = name == "full"
        middle = (np.arange(len(segments)) + 0.5) / len(segments)
        panels[0].plot(
            middle,
            segments,
            color="black" if full else PALETTE[number % 7],
            linestyle="--" if full else "-",
            marker=MARKERS[number % len(MARKERS)],
            markersize=3.5,
            linewidth=1.5,
            label="all layers at once" if full else f"layer {name}",
        )
        positive = positive and bool((segments > 0).all())
    if positive:
        panels[0].set_yscale("log")
    along = f"position on the line\n0: head of all {many:,} samples, 1: head of {few:,}"
    style(panels[0], along, "Fisher length of the segment", "Length by layer")
    if errors is not None:
        panels[1].plot(
            np.linspace(0, 1, len(errors)), 100 * errors, color=PALETTE[0], marker="o", markersize=3.5, linewidth=1.5
        )
        panels[1].set_ylim(bottom=0)
        style(panels[1], along, "test error (%)", "Error along the line")
    outside_legend(figure, panels[0])
    return figure


def units_figure(
    values: Array, labels: Array, units: Sequence[int], class_names: Sequence[str], title: str, most: int = 10
) -> "Figure":
    """A unit's histogram by class and, where there are two units, their scatter by class.

    Args:
        values: N x 1 or N x 2 activations.
        labels: N class indices.
        units: The units' numbers.
        class_names: K names.
        title: The heading.
        most: How many classes are drawn at most, the first ones; the heading says so where there are more.

    Returns:
        The figure.
    """
    present = np.unique(labels)
    shown = present[:most]
    if len(present) > most:
        title += f" (first {most} of {len(present)} classes)"
    kept = np.isin(labels, shown)
    values, labels = values[kept], labels[kept]
    two = len(units) > 1
    figure = new_figure(10.4 if two else 6.2, 4.4)
    grid = figure.add_gridspec(len(shown), 2 if two else 1, hspace=0.05, width_ratios=(1.1, 1) if two else None)
    low, high = float(values[:, 0].min()), float(values[:, 0].max())
    edges = np.linspace(low, high if high > low else low + 1, 41)
    first = None
    for row, label in enumerate(shown):
        axes = figure.add_subplot(grid[row, 0], sharex=first)
        first = first or axes
        own = values[labels == label, 0]
        colour = PALETTE[row % len(PALETTE)]
        axes.hist(own, bins=list(edges), color=colour, alpha=0.85, weights=np.full(len(own), 1 / len(own)))
        axes.set_ylim(0, None)
        axes.set_yticks([])
        name = class_names[label] if label < len(class_names) else str(label)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
        style(axes, "", name)
        axes.yaxis.label.set_rotation(0)
        axes.yaxis.label.set_horizontalalignment("right")
        axes.yaxis.label.set_verticalalignment("center")
        axes.spines["left"].set_visible(False)
        last = row == len(shown) - 1
        axes.tick_params(labelbottom=last, bottom=last)
        if row == 0:
            axes.set_title(
                "share of the class's samples by activation, each row to its own height", fontsize="small", loc="left"
            )
        if last:
            axes.set_xlabel(f"activation of unit {units[0]}")
    if two:
        axes = figure.add_subplot(grid[:, 1])
        scatter_by_class(axes, values[:, :2], labels, class_names)
        style(axes, f"activation of unit {units[0]}", f"activation of unit {units[1]}")
        axes.set_title("two units by class", fontsize="small", loc="left")
        outside_legend(figure, axes, "class")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def collapse_figure(
    cosines: Array,
    class_names: Sequence[str],
    reliability: Mapping[str, Mapping[str, Sequence[float]]],
    errors: Mapping[str, float],
) -> "Figure":
    """Cosines of the class means and, where there are predictions, confidence against accuracy.

    Args:
        cosines: K x K.
        class_names: K names.
        reliability: ``confidence`` and ``accuracy`` of the bins by split.
        errors: Expected calibration error by split.

    Returns:
        The figure.
    """
    figure = new_figure(11.2 if reliability else 5.8, 4.8)
    panels = figure.subplots(1, 2 if reliability else 1, squeeze=False)[0]
    simplex = -1 / (len(cosines) - 1) if len(cosines) > 1 else 0.0
    heading = f"Cosines of class means about their mean (simplex: {simplex:.2f})"
    _cosines(figure, panels[0], cosines, class_names, heading)
    if reliability:
        axes = panels[1]
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1, label="calibrated")
        for number, (split, found) in enumerate(reliability.items()):
            axes.plot(
                found["confidence"],
                found["accuracy"],
                color=PALETTE[(0, 5)[number % 2]],
                linewidth=1.2,
                label=f"{split}: error {100 * errors[split]:.2g} %" if split in errors else split,
            )
            # bins of few samples, whose means are all over the place, get small dots
            sizes = 4 + 60 * np.sqrt(found["share"])
            axes.scatter(found["confidence"], found["accuracy"], s=sizes, color=PALETTE[(0, 5)[number % 2]])
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        style(
            axes, "confidence (mean of the bin)", "accuracy (mean of the bin)", "Calibration (dots by share of samples)"
        )
        outside_legend(figure, axes, "calibration")
    return figure


def cosines_figure(cosines: Array, class_names: Sequence[str], title: str) -> "Figure":
    """Cosines between class vectors.

    Args:
        cosines: K x K.
        class_names: K names.
        title: The heading.

    Returns:
        The figure.
    """
    side = float(np.clip(1.8 + 0.42 * len(cosines), 3.8, 12))
    figure = new_figure(side + 1.0, side)
    axes = figure.subplots()
    _cosines(figure, axes, cosines, class_names, title)
    if 40 < len(cosines) <= 130:  # a hundred names can still be read where each has a line of 5 points or more
        ticks, size = np.arange(len(cosines)), float(np.clip(560 / len(cosines), 4, 8))
        axes.set_xticks(ticks, class_names, rotation=90, fontsize=size)
        axes.set_yticks(ticks, class_names, fontsize=size)
        axes.tick_params(length=1.5, pad=1)
    return figure


def _cosines(figure: "Figure", axes: "Axes", cosines: Array, class_names: Sequence[str], title: str) -> None:
    classes = len(cosines)
    image = axes.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    if classes <= 40:
        ticks = np.arange(classes)
        long = max(map(len, class_names), default=0) > 3
        axes.set_xticks(ticks, class_names, rotation=45 if long else 0, ha="right" if long else "center")
        axes.set_yticks(ticks, class_names)
    if classes <= 12:
        for row in range(classes):
            for column in range(classes):
                value = cosines[row, column]
                if row != column and np.isfinite(value):
                    colour = "white" if abs(value) > 0.6 else "black"
                    axes.text(
                        column,
                        row,
                        f"{value:.2f}".replace("0.", "."),
                        ha="center",
                        va="center",
                        fontsize=6.5,
                        color=colour,
                    )
    style(axes, "class", "class", title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.85)


def severities_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    clean: Mapping[str, Mapping[str, float]],
) -> "Figure":
    """Error against the severity of corruptions, a panel a set (or a corruption), a line a corruption (or a run).

    Args:
        panels: By panel and line: severities and errors (fractions). A name has one colour in all panels.
        clean: By panel and line: the error on clean images, drawn as a level line: in the colour of the line of that
            name, black where there is none.

    Returns:
        The figure.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    count = max(1, len(panels))
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = new_figure(2.0 + 3.3 * columns, 0.6 + 3.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for position, axes in enumerate(grid.flat):
        if position >= len(panels):
            axes.set_visible(False)
            continue
        panel = list(panels)[position]
        for name, (severities, errors) in panels[panel].items():
            number = names.index(name)
            (handles[name.replace("_", " ")],) = axes.plot(
                severities,
                100 * np.asarray(errors),
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=("-", ":", "-.")[number // len(PALETTE) % 3],
                markersize=4.5,
                linewidth=1.4,
            )
        for name, error in clean.get(panel, {}).items():
            colour = PALETTE[names.index(name) % len(PALETTE)] if name in names else "black"
            line = axes.axhline(100 * error, color=colour, linestyle="--", linewidth=1.1)
            handles.setdefault("clean" if name not in names else "clean (dashed)", line)
        style(axes, "severity", "error (%)" if position % columns == 0 else "", panel.replace("_", " "))
        axes.set_xticks((1, 2, 3, 4, 5))
        axes.set_xlim(0.7, 5.3)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize="small")
    return figure


def corruptions_sheet(images: Mapping[str, Sequence[Array]], columns: Sequence[str]) -> "Figure":
    """Pictures in a grid: rows by name, columns by heading.

    Args:
        images: By row: as many uint8 pictures H x W x C as there are columns.
        columns: The headings.

    Returns:
        The figure.
    """
    figure = new_figure(1.4 + 1.1 * len(columns), 0.4 + 1.15 * len(images))
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for row, (name, pictures) in enumerate(images.items()):
        for column, picture in enumerate(pictures):
            axes = grid[row, column]
            axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(columns[column], fontsize="small")
            if column == 0:
                axes.set_ylabel(name, fontsize="small", rotation=0, ha="right", va="center")
    return figure


def confusion_cosine_figure(
    cosines: Array, counts: Array, pairs: Sequence[tuple[str, str]], rho: float, title: str
) -> "Figure":
    """How often one class is taken for another against the cosine of their class vectors, a dot an ordered pair.

    Args:
        cosines: P cosines.
        counts: P counts.
        pairs: P pairs of names: the class, and what it is taken for; the most frequent are written beside their dots.
        rho: Spearman's rank correlation; NaN: none.
        title: The heading.

    Returns:
        The figure.
    """
    figure = new_figure(6.6, 4.6)
    axes = figure.subplots()
    size = float(np.clip(3000 / max(len(counts), 1), 4, 28))
    axes.scatter(cosines, counts, s=size, color=PALETTE[0], alpha=0.6, linewidths=0, rasterized=len(counts) > 2000)
    middle = (float(cosines.min()) + float(cosines.max())) / 2
    heights: list[float] = []
    gap = 0.045 * max(float(counts.max()), 1.0)
    for place in np.argsort(-counts, kind="stable")[:6]:
        height = float(counts[place])
        if height == 0 or any(abs(height - other) < gap for other in heights):
            continue  # nothing to name, or the names would cover each other
        heights.append(height)
        left = cosines[place] > middle
        axes.annotate(
            f"{pairs[place][0]} taken for {pairs[place][1]}",
            (float(cosines[place]), height),
            xytext=(-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize="x-small",
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},  # over the dots of other pairs
        )
    axes.set_ylim(bottom=-0.03 * max(float(counts.max()), 1.0))
    correlation = "" if np.isnan(rho) else f"; Spearman's rank correlation {rho:.2f}"
    style(axes, "cosine of the two class vectors", "samples of one class taken for the other", title + correlation)
    return figure


def map_figure(points: Array, labels: Array, class_names: Sequence[str], wrong: Array | None, title: str) -> "Figure":
    """Samples on a map whose axes mean nothing, such as t-SNE's, a colour and a marker a class.

    Args:
        points: N x 2.
        labels: N class indices.
        class_names: K names.
        wrong: N booleans, the misclassified samples, or None.
        title: The heading.

    Returns:
        The figure.
    """
    figure = new_figure(6.8, 5.0)
    axes = figure.subplots()
    scatter_by_class(axes, points, labels, class_names, wrong)
    style(axes, "", "", title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    outside_legend(figure, axes, "class")
    return figure
