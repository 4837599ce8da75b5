"""Judges a reward model on test prompts: scored responses in, a report as plain JSON-ready data out.

Everything is measured on the same compared pairs: which two responses of a prompt form a pair is decided before their
gold rewards are looked at, pairs with equal gold are left out and counted, and equal rewards count half. A rate never
stands without its n and its interval, nor the match rate without what length alone would reach.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

from rm_assets.core import digests, statistics
from rm_assets.core.diagnosis import diagnose, verdict
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import GoldReward, Pair

REPORT_VERSION = 1
TIE_RULE = "pairs with equal gold rewards are left out of n and counted in num_ties; equal rewards count half"
BARELY_SEPARATED = 0.1  # log odds: the model would call the better response at 52.5 %

ScoredPair = tuple[Pair, float, float]
"""A training pair, the reward of its chosen and the reward of its rejected response."""


@dataclass(frozen=True, kw_only=True)
class ScoredResponse:
    """A labelled response with the model's `reward` (log odds, up to a constant) and the tokens the model read."""

    gold: GoldReward
    reward: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Two responses to a test prompt; `chosen` has the higher gold reward."""

    chosen: ScoredResponse
    rejected: ScoredResponse

    @property
    def reward_margin(self) -> float:
        """Reward of chosen minus reward of rejected, in log odds; below 0 the model contradicts gold."""
        return self.chosen.reward - self.rejected.reward

    @property
    def gold_margin(self) -> float:
        """Gold reward of chosen minus that of rejected, in units of the gold reward; above 0."""
        return self.chosen.gold.gold_reward - self.rejected.gold.gold_reward

    @property
    def difference(self) -> str:
        """Names of the verifier's components in which the two differ, joined by "+"."""
        one, two = self.chosen.gold.components, self.rejected.gold.components
        if not one or not two:
            return "none recorded"
        names = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        return "+".join(names) or "no component differs"


def group_by_prompt(test: Sequence[ScoredResponse]) -> list[list[ScoredResponse]]:
    """The responses of each prompt in order of their index, prompts in order of first appearance."""
    groups: dict[str, list[ScoredResponse]] = {}
    for response in test:
        groups.setdefault(response.gold.prompt_id, []).append(response)
    return [sorted(group, key=lambda r: (r.gold.sample_index, r.gold.response_id)) for group in groups.values()]


def comparable(groups: Sequence[Sequence[ScoredResponse]]) -> list[list[ScoredResponse]]:
    """The groups again, each cut into the responses whose gold rewards compare."""
    parts: dict[tuple[str, str | None], list[ScoredResponse]] = {}
    for group in groups:
        for response in group:
            parts.setdefault((response.gold.prompt_id, response.gold.comparison), []).append(response)
    return list(parts.values())


def compare_pairs(test: Sequence[ScoredResponse], settings: EvaluationSection) -> tuple[list[ComparedPair], int]:
    """The pairs that the model is judged on, and the number of gold ties left out.

    With "one_random" the pair of a prompt depends on the seed, the prompt's id and its number of responses alone.

    Raises: DataError DATA_004 without test responses, DATA_005 without a pair; ModelError MODEL_006, DataError
    DATA_008 for a reward or gold reward that is not finite; ValueError for a response that is not of the test split.
    """
    _check(test)
    pairs: list[ComparedPair] = []
    num_ties = 0
    for group in group_by_prompt(test):
        candidates = [(a, b) for a, b in combinations(group, 2) if a.gold.comparison == b.gold.comparison]
        if settings.pairs == "one_random" and candidates:
            place = digests.unit_interval("test pair", settings.seed, group[0].gold.prompt_id)
            candidates = [candidates[int(place * len(candidates))]]
        for one, two in candidates:
            margin = one.gold.gold_reward - two.gold.gold_reward
            num_ties += margin == 0
            if margin:
                better, worse = (one, two) if margin > 0 else (two, one)
                pairs.append(ComparedPair(chosen=better, rejected=worse))
    if not pairs:
        raise DataError(
            "DATA_005",
            "no test pair is left to judge the model on",
            why=f"{num_ties} pairs have equal gold rewards" if num_ties else "no test prompt has two responses",
            fix="raise sampling.num_test_responses, use more test prompts, set evaluation.pairs to 'all', "
            "or choose a gold scorer that tells responses apart",
        )
    return pairs, num_ties


def _check(test: Sequence[ScoredResponse]) -> None:
    """Raises what `compare_pairs` says of its input."""
    if not test:
        raise DataError(
            "DATA_004",
            "the test split has no responses",
            why="the match rate is measured on test prompts only",
            fix="give a larger prompts.split.test, more prompts, or prompts.test",
        )
    for response in test:
        gold = response.gold
        name = f"response {gold.response_id} to prompt {gold.prompt_id}"
        if gold.split != "test":
            raise ValueError(f"{name} is of split {gold.split!r}; pass test responses only")
        if not math.isfinite(response.reward):
            raise ModelError(
                "MODEL_006", f"{name} has the reward {response.reward}", fix="lower training.learning_rate"
            )
        if not math.isfinite(gold.gold_reward):
            raise DataError("DATA_008", f"{name} has the gold reward {gold.gold_reward}", fix="correct or drop the row")


