"""How rewards spread, tie and follow length within prompts, computed for all prompts at once.

Values are given with the number of their group (prompt), 0 to G - 1, as arrays of N; rows of a group may lie anywhere.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Groups = NDArray[np.int64]


def spread(values: Values, groups: Groups) -> dict[str, Any]:
    """Mean over groups of two and more of their sample standard deviation: {"value", "n": number of such groups}.

    None where a square is larger than a float can be.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares, sizes = _sum(_centred(values, groups) ** 2, groups), np.bincount(groups)
        found = _mean(np.sqrt(squares[sizes > 1] / (sizes[sizes > 1] - 1)))
    return found if found["value"] is None or np.isfinite(found["value"]) else found | {"value": None}


def ties(values: Values, groups: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each group the number of its pairs of values, and of those that are equal: (G,), (G,)."""
    sizes = np.bincount(groups)
    order, starts = _runs(values, groups)
    lengths = np.diff(starts, append=len(values))
    equal = np.bincount(groups[order[starts]], weights=lengths * (lengths - 1) / 2, minlength=len(sizes))
    return sizes * (sizes - 1) // 2, equal.astype(np.int64)


def rank_correlation(first: Values, second: Values, groups: Groups) -> dict[str, Any]:
    """Mean over groups of Spearman's rank correlation, ties at their mean rank: {"value", "n": number of groups}.

    A group in which either is constant has none and does not count.
    """
    one, two = (_centred(_ranks(values, groups), groups) for values in (first, second))
    scale = np.sqrt(_sum(one**2, groups) * _sum(two**2, groups))
    return _mean(_sum(one * two, groups)[scale > 0] / scale[scale > 0])


def _ranks(values: Values, groups: Groups) -> Values:
    """Rank of each value among all, equal ones of a group at their mean rank; (N,)."""
    order, starts = _runs(values, groups)
    lengths = np.diff(starts, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths - 1) / 2, lengths)
    return ranks


def _runs(values: Values, groups: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order by group and value (N,), and where in it each run of equal values of a group starts."""
    order = np.lexsort((values, groups))
    ordered_values, ordered_groups = values[order], groups[order]
    is_new = np.ones(len(values), dtype=bool)
    is_new[1:] = (ordered_values[1:] != ordered_values[:-1]) | (ordered_groups[1:] != ordered_groups[:-1])
    return order, np.flatnonzero(is_new)


def _centred(values: Values, groups: Groups) -> Values:
    """Each value minus the mean of its group."""
    means = _sum(values, groups) / np.maximum(np.bincount(groups), 1)
    return values - means[groups]


def _sum(values: Values, groups: Groups) -> Values:
    return np.asarray(np.bincount(groups, weights=values), dtype=np.float64)


def _mean(values: Values) -> dict[str, Any]:
    return {"value": float(values.mean()) if len(values) else None, "n": len(values)}
