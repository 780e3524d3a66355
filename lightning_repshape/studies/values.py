"""What trainings come to: a figure's values over seeds, their statistics and paired test, and what they cost."""

import dataclasses
import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_repshape.studies.jobs import Run
from lightning_repshape.studies.rows import Figure

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Number:
    """A figure of one finished training, scaled."""

    seed: int
    value: float
    run: Run


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What several trainings come to."""

    values: Mapping[int, float] = dataclasses.field(default_factory=dict)  #: by seed
    mean: float | None = None  #: for ratios without a common seed the ratio of the means
    std: float | None = None  #: with n - 1; None below two values
    n: int = 0
    interval: tuple[float, float] | None = None  #: the mean's at 95 % (Student's t); None below two values
    p: float | None = None  #: of the paired t-test against the baseline; None below two pairs, or if all differ alike


def statistics(
    own: Mapping[int, float], over: Mapping[int, float] | None = None, baseline: Mapping[int, float] | None = None
) -> Statistics:
    """Mean, spread, confidence interval and paired test of values by seed; empty where there is no value.

    ``over`` is what they are divided by, ``baseline`` (divided in the same way) what they are tested against.
    """
    values = own if over is None else _ratios(own, over)
    if not values:
        mean = _ratio(_mean(own), _mean(over or {}))
        return Statistics() if mean is None else Statistics(mean=mean, n=min(len(own), len(over or {})))
    others = _ratios(baseline, over) if baseline is not None and over is not None else baseline
    seeds = sorted(values)
    mean, std, interval = _mean(values), None, None
    if mean is not None and len(seeds) > 1:
        from scipy.stats import t

        std = plain.stdev(values[seed] for seed in seeds)
        half = float(t.ppf(0.5 + _CONFIDENCE / 2, len(seeds) - 1)) * std / math.sqrt(len(seeds))
        interval = (mean - half, mean + half)
    return Statistics({seed: values[seed] for seed in seeds}, mean, std, len(seeds), interval, paired_p(values, others))


def _ratios(own: Mapping[int, float], over: Mapping[int, float]) -> dict[int, float]:
    return {seed: own[seed] / over[seed] for seed in own if over.get(seed)}


def _ratio(value: float | None, over: float | None) -> float | None:
    return value / over if value is not None and over else None


def _mean(values: Mapping[int, float]) -> float | None:
    return plain.fmean(values.values()) if values else None


def paired_p(values: Mapping[int, float], others: Mapping[int, float] | None) -> float | None:
    """The p of the paired t-test over common seeds; None below two of them, or if all differ alike."""
    pairs = [(values[seed], others[seed]) for seed in sorted(values) if seed in others] if others else []
    differences = [one - other for one, other in pairs]
    size = max((abs(value) for pair in pairs for value in pair), default=0.0)
    # Figures have seven digits; below that differences are equal, and t would be without bound.
    if len(pairs) < 2 or max(differences) - min(differences) <= 1e-9 * size:
        return None
    from scipy.stats import ttest_rel

    p = float(ttest_rel([one for one, _ in pairs], [other for _, other in pairs]).pvalue)
    return p if math.isfinite(p) else None


@dataclasses.dataclass(frozen=True)
class Cost:
    """What trainings cost, by the machine that they ran on; ratios are of the same kind of machine."""

    step_seconds: float | None = None  #: median of the trainings' seconds a step
    memory_mb: float | None = None  #: median of their processes' peak memory
    gpu_memory_mb: float | None = None  #: median of their peak memory on the GPU
    step_ratio: float | None = None  #: of the step times to the baseline's
    memory_ratio: float | None = None  #: of the peak memories to the baseline's; of the GPU's where known


def cost(own: Sequence[Run], baseline: Sequence[Run]) -> Cost:
    """What finished trainings cost against others; None wherever the manifests do not say."""

    def median(runs: Sequence[Run], key: str) -> float | None:
        found = [value for value in (_costs(run)[key] for run in runs) if value is not None]
        return plain.median(found) if found else None

    common = ({_machine(run) for run in own} & {_machine(run) for run in baseline}) - {""}
    mine = [run for run in own if _machine(run) in common]
    theirs = [run for run in baseline if _machine(run) in common]
    ratios = {key: _ratio(median(mine, key), median(theirs, key)) for key in ("step", "memory", "gpu")}
    return Cost(
        median(own, "step"),
        median(own, "memory"),
        median(own, "gpu"),
        ratios["step"],
        ratios["memory"] if ratios["gpu"] is None else ratios["gpu"],
    )


def _machine(run: Run) -> str:
    """What trained, such that costs can be compared; empty where the manifest does not say."""
    machine = run.manifest.get("machine")
    if not isinstance(machine, dict) or not machine.get("cpu"):
        return ""
    return ", ".join(str(machine.get(key)) for key in ("cpu", "threads", "accelerator"))


def _costs(run: Run) -> dict[str, float | None]:
    # time and memory of trainings that were stacked are those of all of them
    fits = [own for own in run.sessions if own.get("stage") == "fit" and not own.get("stacked")]

    def number(session: Mapping[str, Any], key: str) -> float:
        value = session.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0.0

    timed = [(number(own, "steps"), number(own, "steps_per_second")) for own in fits]
    timed = [(steps, speed) for steps, speed in timed if steps and speed]
    steps = sum(steps for steps, _ in timed)
    return {
        "step": sum(steps / speed for steps, speed in timed) / steps if steps else None,
        "memory": max((number(own, "peak_memory_mb") for own in fits), default=0.0) or None,
        "gpu": max((number(own, "peak_gpu_memory_mb") for own in fits), default=0.0) or None,
    }


def figure_of(run: Run, figure: Figure) -> float | None:
    """The scaled value that a finished run has of a figure; None where it has none, or none that is finite."""
    value = run.figures.get(figure.metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return figure.scale * value
