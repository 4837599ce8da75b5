"""How far the model can be pushed: the gold reward of the response that it likes best among n.

Choosing the best of n moves the policy by KL(n) = ln n - (n - 1) / n nats from itself. While the model is right, gold rises
with it; where the model is exploited, gold falls again.

Source: Gao, Schulman and Hilton (2022), "Scaling Laws for Reward Model Overoptimization", section 2 and appendix I; the
estimator is that of Nakano et al. (2021), "WebGPT", appendix I.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation.pairs import ScoredResponse

NUM_RESAMPLES = 1000
FEWEST_POINTS = 3
"""Values of n above 1 that a curve of two parameters needs."""


def best_of_n(groups: Sequence[Sequence[ScoredResponse]], *, seed: int) -> dict[str, Any] | None:
    """Gold and proxy reward of the best of n by each of them, for n up to the responses of a prompt.

    None unless some prompts have two responses whose gold rewards compare. Prompts with fewer than K responses are left
    out, K being what most prompts have, so that all n are measured on the same prompts.
    """
    import numpy as np

    usable = [group for group in groups if len(group) > 1 and len({r.gold.comparison for r in group}) == 1]
    if not usable:
        return None
    most = most_frequent_size(usable)
    groups = [group for group in usable if len(group) >= most]
    sizes = _sizes(most)
    gold = [[r.gold.gold_reward for r in group] for group in groups]
    reward = [[r.reward for r in group] for group in groups]
    curves = {
        name: np.asarray([expected_best(by, of, sizes) for by, of in zip(key, value, strict=True)])  # (prompts, sizes)
        for name, key, value in (("gold", reward, gold), ("proxy", reward, reward), ("oracle", gold, gold))
    }
    kl = np.asarray([math.log(n) - (n - 1) / n for n in sizes])
    resampled = _resampled(curves["gold"], seed)
    points = [
        {
            "n": n,
            "kl": float(kl[place]),
            "gold": _interval(curves["gold"][:, place], resampled[:, place]),
            **{name: float(curves[name][:, place].mean()) for name in ("proxy", "oracle")},
        }
        for place, n in enumerate(sizes)
    ]
    return {
        "points": points,
        "num_prompts": len(groups),
        "num_prompts_left_out": len(usable) - len(groups),
        "fit": _fit(kl, curves["gold"].mean(axis=0), resampled),
    }


def most_frequent_size(groups: Sequence[Sequence[ScoredResponse]]) -> int:
    """The number of responses that most prompts have; of two such numbers the larger."""
    sizes = Counter(map(len, groups))
    return max(sizes, key=lambda size: (sizes[size], size))


def _sizes(most: int) -> list[int]:
    """1, 2, 4, ... and the largest."""
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


def expected_best(by: Sequence[float], of: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Mean over all ways to draw n of the K responses, without putting back, of `of` at the highest `by`; for each n.

    In order of `by`, the i-th of K is the highest of C(i - 1, n - 1) draws of the C(K, n). Responses that are equal by `by`
    share their mean, as if a coin decided.
    """
    ranked = sorted(zip(by, of, strict=True))
    values: list[float] = []
    for _, tied in groupby(ranked, key=lambda row: row[0]):
        shared = [value for _, value in tied]
        values += [math.fsum(shared) / len(shared)] * len(shared)
    return [
        math.fsum(math.comb(place, n - 1) * value for place, value in enumerate(values)) / math.comb(len(values), n)
        for n in sizes
    ]


def _resampled(values: Any, seed: int) -> Any:
    """Means over prompts of bootstrap resamples, (NUM_RESAMPLES, sizes)."""
    import numpy as np

    random = np.random.default_rng(seed)
    return np.stack([values[random.integers(len(values), size=len(values))].mean(axis=0) for _ in range(NUM_RESAMPLES)])


def _interval(values: Any, resampled: Any) -> dict[str, Any]:
    import numpy as np

    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def _fit(kl: Any, gold: Any, resampled: Any) -> dict[str, Any] | None:
    """R(d) = d (alpha - beta d) with d = sqrt(KL), for gold above that of one response; where it peaks, as n and as KL.

    A peak beyond the largest n that was measured is an extrapolation, and is marked as one. None with fewer than three n.
    """
    import numpy as np

    if len(kl) - 1 < FEWEST_POINTS:
        return None
    distance = np.sqrt(kl[1:])
    design = np.stack([distance, -(distance**2)], axis=1)
    solve = np.linalg.pinv(design)
    alpha, beta = (float(value) for value in solve @ (gold[1:] - gold[0]))
    draws = (resampled[:, 1:] - resampled[:, :1]) @ solve.T  # (NUM_RESAMPLES, 2)
    fitted = design @ np.asarray([alpha, beta])
    farthest = float(distance[-1])
    peaks = [_peak(a, b, farthest) for a, b in draws.tolist()]
    ordered = sorted(math.inf if peak is None else peak for peak in peaks)
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.025, 0.975))
    peak = _peak(alpha, beta, farthest)
    return {
        "alpha": alpha,
        "beta": beta,
        "alpha_interval": [float(v) for v in np.quantile(draws[:, 0], [0.025, 0.975])],
        "beta_interval": [float(v) for v in np.quantile(draws[:, 1], [0.025, 0.975])],
        "largest_residual": float(np.abs(fitted - (gold[1:] - gold[0])).max()),
        "peak_kl": peak,
        "peak_kl_low": low if math.isfinite(low) else None,
        "peak_kl_high": high if math.isfinite(high) else None,
        "peak_was_measured": peak is not None and peak <= float(kl[-1]),
        "largest_kl": float(kl[-1]),
        "formula": "R(d) = d (alpha - beta d), d = sqrt(KL), KL = ln n - (n - 1) / n",
    }


def _peak(alpha: float, beta: float, farthest: float) -> float | None:
    """KL at which d (alpha - beta d) is largest; None where it never falls, 0 where it only falls.

    A curve that falls first and would rise again only falls, unless it is above its beginning at the `farthest` d measured.
    """
    if beta <= 0:
        return None if alpha >= beta * farthest else 0.0
    return max(0.0, alpha / (2 * beta)) ** 2


def component_accuracy(groups: Sequence[Sequence[ScoredResponse]]) -> dict[str, Any] | None:
    """Mean of each component of a verifier's reward: of the policy, of the model's best of all, and of the best by gold.

    None unless every response has components, all in [0, 1] as a verifier's are (those of combined gold need not be).
    """
    names = sorted({name for group in groups for r in group for name in r.gold.components})
    found = [r.gold.components for group in groups for r in group]
    if not names or not all(c.keys() == set(names) and min(c.values()) >= 0 and max(c.values()) <= 1 for c in found):
        return None
    most = most_frequent_size(groups)
    whole = [group for group in groups if len(group) == most]

    def means(by: str, n: int) -> dict[str, float | None]:
        by_name = {}
        for name in names:
            values = [
                expected_best(
                    [r.reward if by == "reward" else r.gold.gold_reward for r in group],
                    [r.gold.components[name] for r in group],
                    [n],
                )[0]
                for group in whole
            ]
            by_name[name] = statistics.mean(values)
        return by_name

    return {
        "n": most,
        "num_prompts": len(whole),
        "policy": means("reward", 1),
        "best_by_model": means("reward", most),
        "best_by_gold": means("gold", most),
    }
