"""Figures of numbers over something: epochs, steps, samples, severities, rates."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_repshape.plots.kit import (
    BLUE,
    GREY,
    MARKERS,
    PALETTE,
    SKY,
    VERMILION,
    Array,
    colour,
    heading,
    line_look,
    name_classes,
    new_figure,
    outside_legend,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves_figure(
    curves: Mapping[str, tuple[Array, Array]], ylabel: str, title: str = "", log_y: bool = False
) -> "Figure":
    """Values by epoch, a line for each name's pair of epochs and values."""
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        axes.plot(epochs, values, color=colour(number), label=name, linewidth=1.6)
    if log_y:
        axes.set_yscale("log")
    style(axes, "epoch", ylabel, title)
    axes.legend(frameon=False)
    return figure


def curve_figure(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Accuracy, loss and e(W) by training step (feed-backward paper, Fig. 3), a line a run.

    A run has ``step``, ``accuracy``, ``loss``, ``raw`` and ``unit`` (e(W)), equally long; NaN where not known.
    """
    figure = new_figure(13.2, 3.4)
    panels = figure.subplots(1, 4)
    kinds = (
        ("accuracy", "accuracy of the training batches (%)", 100.0),
        ("loss", "training loss", 1.0),
        ("raw", "e(W)", 1.0),
        ("unit", "e(W), class vectors of unit length", 1.0),
    )
    for axes, (key, label, factor) in zip(panels, kinds, strict=True):
        values: list[float] = []
        for number, (name, run) in enumerate(runs.items()):
            line = np.array([np.nan if value is None else factor * value for value in run[key]], dtype=float)
            axes.plot(run["step"], line, color=colour(number), linewidth=1.4, label=name)
            values += [value for value in line if np.isfinite(value)]
        if key != "accuracy" and values and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        style(axes, "training step", "", label)
        axes.margins(x=0.02)
    if any(runs):
        outside_legend(figure, panels[0])
    return figure


def spread_figure(
    curves: Mapping[str, tuple[Array, Array]], goal: float | None = None, title: str = "", xlabel: str = "step"
) -> "Figure":
    """Within-class spread over the distance of the class means against the training step (FOCA, Proposition 3.2).

    ``curves`` has steps and spreads by name; ``goal`` is a value to mark. Both axes are logarithmic.
    """
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(curves.items()):
        line = "-" if number % 2 == 0 else "--"
        axes.plot(steps, values, color=colour(number), linestyle=line, label=name, linewidth=1.6)
    if goal is not None:
        axes.axhline(goal, color=GREY, linewidth=0.8, linestyle=":")
        axes.annotate(f"{goal:g}", (0, goal), xycoords=("axes fraction", "data"), fontsize="small", va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    style(axes, xlabel, "within-class spread / distance of means", title)
    axes.legend(frameon=False, fontsize="small")
    return figure


def spectrum_figure(values: Array, line: tuple[int, int, float] | None = None, title: str = "") -> "Figure":
    """Eigenvalues, descending and above zero, against their number on logarithmic axes.

    ``line`` is the first and the last eigenvalue, from 1, that a power law goes through, and its exponent.
    """
    figure = new_figure(6.0, 3.8)
    axes = figure.subplots()
    numbers = np.arange(1, len(values) + 1)
    axes.plot(numbers, values, color=BLUE, marker="o", markersize=3, linewidth=1.2)
    if line is not None:
        first, last, exponent = line
        at = numbers[first - 1 : last]
        middle = float(np.exp(np.log(values[first - 1 : last]).mean() + exponent * np.log(at).mean()))
        label = f"decay, exponent {exponent:.2f}"
        axes.plot(at, middle * at**-exponent, color=VERMILION, linestyle="--", linewidth=1.4, label=label)
        axes.legend(frameon=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    style(axes, "principal component", "variance", title)
    return figure


def eigenvalues_figure(values: Array, errors: Array, class_names: Sequence[str], label: int) -> "Figure":
    """Eigenvalues of all classes as bars, and the threshold test errors below them.

    Args:
        values: K eigenvalues; infinite ones are drawn hatched up to the top and marked.
        errors: K errors (fractions); NaN where there are none.
        class_names: K names.
        label: The class that is set apart by colour.
    """
    classes = len(values)
    has_errors = bool(np.isfinite(errors).any())
    along = "class against the rest"
    if classes > 40:  # a skyline in any other order
        order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
        values, errors, class_names = values[order], errors[order], [class_names[k] for k in order]
        label = int(np.flatnonzero(order == label)[0]) if label < classes else label
        along = "class against the rest, by its eigenvalue"
    figure = new_figure(float(np.clip(2.4 + 0.4 * classes, 4.2, 10)), 5.2 if has_errors else 3.4)
    rows = figure.subplots(2 if has_errors else 1, 1, sharex=True, squeeze=False)[:, 0]
    finite = values[np.isfinite(values)]
    top = float(finite.max()) * 1.6 if len(finite) and finite.max() > 0 else 1.0
    numbers = np.arange(classes)
    colours = [BLUE if k == label else SKY for k in range(classes)]
    bars = rows[0].bar(numbers, np.where(np.isinf(values), top, np.nan_to_num(values)), color=colours, width=0.75)
    for bar, value in zip(bars, values, strict=True):
        if np.isinf(value):
            bar.set_hatch("//")
            bar.set_facecolor("none")
            bar.set_edgecolor(BLUE)
        text = "∞" if np.isinf(value) else "" if np.isnan(value) else f"{value:.3g}"
        if classes <= 20:
            x = bar.get_x() + bar.get_width() / 2
            rows[0].annotate(text, (x, bar.get_height()), ha="center", va="bottom", fontsize="x-small")
    rows[0].margins(y=0.12)
    style(rows[0], "" if has_errors else along, "LDA eigenvalue", "Each class against the rest")
    if has_errors:
        rows[1].bar(numbers, 100 * np.nan_to_num(errors), color=colours, width=0.75)
        if not np.nan_to_num(errors).any():
            rows[1].set_ylim(0, 1)
        style(rows[1], along, "threshold test error (%)")
    name_classes(rows[-1], class_names)
    return figure


def partial_retraining_figure(
    curves: Mapping[str, tuple[Array, Array, Array]], joint: Mapping[str, float] | None = None, title: str = ""
) -> "Figure":
    """Test error of heads retrained on partial data sets (FOCA, Fig. 2), in percent, on logarithmic axes.

    Args:
        curves: By method: the sizes n', and the mean and the standard deviation of the test error (fractions).
        joint: By method, the test error of the end-to-end training (a fraction), drawn beside the error of the head
            that was retrained on all samples; methods without joint training are left out.
        title: The heading.
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(6.6, 4.2)
    axes = figure.subplots()
    largest = max(float(np.max(sizes)) for sizes, _, _ in curves.values())
    lowest = min(float(np.min(means)) for _, means, _ in curves.values())
    for number, (name, (sizes, means, deviations)) in enumerate(curves.items()):
        look = line_look(number)
        percent, spread = 100 * np.asarray(means), 100 * np.asarray(deviations)
        # A deviation larger than the mean has no place on a logarithmic axis.
        below = np.minimum(spread, percent - 50 * lowest)
        at = np.asarray(sizes) * 1.04 ** (number - (len(curves) - 1) / 2)
        axes.errorbar(
            at,
            percent,
            yerr=(np.maximum(below, 0), spread),
            markersize=4.5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
            label=name,
            **look,
        )
        if joint is not None and name in joint:
            axes.plot(largest * 1.7, 100 * joint[name], markersize=6, fillstyle="none", **look)
    if joint:
        axes.annotate("joint", (largest * 1.7, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize="small")
        axes.annotate("all", (largest, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize="small")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    digits = "125" if high > 8 * low else "12345678"  # less than a decade would show one number or two
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in digits else ""))
    style(axes, "training samples of the head, n'", "test error (%)", title)
    outside_legend(figure, axes)
    return figure


def retraining_figure(errors: Mapping[int, Array], joint: float | None, total: int, title: str) -> "Figure":
    """Test error against the number of training samples, mean and standard deviation, each head a dot.

    ``errors`` are the heads' by number of samples, ``joint`` is the model's own (all fractions); the size ``total``,
    that of the whole training set, is labelled "all".
    """
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    sizes = sorted(errors)
    means = [100 * float(errors[size].mean()) for size in sizes]
    spread = [100 * float(errors[size].std(ddof=1)) if len(errors[size]) > 1 else 0.0 for size in sizes]
    for size in sizes:
        if len(errors[size]) > 1:
            dots = 100 * errors[size]
            axes.scatter(np.full(len(dots), size), dots, s=8, color=SKY, alpha=0.4, linewidths=0, zorder=1)
    if any(len(errors[size]) > 1 for size in sizes):
        axes.scatter([], [], s=14, color=SKY, linewidths=0, label="one head")
    axes.errorbar(
        sizes, means, yerr=spread, color=BLUE, marker="o", markersize=4.5, capsize=3, linewidth=1.6,
        label="mean and standard deviation", zorder=3,
    )  # fmt: skip
    if joint is not None:
        axes.axhline(100 * joint, color=VERMILION, linestyle="--", linewidth=1.2, label="the model itself (joint)")
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


def calibration_figure(
    reliability: Mapping[str, Mapping[str, Sequence[float]]],
    errors: Mapping[str, float],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
) -> "Figure":
    """Accuracy against confidence, and the error among the most confident samples against their share, by logits.

    ``reliability`` has the means of ``confidence`` and ``accuracy`` by bins with the latter's interval from ``low`` to
    ``high``, ``errors`` the expected calibration error, and ``curves`` coverages and risks, all fractions.
    """
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    heading(figure, title)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--", label="as confident as right")
    for number, (name, bins) in enumerate(reliability.items()):
        look = line_look(number)
        middle = np.array(bins["accuracy"])
        spread = np.clip([middle - np.array(bins["low"]), np.array(bins["high"]) - middle], 0, None)
        label = f"{name}: error {errors[name]:.4f}"
        look |= {"capsize": 2, "markersize": 4, "linewidth": 1.3, "label": label}
        left.errorbar(bins["confidence"], middle, yerr=spread, **look)
        coverage, risk = curves[name]
        line = "-" if number == 0 else "--"
        right.plot(coverage, 100 * np.array(risk), color=colour(number), linewidth=1.5, linestyle=line, label=name)
    left.legend(frameon=False, fontsize="small")
    right.legend(frameon=False, fontsize="small")
    style(left, "mean confidence", "accuracy", "calibration")
    style(right, "coverage: share of the most confident samples", "error among them (%)", "risk against coverage")
    right.set_ylim(bottom=0)
    return figure


def loss_data_figure(
    losses: Mapping[int, Array], epsilons: Sequence[float], uniform: float, total: int, title: str
) -> "Figure":
    """Held-out loss against the number of training samples, a dot a head, with losses that are good enough.

    ``losses`` are the heads' by number of samples, ``uniform`` is that of equally likely classes; the size ``total`` is
    labelled "all".
    """
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    sizes = sorted(losses)
    known = [losses[size][np.isfinite(losses[size])] for size in sizes]
    for size, values in zip(sizes, known, strict=True):
        if len(values) > 1:
            axes.scatter(np.full(len(values), size), values, s=8, color=SKY, alpha=0.4, linewidths=0, zorder=1)
    means = [float(values.mean()) for values in known]
    axes.plot(sizes, means, color=BLUE, marker="o", markersize=4.5, linewidth=1.6, label="mean over heads", zorder=3)
    axes.axhline(uniform, color=GREY, linestyle=":", linewidth=1.2, label="all classes equally likely")
    for epsilon, shade in zip(epsilons, itertools.cycle((VERMILION, PALETTE[2], PALETTE[3], PALETTE[8]))):
        axes.axhline(epsilon, label=f"epsilon = {epsilon:g}", color=shade, linestyle="--", linewidth=1.2)
        high = [max(mean, epsilon) for mean in means]
        axes.fill_between(sizes, epsilon, high, color=shade, alpha=0.1, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    labelled = [size for size, after in zip(sizes, [*sizes[1:], np.inf], strict=True) if after >= 2 * size]
    axes.set_xticks(labelled, [f"{size:,}\n(all)" if size == total else f"{size:,}" for size in labelled])
    axes.xaxis.minorticks_off()
    style(axes, "training samples n' of the head", "loss on the test set (nats)", title)
    outside_legend(figure, axes)
    return figure


def probes_figure(
    sets: Mapping[str, tuple[Mapping[str, tuple[float, float, float]], Mapping[Any, float], Mapping[Any, float]]],
    names: Mapping[str, str],
    title: str,
) -> "Figure":
    """Test errors of probes with their intervals, and errors on validation by what was chosen there.

    ``sets`` has, by the data set's name, the errors (value, low, high) of each probe, those on validation by number of
    neighbours, and those by penalty, all fractions; ``names`` says what the probes are called.
    """
    figure = new_figure(11.0, 3.6)
    left, middle, right = figure.subplots(1, 3)
    heading(figure, title)
    probes = [name for name in names if any(name in errors for errors, _, _ in sets.values())]
    shift = 0.16 * (len(sets) - 1)
    for number, (which, (errors, by_k, by_penalty)) in enumerate(sets.items()):
        own = [name for name in probes if name in errors]
        at = [probes.index(name) + (0.32 * number - shift) for name in own]
        middles, lows, highs = (100 * np.array([errors[name][part] for name in own]) for part in range(3))
        look = line_look(number)
        left.errorbar(middles, at, xerr=[middles - lows, highs - middles], linestyle="", capsize=3, label=which, **look)
        for axes, values in ((middle, by_k), (right, by_penalty)):
            axes.plot([*values], [100 * value for value in values.values()], markersize=4.5, linewidth=1.4, **look)
            best = min(values, key=lambda key: values[key])
            axes.plot(best, 100 * values[best], marker="o", markersize=10, fillstyle="none", color=look["color"])
    left.set_yticks(range(len(probes)), [names[name] for name in probes])
    left.set_ylim(len(probes) - 0.4, -0.6)
    style(left, "test error (%)")
    for axes, text in ((middle, "number of neighbours k"), (right, "penalty of the linear probe")):
        axes.set_xscale("log")
        style(axes, text, "validation error (%)")
    if len(sets) > 1:
        outside_legend(figure, left, "data set", loc="outside lower center", columns=len(sets))
    return figure


def geodesic_figure(lines: Mapping[str, Array], errors: Array | None, many: int, few: int) -> "Figure":
    """Fisher lengths of the segments by layer, and the test error along the line.

    Args:
        lines: P segment lengths by layer; ``"full"`` is that of all layers.
        errors: P + 1 test errors (fractions), or None.
        many: Number of samples of the head where the line starts.
        few: Number of samples of the head where it ends.
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
            color="black" if full else PALETTE[number % 7],  # the first seven: the eighth is black
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
            np.linspace(0, 1, len(errors)), 100 * errors, color=BLUE, marker="o", markersize=3.5, linewidth=1.5
        )
        panels[1].set_ylim(bottom=0)
        style(panels[1], along, "test error (%)", "Error along the line")
    outside_legend(figure, panels[0])
    return figure


def roc_figure(
    curves: Mapping[str, tuple[Array, Array]],
    marks: Mapping[str, Mapping[float, float]] | None = None,
    different: int = 1000,
    title: str = "",
) -> "Figure":
    """ROC curves of verification, with a logarithmic axis of false accept rates.

    Args:
        curves: By name, T false accept rates (ascending) and T true accept rates.
        marks: By name, operating points to mark: the true accept rate by the false accept rate asked for.
        different: Number of different pairs; the axis begins at half of the smallest rate that they can tell. Points
            without a false accept lie on its left edge.
        title: The heading.
    """
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(5.4, 4.2)
    axes = figure.add_subplot()
    edge = 0.5 / max(different, 1)
    for number, (name, (far, tar)) in enumerate(curves.items()):
        own = colour(number)
        at = np.maximum(far, edge)
        axes.plot(at, 100 * tar, color=own, linewidth=1.6, drawstyle="steps-post", label=name)
        for rate, value in (marks or {}).get(name, {}).items():
            axes.plot(rate, 100 * value, color=own, marker="o", markersize=5)
            axes.annotate(
                f"{100 * value:.1f} % at {rate:g}",
                (rate, 100 * value),
                xytext=(7, -12),
                textcoords="offset points",
                fontsize="small",
            )
    chance = np.geomspace(edge, 1, 200)
    axes.plot(chance, 100 * chance, color="0.6", linewidth=1, linestyle=":", label="chance")
    axes.set_xscale("log")
    axes.set_xlim(edge, 1)
    axes.set_ylim(0, 101)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(True, which="major", linewidth=0.4, alpha=0.5)
    style(axes, "false accept rate", "true accept rate (%)", title)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def severities_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]], clean: Mapping[str, Mapping[str, float]]
) -> "Figure":
    """Error against the severity of corruptions, a panel a set (or a corruption), a line a corruption (or a run).

    ``panels`` has severities and errors (fractions) by panel and line; a name has one colour in all panels. ``clean``
    has the error on clean images, a level line in the colour of the line of that name, black where there is none.
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
                **line_look(number),
                linestyle=("-", ":", "-.")[number // len(PALETTE) % 3],
                markersize=4.5,
                linewidth=1.4,
            )
        for name, error in clean.get(panel, {}).items():
            own = colour(names.index(name)) if name in names else "black"
            line = axes.axhline(100 * error, color=own, linestyle="--", linewidth=1.1)
            handles.setdefault("clean" if name not in names else "clean (dashed)", line)
        style(axes, "severity", "error (%)" if position % columns == 0 else "", panel.replace("_", " "))
        axes.set_xticks((1, 2, 3, 4, 5))
        axes.set_xlim(0.7, 5.3)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    outside_legend(figure, handles)
    return figure
