"""Rates with their n and interval: the match rate, what simple rules reach on the same pairs, and the rate by kind of pair."""

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation.pairs import ComparedPair
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import Pair

TIE_RULE = "pairs with equal gold rewards are left out of n and counted in num_ties; equal rewards count half"


def rate(
    credits: Sequence[float], prompts: Sequence[str], settings: EvaluationSection, *, clustered: bool
) -> dict[str, Any]:
    """The mean of credits in [0, 1] as {value, low, high, n}: Wilson's interval, or the bootstrap's over prompts."""
    if clustered:
        low, high = statistics.bootstrap_interval(credits, prompts, seed=settings.seed)
    else:
        low, high = statistics.wilson_interval(math.fsum(credits), len(credits))
    return {"value": statistics.mean(credits), "low": low, "high": high, "n": len(credits)}


def pair_rate(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any]:
    credits = [statistics.credit(pair.reward_margin) for pair in pairs]
    return rate(credits, [pair.prompt_id for pair in pairs], settings, clustered=settings.pairs == "all")


def match_rate(pairs: Sequence[ComparedPair], num_ties: int, settings: EvaluationSection) -> dict[str, Any]:
    return pair_rate(pairs, settings) | {
        "num_ties": num_ties,
        "tie_rate": num_ties / (num_ties + len(pairs)),
        "num_equal_rewards": sum(pair.reward_margin == 0 for pair in pairs),
        "tie_rule": TIE_RULE,
        "interval": "95 % bootstrap over prompts" if settings.pairs == "all" else "95 % Wilson",
        "pairs": settings.pairs,
    }


def _baseline(
    pairs: Sequence[ComparedPair], ahead: Callable[[ComparedPair], float], rule: str, settings: EvaluationSection
) -> dict[str, Any]:
    """What preferring the response that is `ahead` reaches, and how far above it the model is on the same pairs."""
    prompts = [pair.prompt_id for pair in pairs]
    credits = [statistics.credit(ahead(pair)) for pair in pairs]
    gains = [statistics.credit(pair.reward_margin) - other for pair, other in zip(pairs, credits, strict=True)]
    low, high = statistics.bootstrap_interval(gains, prompts, seed=settings.seed, bounds=(-1.0, 1.0))
    return rate(credits, prompts, settings, clustered=settings.pairs == "all") | {
        "rule": rule,
        "num_equal": sum(ahead(pair) == 0 for pair in pairs),
        "model_advantage": {"value": statistics.mean(gains), "low": low, "high": high, "n": len(gains)},
    }


def length_baseline(
    pairs: Sequence[ComparedPair], train: Sequence[Pair], settings: EvaluationSection
) -> dict[str, Any]:
    """Prefers by number of characters, in the direction that training pairs favour (longer where they favour none)."""
    longer = statistics.accuracy(len(p.chosen[-1]["content"]) - len(p.rejected[-1]["content"]) for p in train)
    sign = -1 if longer is not None and longer < 0.5 else 1

    def ahead(pair: ComparedPair) -> float:
        return sign * (len(pair.chosen.gold.response) - len(pair.rejected.gold.response))

    baseline = _baseline(pairs, ahead, "longer is better" if sign > 0 else "shorter is better", settings)
    return baseline | {
        "train_share_longer": longer,
        "num_train_pairs": len(train),
        "unit": "characters of the response",
    }


def format_baseline(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any] | None:
    """Prefers the response that is in format; None unless every response has that component."""
    if not all("format" in side.gold.components for pair in pairs for side in (pair.chosen, pair.rejected)):
        return None

    def ahead(pair: ComparedPair) -> float:
        return pair.chosen.gold.components["format"] - pair.rejected.gold.components["format"]

    return _baseline(pairs, ahead, "in format is better", settings)


def breakdown(
    pairs: Sequence[ComparedPair], key: Callable[[ComparedPair], str], settings: EvaluationSection
) -> dict[str, Any]:
    """The match rate of each kind of pair, the most frequent kind first."""
    parts = [(name, list(part)) for name, part in groupby(sorted(pairs, key=key), key=key)]
    parts.sort(key=lambda part: -len(part[1]))
    return {name: pair_rate(part, settings) for name, part in parts}


