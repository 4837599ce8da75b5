"""Judges a reward model on test prompts: scored responses in, a report as plain JSON-ready data out.

Everything is measured on the same compared pairs: which two responses of a prompt form a pair is decided before their
gold rewards are looked at, pairs with equal gold are left out and counted, and equal rewards count half. A rate never
stands without its n and its interval, nor the match rate without what length alone would reach.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation import rates, spread
from rm_assets.core.evaluation.best_of_n import best_of_n, component_accuracy
from rm_assets.core.evaluation.calibration import calibration
from rm_assets.core.evaluation.diagnosis import diagnose, verdict
from rm_assets.core.evaluation.pairs import ComparedPair, ScoredPair, ScoredResponse, compare_pairs, group_by_prompt
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import Pair

__all__ = ["ComparedPair", "ScoredPair", "ScoredResponse", "build_report", "compare_pairs", "group_by_prompt"]

REPORT_VERSION = 2


def build_report(
    *,
    test: Sequence[ScoredResponse],
    scored_train_pairs: Sequence[ScoredPair],
    train_pairs: Sequence[Pair],
    settings: EvaluationSection,
    canaries: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any],
    benchmarks: Sequence[Mapping[str, Any]] = (),
    train_accuracy: Mapping[str, Any] | None = None,
    learning_curve: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The evaluation report; its keys are the contract of report.json.

    `train_pairs` are all training pairs, for the direction of the length baseline; `training` is the summary that the
    reward model's metadata holds, whose kind is "existing" where these pairs trained another model or none.
    `train_accuracy` is an earlier report's, in place of `scored_train_pairs`. Only with a
    `learning_curve` (see core.evaluation.learning_curve) the report has that key. Raises: as `compare_pairs`.
    """
    pairs, num_ties = compare_pairs(test, settings)
    groups = group_by_prompt(test)
    scored = list(scored_train_pairs)
    train_margins = [chosen - rejected for _, chosen, rejected in scored]
    train_credits = [statistics.credit(margin) for margin in train_margins]
    report: dict[str, Any] = {
        "version": REPORT_VERSION,
        "match_rate": rates.match_rate(pairs, num_ties, settings),
        "length_baseline": rates.length_baseline(pairs, train_pairs, settings),
        "format_baseline": rates.format_baseline(pairs, settings),
        "by_difference": rates.breakdown(pairs, lambda pair: pair.difference, settings),
        "by_gold_margin": rates.by_gold_margin(pairs, settings),
        "by_length": rates.by_length(pairs, settings),
        "without_length": rates.without_length(pairs, settings),
        "by_source": rates.breakdown(pairs, lambda pair: pair.chosen.gold.source, settings),
        "train_accuracy": train_accuracy
        or rates.rate(train_credits, [pair.prompt_id for pair, _, _ in scored], settings, clustered=True),
        "validation_accuracy": {"value": _number(training.get("validation_accuracy"))},
        "distributions": spread.distributions(test, groups, pairs),
        "rank_correlation": spread.rank_correlation(test, groups),
        "calibration": calibration(pairs, seed=settings.seed),
        "best_of_n": best_of_n(groups, seed=settings.seed),
        "component_accuracy": component_accuracy(groups),
        "worst_mistakes": _worst_mistakes(pairs, settings.num_worst_mistakes),
        "canaries": [dict(canary) for canary in canaries],
        "num_test_prompts": len(groups),
        "num_test_responses": len(test),
        "num_single_response_prompts": sum(len(group) == 1 for group in groups),
        "num_train_pairs": _num_trained(training, train_pairs),
        "benchmarks": list(benchmarks),
        "training": _json_ready(training),
    }
    report["generalization_gap"] = _generalization_gap(report["train_accuracy"], report["match_rate"])
    if learning_curve:
        report["learning_curve"] = dict(learning_curve)
    report["diagnosis"] = diagnose(report)
    report["verdict"] = verdict(report)
    return report


def _num_trained(training: Mapping[str, Any], train_pairs: Sequence[Pair]) -> int:
    """What the training says; `train_pairs` may be another recipe's."""
    if training.get("kind") == "existing":
        return 0
    return int((training.get("num_pairs") or {}).get("trained", len(train_pairs)))


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


def _worst_mistakes(pairs: Sequence[ComparedPair], limit: int) -> list[dict[str, Any]]:
    """The wrong pairs, the one that the model is surest of first."""
    wrong = sorted((p for p in pairs if p.reward_margin < 0), key=lambda p: (p.reward_margin, p.prompt_id))
    return [
        {
            "prompt_id": pair.prompt_id,
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
