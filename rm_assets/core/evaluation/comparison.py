"""Whether one reward model is better than another, judged on the same pairs.

What tells two models apart are the pairs on which exactly one of them is right. Pairs of one prompt go together, so
intervals resample prompts, and the exact test is made where every prompt has one pair.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.errors import DataError
from rm_assets.core.evaluation.pairs import draw_pairs
from rm_assets.core.evaluation.rates import rate
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import ProxyReward

SIGNIFICANT = 0.05
POWER = 0.8
LENGTH, SHORTNESS = "longer is better", "shorter is better"
"""The names under which length alone is compared: in the direction in which it is right more often on these pairs."""


def compare_models(
    rewards: Mapping[str, Sequence[ProxyReward]], settings: EvaluationSection, families: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Several models, each with its rewards for labelled responses, judged on the pairs of the responses that all have.

    Models of one of the `families` (seeds of a recipe, and their ensembles) are no rivals: which seed is ahead is chance.

    {"models": best first, each but the leader with how far it is `behind` the leader; "leader": the model with the highest
    match rate; "best": the leader if it is significantly better than every rival (each `told_apart`), else None;
    "num_pairs", "num_ties", "num_responses", "num_responses_left_out": those that some model lacks}. Length alone stands
    beside them under the name in "length", in the direction that is better on these pairs; it can be ahead of the leader
    but is never one.

    Raises: DataError DATA_004 if no response is common to all, DATA_005 if no pair is, DATA_010 if two tables have
    different gold for a response.
    """
    tables = {name: {row.response_id: row for row in rows} for name, rows in rewards.items()}
    common = set.intersection(*(set(table) for table in tables.values()))
    if not common:
        raise DataError(
            "DATA_004",
            f"{', '.join(rewards)} have no test response in common",
            why="models are compared on the same pairs",
            fix="evaluate them on the same test prompts, responses and gold rewards",
        )
    rows = [row for response_id, row in next(iter(tables.values())).items() if response_id in common]
    for name, table in tables.items():
        _require_same_gold(next(iter(tables)), name, rows, table)
    drawn, num_ties = draw_pairs(rows, settings)
    if not drawn:
        raise DataError(
            "DATA_005",
            f"no pair is left to compare {', '.join(rewards)} on",
            why=f"{num_ties} pairs have equal gold rewards",
            fix="use more test prompts, or set evaluation.pairs to 'all'",
        )
    prompts = [rows[better].prompt_id for better, _ in drawn]
    values = {name: [table[row.response_id].reward for row in rows] for name, table in tables.items()}
    credits = {name: [statistics.credit(of[a] - of[b]) for a, b in drawn] for name, of in values.items()}
    longer = [statistics.credit(rows[a].num_characters - rows[b].num_characters) for a, b in drawn]
    length = LENGTH if 2 * math.fsum(longer) >= len(longer) else SHORTNESS
    credits[length] = longer if length == LENGTH else [1.0 - each for each in longer]
    order = sorted(credits, key=lambda name: -math.fsum(credits[name]))
    leader = next(name for name in order if name != length)
    models: list[dict[str, Any]] = [
        {"model": name, "match_rate": rate(credits[name], prompts, settings, clustered=settings.pairs == "all")}
        | ({} if name == leader else {"behind": compare(credits[name], credits[leader], prompts, seed=settings.seed)})
        for name in order
    ]
    behind = {model["model"]: model["behind"] for model in models if model["model"] != leader}
    of_family = families or {}
    for name, found in behind.items():
        found["is_rival"] = of_family.get(name, name) != of_family.get(leader, leader)
    rivals = [found for found in behind.values() if found["is_rival"]]
    _tell_apart(rivals)
    _tell_apart([found for found in behind.values() if not found["is_rival"]])
    is_best = all(found["told_apart"] and found["difference"]["value"] > 0 for found in rivals)
    return {
        "models": models,
        "leader": leader,
        "length": length,
        "best": leader if is_best else None,
        "num_pairs": len(drawn),
        "num_ties": num_ties,
        "num_responses": len(rows),
        "num_responses_left_out": len(set().union(*tables.values())) - len(rows),
        "pairs": settings.pairs,
    }


def _require_same_gold(first: str, name: str, rows: Sequence[ProxyReward], table: Mapping[str, ProxyReward]) -> None:
    for row in rows:
        other = table[row.response_id]
        if (row.gold_reward, row.comparison) != (other.gold_reward, other.comparison):
            raise DataError(
                "DATA_010",
                f"{first} and {name} have different gold rewards for the response {row.response_id}",
                why=f"{row.gold_reward:g} and {other.gold_reward:g}; which model is better would depend on whose gold counts",
                fix="evaluate both with the same gold rewards",
            )


def _tell_apart(behind: Sequence[dict[str, Any]]) -> None:
    """Adds to each comparison with the leader whether it shows a difference: with p-values, by Holm's procedure over all.

    The pairs that it needs are then those at the level which its place in that procedure has.
    """
    p_values = {str(place): found["p_value"] for place, found in enumerate(behind) if found["p_value"] is not None}
    adjusted = holm(p_values)
    for place, found in enumerate(behind):
        value = adjusted.get(str(place))
        found["adjusted_p_value"] = value
        found["told_apart"] = found["significant"] if value is None else value < SIGNIFICANT
    ranked = sorted((found for found in behind if found["p_value"] is not None), key=lambda found: found["p_value"])
    for place, found in enumerate(ranked):
        gap, num_apart = found["difference"], found["num_better"] + found["num_worse"]
        level = SIGNIFICANT / (len(ranked) - place)
        found.update(_missing(pairs_needed(gap["value"], num_apart / gap["n"], level=level), gap["n"]))