def build_report(
    *,
    test: Sequence[ScoredResponse],
    scored_train_pairs: Sequence[ScoredPair],
    train_pairs: Sequence[Pair],
    settings: EvaluationSection,
    canaries: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The evaluation report; its keys are the contract of report.json.

    `train_pairs` are all training pairs, for the direction of the length baseline; `training` is the summary that the
    reward model's metadata holds. Raises: as `compare_pairs`.
    """
    pairs, num_ties = compare_pairs(test, settings)
    groups = group_by_prompt(test)
    scored = list(scored_train_pairs)
    train_margins = [chosen - rejected for _, chosen, rejected in scored]
    train_credits = [statistics.credit(margin) for margin in train_margins]
    report: dict[str, Any] = {
        "version": REPORT_VERSION,
        "match_rate": _match_rate(pairs, num_ties, settings),
        "length_baseline": _length_baseline(pairs, train_pairs, settings),
        "format_baseline": _format_baseline(pairs, settings),
        "by_difference": _breakdown(pairs, lambda pair: pair.difference, settings),
        "by_source": _breakdown(pairs, lambda pair: pair.chosen.gold.source, settings),
        "train_accuracy": _rate(train_credits, [pair.prompt_id for pair, _, _ in scored], settings, clustered=True),
        "validation_accuracy": {"value": _number(training.get("validation_accuracy"))},
        "distributions": _distributions(test, groups, pairs),
        "rank_correlation": _rank_correlation(test, groups),
        "worst_mistakes": _worst_mistakes(pairs, settings.num_worst_mistakes),
        "canaries": [dict(canary) for canary in canaries],
        "num_test_prompts": len(groups),
        "num_test_responses": len(test),
        "num_single_response_prompts": sum(len(group) == 1 for group in groups),
        "num_train_pairs": len(train_pairs),
        "training": _json_ready(training),
    }
    report["generalization_gap"] = _generalization_gap(report["train_accuracy"], report["match_rate"])
    report["diagnosis"] = diagnose(report)
    report["verdict"] = verdict(report)
    return report


def _number(value: Any) -> float | None:
    """The value as a finite float, else None."""
    found = float(value) if isinstance(value, int | float) else math.nan
    return found if math.isfinite(found) else None


def _json_ready(value: Any) -> Any:
    """Plain data with None in place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return _number(value) if isinstance(value, float) else value


def _rate(
    credits: Sequence[float], prompts: Sequence[str], settings: EvaluationSection, *, clustered: bool
) -> dict[str, Any]:
    """The mean of credits in [0, 1] as {value, low, high, n}: Wilson's interval, or the bootstrap's over prompts."""
    if clustered:
        low, high = statistics.bootstrap_interval(credits, prompts, seed=settings.seed)
    else:
        low, high = statistics.wilson_interval(math.fsum(credits), len(credits))
    return {"value": statistics.mean(credits), "low": low, "high": high, "n": len(credits)}


def _pair_rate(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any]:
    credits = [statistics.credit(pair.reward_margin) for pair in pairs]
    return _rate(credits, [_prompt_id(pair) for pair in pairs], settings, clustered=settings.pairs == "all")


def _prompt_id(pair: ComparedPair) -> str:
    return pair.chosen.gold.prompt_id


def _match_rate(pairs: Sequence[ComparedPair], num_ties: int, settings: EvaluationSection) -> dict[str, Any]:
    return _pair_rate(pairs, settings) | {
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
    prompts = [_prompt_id(pair) for pair in pairs]
    credits = [statistics.credit(ahead(pair)) for pair in pairs]
    gains = [statistics.credit(pair.reward_margin) - other for pair, other in zip(pairs, credits, strict=True)]
    low, high = statistics.bootstrap_interval(gains, prompts, seed=settings.seed, bounds=(-1.0, 1.0))
    return _rate(credits, prompts, settings, clustered=settings.pairs == "all") | {
        "rule": rule,
        "num_equal": sum(ahead(pair) == 0 for pair in pairs),
        "model_advantage": {"value": statistics.mean(gains), "low": low, "high": high, "n": len(gains)},
    }


def _length_baseline(
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


def _format_baseline(pairs: Sequence[ComparedPair], settings: EvaluationSection) -> dict[str, Any] | None:
    """Prefers the response that is in format; None unless every response has that component."""
    if not all("format" in side.gold.components for pair in pairs for side in (pair.chosen, pair.rejected)):
        return None

    def ahead(pair: ComparedPair) -> float:
        return pair.chosen.gold.components["format"] - pair.rejected.gold.components["format"]

    return _baseline(pairs, ahead, "in format is better", settings)


def _breakdown(
    pairs: Sequence[ComparedPair], key: Callable[[ComparedPair], str], settings: EvaluationSection
) -> dict[str, Any]:
    """The match rate of each kind of pair, the most frequent kind first."""
    parts = [(name, list(part)) for name, part in groupby(sorted(pairs, key=key), key=key)]
    parts.sort(key=lambda part: -len(part[1]))
    return {name: _pair_rate(part, settings) for name, part in parts}


def _distributions(
    test: Sequence[ScoredResponse], groups: Sequence[Sequence[ScoredResponse]], pairs: Sequence[ComparedPair]
) -> dict[str, Any]:
    """How far apart rewards and gold rewards lie, over all test responses, within prompts and in the compared pairs."""
    margins, gold_margins = [pair.reward_margin for pair in pairs], [pair.gold_margin for pair in pairs]
    reward_spread, gold_spread = statistics.summarize(margins), statistics.summarize(gold_margins)
    sizes = [abs(margin) for margin in margins]
    ratio = reward_spread["sd"] / gold_spread["sd"] if gold_spread["sd"] else None
    return {
        "reward": statistics.summarize(response.reward for response in test),
        "gold_reward": statistics.summarize(response.gold.gold_reward for response in test),
        "num_tokens": statistics.summarize(response.num_tokens for response in test),
        "within_prompt_sd": {
            "reward": statistics.within_group_sd([r.reward for r in group] for group in groups),
            "gold_reward": statistics.within_group_sd(
                [r.gold.gold_reward for r in group] for group in comparable(groups)
            ),
        },
        "reward_margin": reward_spread,
        "gold_margin": gold_spread,
        "compression": {
            "mean_abs_reward_margin": statistics.mean(sizes),
            "median_abs_reward_margin": statistics.summarize(sizes)["quantiles"]["0.5"],
            "barely_separated": {
                "value": statistics.mean(float(size < BARELY_SEPARATED) for size in sizes),
                "threshold": BARELY_SEPARATED,
                "n": len(sizes),
            },
            "implied_match_rate": statistics.mean(1 / (1 + math.exp(-min(size, 700.0))) for size in sizes),
            "margin_sd_ratio": ratio,
            "n": len(sizes),
            "formula": "reward margins are log odds (Bradley-Terry), so their size needs no reference: "
            "implied_match_rate is the mean of 1 / (1 + exp(-|reward margin|)), the match rate that the margins claim; "
            "margin_sd_ratio is sd(reward margins) / sd(gold margins) and depends on the unit of gold",
        },
        "loss": {"value": statistics.mean(_bradley_terry_loss(margin) for margin in margins), "n": len(margins)},
    }


def _bradley_terry_loss(margin: float) -> float:
    """-log(sigmoid(margin)), without overflow; log 2 for a model that knows nothing."""
    return max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))


def _rank_correlation(test: Sequence[ScoredResponse], groups: Sequence[Sequence[ScoredResponse]]) -> dict[str, Any]:
    gold, rewards = [r.gold.gold_reward for r in test], [r.reward for r in test]
    lengths = [float(len(r.gold.response)) for r in test]
    ranked = [([r.gold.gold_reward for r in group], [r.reward for r in group]) for group in comparable(groups)]
    return {
        "spearman": {"value": statistics.spearman(gold, rewards), "n": len(test)},
        "kendall": {"value": statistics.kendall(gold, rewards), "n": len(test)},
        "per_prompt": statistics.per_prompt_rank_correlation(ranked),
        "reward_with_length": {"value": statistics.spearman(lengths, rewards), "n": len(test)},
        "gold_reward_with_length": {"value": statistics.spearman(lengths, gold), "n": len(test)},
    }


def _worst_mistakes(pairs: Sequence[ComparedPair], limit: int) -> list[dict[str, Any]]:
    """The wrong pairs, the one that the model is surest of first."""
    wrong = sorted((p for p in pairs if p.reward_margin < 0), key=lambda p: (p.reward_margin, _prompt_id(p)))
    return [
        {
            "prompt_id": _prompt_id(pair),
            "source": pair.chosen.gold.source,
            "difference": pair.difference,
            "system": pair.chosen.gold.system,
            "history": pair.chosen.gold.history,
            "prompt": pair.chosen.gold.prompt,
            "reward_margin": pair.reward_margin,
            "gold_margin": pair.gold_margin,
        }
        | {
            key: value
            for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected))
            for key, value in (
                (side, response.gold.response),
                (f"{side}_id", response.gold.response_id),
                (f"{side}_gold_reward", response.gold.gold_reward),
                (f"{side}_reward", response.reward),
            )
        }
        for pair in wrong[:limit]
    ]


def _generalization_gap(train: Mapping[str, Any], match: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy on training pairs minus match rate on test pairs. The pair policy can make training pairs easier."""
    counts = {"num_train_pairs": train["n"], "num_test_pairs": match["n"]}
    if train["value"] is None:
        return {"value": None, "low": None, "high": None} | counts
    low, high = statistics.difference_interval(
        train["value"], (train["low"], train["high"]), match["value"], (match["low"], match["high"])
    )
    return {"value": train["value"] - match["value"], "low": low, "high": high} | counts