def by_gold_margin(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any]:
    """The match rate of each quarter of the pairs by gold margin, smallest margins first; equal margins stay together."""
    import numpy as np

    margins = np.asarray([pair.gold_margin for pair in pairs])
    edges = np.unique(np.quantile(margins, [0.25, 0.5, 0.75]))
    place = np.searchsorted(edges, margins)  # edges[place - 1] < margin <= edges[place]
    parts = [
        [pair for pair, own in zip(pairs, place, strict=True) if own == number] for number in range(len(edges) + 1)
    ]
    ranges = [_range_of([pair.gold_margin for pair in part]) for part in parts if part]
    return {
        name: pair_rate(part, settings) for name, part in zip(_told_apart(ranges), filter(None, parts), strict=True)
    }


def _range_of(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _told_apart(ranges: Sequence[tuple[float, float]]) -> list[str]:
    """The ranges in as few digits as tell them apart, at least three; beside each other, two may meet in a rounded number."""
    for digits in range(3, 18):
        texts = [(f"{low:.{digits}g}", f"{high:.{digits}g}") for low, high in ranges]
        names = [low if low == high else f"{low} to {high}" for low, high in texts]
        if len(set(names)) == len(names):
            break
    return names


MATCHED = 0.1
"""Two responses are of one length if they differ by at most this share of the longer one."""


def by_length(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any]:
    """The match rate by how long the better response is beside the other one, in characters."""
    names = ("less than half as long", "shorter", "equally long", "longer", "more than twice as long")
    parts: dict[str, list[ComparedPair]] = {name: [] for name in names}
    for pair in pairs:
        chosen, rejected = _lengths(pair)
        steps = (2 * chosen >= rejected) + (chosen >= rejected) + (chosen > rejected) + (chosen > 2 * rejected)
        parts[names[steps]].append(pair)
    return {name: pair_rate(part, settings) for name, part in parts.items() if part}


def without_length(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any]:
    """Two match rates in which length cannot help.

    `matched`: of the pairs whose responses are of one length. `balanced`: the mean of the rates where the better response is
    longer and where it is shorter, 0.5 for a model that goes by length alone; None where either kind is missing. Its interval
    combines theirs, which go together where prompts have pairs of both kinds (MOVER: Zou and Donner 2008, "Construction of
    confidence limits about effect measures"; with the correlation of the two rates).
    """
    matched = [p for p in pairs if abs(_lengths(p)[0] - _lengths(p)[1]) <= MATCHED * max(_lengths(p))]
    longer = [p for p in pairs if _lengths(p)[0] > _lengths(p)[1]]
    shorter = [p for p in pairs if _lengths(p)[0] < _lengths(p)[1]]
    return {
        "matched": pair_rate(matched, settings) | {"largest_difference": MATCHED},
        "balanced": _mean_of(longer, shorter, settings) if longer and shorter else None,
    }


def _mean_of(
    longer: Sequence[ComparedPair], shorter: Sequence[ComparedPair], settings: EvaluationSection
) -> dict[str, Any]:
    one, two = pair_rate(longer, settings), pair_rate(shorter, settings)
    value, together = (one["value"] + two["value"]) / 2, _correlation(longer, shorter)

    def half(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 + second**2 + 2 * together * first * second)) / 2

    return {
        "value": value,
        "low": value - half(one["value"] - one["low"], two["value"] - two["low"]),
        "high": value + half(one["high"] - one["value"], two["high"] - two["value"]),
        "n": one["n"] + two["n"],
        "n_longer": one["n"],
        "n_shorter": two["n"],
    }


def _correlation(first: Sequence[ComparedPair], second: Sequence[ComparedPair]) -> float:
    """Of the match rates of two kinds of pairs, over prompts; 0 where no prompt has both, or one rate is the same in all."""
    one, two = _residuals(first), _residuals(second)
    spread = math.hypot(*one.values()) * math.hypot(*two.values())
    return math.fsum(one[prompt] * two.get(prompt, 0.0) for prompt in one) / spread if spread else 0.0


def _residuals(pairs: Sequence[ComparedPair]) -> dict[str, float]:
    """For each prompt, by how much its pairs' credits are above so many times the rate of all."""
    credits = [statistics.credit(pair.reward_margin) for pair in pairs]
    rate_of_all, sums = math.fsum(credits) / len(credits), dict[str, float]()
    for pair, credit in zip(pairs, credits, strict=True):
        sums[pair.prompt_id] = sums.get(pair.prompt_id, 0.0) + credit - rate_of_all
    return {
        prompt: round(total, 9) for prompt, total in sums.items()
    }  # the correlation of rounding errors says nothing


def _lengths(pair: ComparedPair) -> tuple[int, int]:
    """Characters of the better and of the other response."""
    return len(pair.chosen.gold.response), len(pair.rejected.gold.response)
