"""Which rows lie far from the rest, by a measure that they themselves do not upset."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rm_assets.core.table_statistics.numbers import FEATURES, WATCHED, Extreme, TableNumbers

LARGEST_SCORE = 3.5
TAIL = 0.05
_SCORE_OF_TAIL = 1.645
"""Standard deviations between the median of a normal distribution and the quantile at either tail."""


def usual_range(values: NDArray[np.float64], *, on_log: bool) -> tuple[float, float]:
    """The values whose robust z-score is within 3.5; (0, 0) of nothing.

    On either side of the median, the distance to the 5 % quantile of that side stands for 1.645 standard deviations.
    Lengths are judged by log(1 + x), since theirs have long tails (`on_log`). Where the quantile is the median, the
    median distance of the values beyond takes its place.

    The limit is that of Iglewicz and Hoaglin (1993), "How to Detect and Handle Outliers". Their scale, the median distance
    from the median, takes up to half of the values for outliers where there are two clusters, as with the rewards of a verifier.
    """
    if not len(values):
        return 0.0, 0.0
    scaled = np.log1p(values) if on_log else values
    middle = float(np.median(scaled))
    low, high = (middle + side * _reach(side * (scaled - middle)) for side in (-1, 1))
    if on_log:
        low, high = float(np.expm1(low)), float(np.expm1(high))
    median = float(np.median(values))
    return min(low, median), max(high, median)  # the way to the logarithm and back is not exact


def _reach(ahead: NDArray[np.float64]) -> float:
    """How far the usual range reaches on the side where these differences from the median are positive."""
    scale = np.quantile(ahead, 1 - TAIL) or np.median(ahead[ahead > 0] if (ahead > 0).any() else 0.0)
    return float(LARGEST_SCORE / _SCORE_OF_TAIL * scale)


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
