"""One gold reward from several: mean, worst case or weighted mean of the scorers' rewards. N responses, S scorers.

Source: Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization": mean and worst-case optimisation.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rm_assets.core.recipe import Combine

Rewards = npt.NDArray[np.float64]


def standardized(rewards: Rewards) -> Rewards:
    """(N, S) with each column at mean 0 and standard deviation 1 (of all, not of a sample), so that scales compare."""
    result: Rewards = (rewards - rewards.mean(0)) / rewards.std(0)
    return result


def combined(rewards: Rewards, how: Combine, weights: Sequence[float]) -> Rewards:
    """(N,) from (N, S): the least of a row, or its mean by `weights`, which are all equal for `mean`."""
    if how == "worst_case":
        least: Rewards = rewards.min(1)
        return least
    return np.average(rewards, axis=1, weights=weights)


def disagreements(rewards: Rewards) -> tuple[int, int]:
    """Of one prompt's K responses (K, S): pairs of responses of which one scorer prefers the one and another the other; and all pairs."""
    first, second = np.triu_indices(len(rewards), 1)
    differences = rewards[first] - rewards[second]  # (K (K - 1) / 2, S)
    disagree = (differences > 0).any(1) & (differences < 0).any(1)
    return int(disagree.sum()), len(differences)
