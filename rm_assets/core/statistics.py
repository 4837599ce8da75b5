"""Rates with intervals, rank correlations and summaries: pure functions on plain numbers.

What is undefined is None and never NaN, so that a report stays valid JSON: a mean of nothing, the spread of one value,
a correlation with a constant. A NaN or infinite input raises ValueError: it is a defect upstream, not a small sample.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import Any

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Interval = tuple[float, float]


def _finite(values: Iterable[float], name: str) -> list[float]:
    """The values as floats. Raises: ValueError for one that is not finite."""
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        bad = next(index for index, value in enumerate(found) if not math.isfinite(value))
        raise ValueError(f"{name}[{bad}] is {found[bad]}; every value must be a finite number")
    return found


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion; half credits may make `successes` fractional. (0, 1) where n is 0.

    Raises: ValueError if `successes` is not in [0, n].
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; successes must be between 0 and n")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # The bound at an extreme rate is exact; rounding would put it a little off.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def bootstrap_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    bounds: Interval = (0.0, 1.0),
) -> Interval:
    """Percentile interval of the mean of `values`, resampling whole clusters (prompts): their values go together.

    With fewer than two clusters it is `bounds`, the range a value can have. Where all clusters have the same mean,
    resampling shows no spread at all; then it is Wilson's interval with the number of clusters as n, on `bounds`.

    Raises: ValueError if the lengths differ or a value lies outside `bounds`.
    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapters 8 and 13.
    """
    import numpy as np

    found = np.asarray(_finite(values, "values"))
    if len(found) != len(clusters):
        raise ValueError(f"{len(found)} values and {len(clusters)} clusters; give one cluster a value")
    if len(found) and (found.min() < bounds[0] or found.max() > bounds[1]):
        raise ValueError(f"values reach from {found.min()} to {found.max()}, outside of {bounds}")
    number: dict[Hashable, int] = {}
    codes = np.asarray([number.setdefault(cluster, len(number)) for cluster in clusters], dtype=int)
    if len(number) < 2:
        return bounds
    sums, counts = np.bincount(codes, weights=found), np.bincount(codes)  # (number of clusters,)
    if np.ptp(sums / counts) == 0:
        width = bounds[1] - bounds[0]
        rate = min(1.0, max(0.0, float((sums[0] / counts[0] - bounds[0]) / width)))
        low, high = wilson_interval(rate * len(number), len(number), confidence)
        return bounds[0] + width * low, bounds[0] + width * high
    random = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    for index in range(num_resamples):
        drawn = random.integers(len(number), size=len(number))
        means[index] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def difference_interval(first: float, first_interval: Interval, second: float, second_interval: Interval) -> Interval:
    """Interval of first - second for two independent rates, from the interval of each.

    Source: Newcombe (1998), "Interval estimation for the difference between independent proportions", method 10.
    """
    difference = first - second
    low = difference - math.hypot(first - first_interval[0], second_interval[1] - second)
    high = difference + math.hypot(first_interval[1] - first, second - second_interval[0])
    return low, high


def credit(margin: float) -> float:
    """1 where the preferred side is ahead, 0 where it is behind, one half at a tie (a coin would decide)."""
    return 1.0 if margin > 0 else 0.0 if margin < 0 else 0.5


def mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    found = _finite(values, "values")
    try:
        return math.fsum(found) / len(found) if found else None
    except OverflowError:  # of the sum; the mean itself lies between the values
        return math.fsum(value / len(found) for value in found)


def accuracy(margins: Iterable[float]) -> float | None:
    """Share of margins (preferred minus other) above 0, a margin of 0 counting half; None of nothing."""
    return mean(credit(margin) for margin in _finite(margins, "margins"))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None with a constant or fewer than two values."""
    return _correlation("spearmanr", first, second)


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b, which allows for ties; None with a constant or fewer than two values."""
    return _correlation("kendalltau", first, second)


def _correlation(kind: str, first: Sequence[float], second: Sequence[float]) -> float | None:
    from scipy import stats

    one, two = _finite(first, "first"), _finite(second, "second")
    if len(one) != len(two):
        raise ValueError(f"{len(one)} and {len(two)} values; a correlation needs pairs")
    if len(set(one)) < 2 or len(set(two)) < 2:
        return None
    return float(getattr(stats, kind)(one, two).statistic)


def per_prompt_rank_correlation(prompts: Iterable[tuple[Sequence[float], Sequence[float]]]) -> dict[str, Any]:
    """Mean rank correlation within prompts, each given as (gold rewards, rewards): {"spearman", "kendall", "n"}.

    Counts prompts with at least two different gold rewards. Among those, one whose rewards are all equal counts as 0:
    the model ranks nothing there, and leaving it out would flatter it.
    """
    ranked = [(gold, reward) for gold, reward in prompts if len(set(gold)) > 1]
    return {
        "spearman": mean(spearman(gold, reward) or 0.0 for gold, reward in ranked),
        "kendall": mean(kendall(gold, reward) or 0.0 for gold, reward in ranked),
        "n": len(ranked),
    }


def summarize(values: Iterable[float]) -> dict[str, Any]:
    """n, mean, sd (of a sample, divisor n - 1), min, max and quantiles (linear between values) of a distribution.

    The sd is None where it, or a square on the way to it, is larger than a float can be.
    """
    import numpy as np

    found = _finite(values, "values")
    # Of the halves: the difference of two finite values can be too large for a float, that of their halves cannot.
    quantiles = 2 * np.quantile(np.asarray(found) / 2, QUANTILES) if found else None
    with np.errstate(over="ignore", invalid="ignore"):
        sd = float(np.std(found, ddof=1)) if len(found) > 1 else math.nan
    return {
        "n": len(found),
        "mean": mean(found),
        "sd": sd if math.isfinite(sd) else None,
        "min": min(found, default=None),
        "max": max(found, default=None),
        "quantiles": {str(q): None if quantiles is None else float(quantiles[i]) for i, q in enumerate(QUANTILES)},
    }


def within_group_sd(groups: Iterable[Sequence[float]]) -> dict[str, Any]:
    """Mean over groups (prompts) of the sample standard deviation, groups of one left out: {"value", "n"}."""
    spreads = [summarize(group)["sd"] for group in groups if len(group) > 1]
    return {"value": mean(spreads), "n": len(spreads)}