def compare(first: Sequence[float], second: Sequence[float], prompts: Sequence[str], *, seed: int) -> dict[str, Any]:
    """The second model beside the first: credits in {0, 0.5, 1} for the same pairs, in one order.

    `difference` is the second's match rate minus the first's with its 95 % interval (bootstrap over prompts; where no pair
    tells the two apart, Wilson's bound on the share of prompts that could). `p_value` is
    that of McNemar's exact test, None where a prompt has several pairs. `significant` follows the p-value where there is
    one, else the interval. `pairs_needed` is how many pairs would show a difference of this size with 80 % probability
    (None without a difference), as many of them to a prompt as here; `more_pairs` is how many are missing.

    Raises: ValueError if the lengths differ or there is no pair.
    """
    if not len(first) == len(second) == len(prompts) or not prompts:
        raise ValueError(
            f"{len(first)} and {len(second)} credits for {len(prompts)} pairs; give one each, and one at least"
        )
    gains = [after - before for before, after in zip(first, second, strict=True)]
    low, high = statistics.bootstrap_interval(gains, prompts, seed=seed, bounds=(-1.0, 1.0))
    if not any(gains):  # nothing to resample: no larger share of prompts than this tells the two apart
        high = statistics.wilson_interval(0, len(set(prompts)))[1]
        low = -high
    num_better, num_worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    p_value = mcnemar(num_better, num_worse) if len(set(prompts)) == len(prompts) else None
    value = math.fsum(gains) / len(gains)
    share_apart = (num_better + num_worse) / len(gains)
    needed = pairs_needed(value, share_apart, design_effect=_design_effect(gains, prompts))
    return {
        "difference": {"value": value, "low": low, "high": high, "n": len(gains)},
        "num_better": num_better,
        "num_worse": num_worse,
        "p_value": p_value,
        "significant": p_value < SIGNIFICANT if p_value is not None else not low <= 0 <= high,
        **_missing(needed, len(gains)),
    }


def _missing(needed: int | None, num_pairs: int) -> dict[str, int | None]:
    return {"pairs_needed": needed, "more_pairs": None if needed is None else max(0, needed - num_pairs)}


def mcnemar(num_better: int, num_worse: int) -> float:
    """Two-sided exact p-value: with no difference, each pair that tells the two apart falls to either side like a coin.

    Source: McNemar (1947), "Note on the sampling error of the difference between correlated proportions"; exact as in
    Fagerland, Lydersen and Laake (2013), section "Methods".
    """
    from scipy import stats

    total = num_better + num_worse
    return float(stats.binomtest(num_better, total).pvalue) if total else 1.0


def pairs_needed(
    difference: float, share_apart: float, *, design_effect: float = 1.0, level: float = SIGNIFICANT
) -> int | None:
    """Pairs with which McNemar's test finds a difference of match rates with 80 % probability at `level`.

    `share_apart` is the share of pairs on which exactly one model is right, `design_effect` how many pairs that go together
    are worth one that stands alone. None without a difference.

    Source: Connor (1987), "Sample size for testing differences in proportions for the paired-sample design", formula 4.
    """
    if difference == 0:
        return None
    normal = NormalDist()
    z_level, z_power = normal.inv_cdf(1 - level / 2), normal.inv_cdf(POWER)
    apart = max(share_apart, abs(difference))
    root = z_level * math.sqrt(apart) + z_power * math.sqrt(max(apart - difference**2, 0.0))
    return math.ceil(design_effect * (root / difference) ** 2)


def _design_effect(gains: Sequence[float], prompts: Sequence[str]) -> float:
    """Variance of the mean with pairs of a prompt together, over that with each alone; 1 where no prompt has two pairs.

    Source: Kish (1965), "Survey Sampling", section 5.4.
    """
    centre, sums = math.fsum(gains) / len(gains), dict[str, float]()
    for gain, prompt in zip(gains, prompts, strict=True):
        sums[prompt] = sums.get(prompt, 0.0) + gain - centre
    alone = math.fsum((gain - centre) ** 2 for gain in gains)
    return math.fsum(total**2 for total in sums.values()) / alone if len(sums) < len(gains) and alone else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values for several comparisons at once, of which not one shall be wrong but in 5 % of cases.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    adjusted, highest = {}, 0.0
    for place, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(p_values) - place)))
        adjusted[name] = highest
    return adjusted


def ensemble(rewards: Sequence[Sequence[float]], *, penalty: float = 1.0) -> dict[str, list[float]]:
    """Rewards of several models for the same responses as one: {"mean", "worst_case", "uncertainty_weighted", "disagreement"}.

    `rewards` has one row a model, each row standardised over the responses first (mean 0, sd 1), since models have scales of
    their own. Uncertainty-weighted is the mean minus `penalty` times the variance between models; disagreement is the
    standard deviation between models. A row without spread counts as 0.

    Source: Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization", section 3.
    """
    import numpy as np

    table = np.asarray(rewards, dtype=float)  # (models, responses)
    spread = table.std(axis=1, keepdims=True)
    table = np.divide(table - table.mean(axis=1, keepdims=True), spread, out=np.zeros_like(table), where=spread > 0)
    mean = table.mean(axis=0)
    return {
        "mean": mean.tolist(),
        "worst_case": table.min(axis=0).tolist(),
        "uncertainty_weighted": (mean - penalty * table.var(axis=0)).tolist(),
        "disagreement": table.std(axis=0).tolist(),
    }
