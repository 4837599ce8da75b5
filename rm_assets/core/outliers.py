"""Which rows lie far from the rest, by a measure that they themselves do not upset: median and MAD."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rm_assets.core.table_numbers import FEATURES, WATCHED, Extreme, TableNumbers

LARGEST_SCORE = 3.5
_MAD_OF_NORMAL = 0.6745
"""Of a normal distribution with standard deviation 1, to four digits as in the source."""


def usual_range(values: NDArray[np.float64], *, on_log: bool) -> tuple[float, float]:
    """The values whose modified z-score 0.6745 (x - median) / MAD is within 3.5; (0, 0) of nothing.

    Lengths are judged by log(1 + x), since theirs have long tails (`on_log`). Where more than half of the values are
    equal the MAD is 0; then it is the median distance of the others.
    Source: Iglewicz and Hoaglin (1993), "How to Detect and Handle Outliers".
    """
    if not len(values):
        return 0.0, 0.0
    scaled = np.log1p(values) if on_log else values
    middle = np.median(scaled)
    distances = np.abs(scaled - middle)
    if not np.median(distances):
        distances = distances[distances > 0]
    half = LARGEST_SCORE / _MAD_OF_NORMAL * np.median(distances) if len(distances) else 0.0
    low, high = middle - half, middle + half
    return (float(np.expm1(low)), float(np.expm1(high))) if on_log else (float(low), float(high))


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
