"""Which rows lie far from the rest, by a measure that they themselves do not upset."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rm_assets.core.table_statistics.numbers import FEATURES, WATCHED, Extreme, TableNumbers

LARGEST_SCORE = 3.5
TAIL = 0.05
_SCORE_OF_TAIL = 1.645
"""Standard deviations between the median of a normal distribution and the quantile at either tail."""
MAX_LEVELS = 10
"""Numbers with no more different values are levels, of which a rare one is no outlier by its rarity."""
GAP = 100
_LARGEST = np.finfo(np.float64).max


def usual_range(values: NDArray[np.float64], *, on_log: bool) -> tuple[float, float]:
    """From the least to the greatest usual value; (0, 0) of nothing. Usual is what lies within both of two bounds.

    By the tails: a robust z-score of at most 3.5. On either side of the median, the distance to the 5 % quantile of that
    side stands for 1.645 standard deviations. Lengths are judged by log(1 + x), since theirs have long tails (`on_log`).
    Where the quantile is the median, the median distance of the values beyond takes its place. Not for levels.

    By a gap, which also parts off what is more than a tail: the values, from the nearer half of them on, up to the first
    that is over 100 times as far from the median as the one before.

    The limit of 3.5 is that of Iglewicz and Hoaglin (1993), "How to Detect and Handle Outliers". Their scale, the median
    distance from the median, takes up to half of the values for outliers where there are two clusters, as with the rewards
    of a verifier.
    """
    if not len(values):
        return 0.0, 0.0
    low, high = _before_the_gap(values)
    is_levels = not on_log and len(np.unique(values)) <= MAX_LEVELS
    tails = (float(values.min()), float(values.max())) if is_levels else _by_tails(values, on_log=on_log)
    return max(low, tails[0]), min(high, tails[1])


def _by_tails(values: NDArray[np.float64], *, on_log: bool) -> tuple[float, float]:
    scaled, median = np.log1p(values) if on_log else values, _median(values)
    middle = _median(scaled)
    with np.errstate(over="ignore", invalid="ignore"):
        reach = [side * _reach(side * (scaled - middle)) for side in (-1, 1)]
        bounds = middle + np.nan_to_num(reach, nan=_LARGEST)
        low, high = np.clip(np.expm1(bounds) if on_log else bounds, -_LARGEST, _LARGEST).tolist()
    return min(low, median), max(high, median)  # the way to the logarithm and back is not exact


def _reach(ahead: NDArray[np.float64]) -> float:
    """How far the usual range reaches on the side where these differences from the median are positive."""
    scale = np.quantile(ahead, 1 - TAIL) or np.median(ahead[ahead > 0] if (ahead > 0).any() else 0.0)
    return float(LARGEST_SCORE / _SCORE_OF_TAIL * scale)


def _before_the_gap(values: NDArray[np.float64]) -> tuple[float, float]:
    """Without such a gap, of any size: the bound is open."""
    with np.errstate(over="ignore"):
        distances = np.abs(values - _median(values))
        outer = np.sort(distances)[(len(values) - 1) // 2 :]
        gaps = np.flatnonzero((outer[:-1] > 0) & (outer[1:] > GAP * outer[:-1]))
    if not len(gaps):
        return -_LARGEST, _LARGEST
    near = values[distances <= outer[gaps[0]]]
    return float(near.min()), float(near.max())


def _median(values: NDArray[np.float64]) -> float:
    return float(2 * np.median(values / 2))  # the sum of two halves is never too large for a float


@dataclass(frozen=True)
class Outliers:
    """Rows whose watched feature is outside of `usual_from` to `usual_to`: their number, of n, and the most extreme."""

    feature: str
    usual_from: float
    usual_to: float
    num_outside: int
    n: int
    lowest: list[Extreme]
    highest: list[Extreme]


def outliers(table: TableNumbers) -> Outliers:
    """Those of the asset's watched feature."""
    name = WATCHED[table.asset]
    values = table.known(name)
    low, high = usual_range(values, on_log=FEATURES[table.asset][name].kind == "length")
    return Outliers(
        feature=name,
        usual_from=low,
        usual_to=high,
        num_outside=int(((values < low) | (values > high)).sum()),
        n=len(values),
        lowest=[row for row in table.lowest if row.value < low],
        highest=[row for row in table.highest if row.value > high],
    )
