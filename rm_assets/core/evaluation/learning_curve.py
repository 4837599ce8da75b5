"""Label more or train longer? Match rate against the number of training pairs, and what the training's history says.

Models trained on shares of the training prompts are judged on the same test pairs as the whole one. What an answer may
claim is what the interval of the last step, from the largest share to all prompts, says; docs/evaluation.md has the rule.
Nothing is extrapolated: no curve is fitted to a few points that each hold the chance of one training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, variance
from typing import Any

from rm_assets.core.evaluation import ScoredPair, ScoredResponse, compare_pairs
from rm_assets.core.evaluation.comparison import compare
from rm_assets.core.evaluation.rates import pair_rate, rate
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.statistics import credit

USEFUL_GAIN = 0.02
"""Match rate that twice the pairs must gain to be worth their labels; a step of other size is held to its part of it."""
FLAT = 0.005
"""A last look at the validation pairs that is better by less (nats or share) counts as no better."""
FEWEST_LOGS = 16
"""Of the training loss, from which the last quarter is compared with the one before."""


@dataclass(frozen=True, kw_only=True)
class ModelAtShare:
    """A model trained on a share of the training prompts: its rewards for the test responses, and its own training.

    `test` are the same responses in the same order for every model, `train_pairs` some of the pairs that it was trained on.
    """

    share: float
    test: Sequence[ScoredResponse]
    train_pairs: Sequence[ScoredPair]
    training: Mapping[str, Any]


def learning_curve(models: Sequence[ModelAtShare], settings: EvaluationSection) -> dict[str, Any]:
    """The points by rising share, the last one the whole model, and both answers in words; plain data.

    Each point but the last has how far the `whole_is_ahead` of it (see comparison.compare).
    Raises: as `compare_pairs`.
    """
    compared = [compare_pairs(model.test, settings)[0] for model in models]
    credits = [[credit(pair.reward_margin) for pair in pairs] for pairs in compared]
    prompts = [pair.prompt_id for pair in compared[-1]]
    points: list[dict[str, Any]] = [
        {
            "share": model.share,
            "num_pairs": model.training["num_pairs"]["trained"],
            "num_optimizer_steps": model.training["num_optimizer_steps"],
            "match_rate": pair_rate(pairs, settings),
            "train_accuracy": _train_accuracy(model, settings),
            "validation_accuracy": model.training["validation_accuracy"],
        }
        for model, pairs in zip(models, compared, strict=True)
    ]
    for point, own in zip(points[:-1], credits[:-1], strict=True):
        point["whole_is_ahead"] = compare(own, credits[-1], prompts, seed=settings.seed)
    label_more = answer_labels(points[-2], points[-1])
    train_longer = answer_training(models[-1].training)
    answer = f"{label_more['sentence']} {train_longer['sentence']}"
    return {"points": points, "label_more": label_more, "train_longer": train_longer, "answer": answer}


def _train_accuracy(model: ModelAtShare, settings: EvaluationSection) -> dict[str, Any]:
    credits = [credit(chosen - rejected) for _, chosen, rejected in model.train_pairs]
    return rate(credits, [pair.prompt_id for pair, _, _ in model.train_pairs], settings, clustered=True)


def answer_labels(share: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Whether more labels would help, from the last step: {"answer": "yes", "hardly" or "open", "useful_gain", "sentence"}.

    "hardly" if the interval of its gain lies below a useful one, else "yes" if it lies above 0, else "open".
    """
    step = share["whole_is_ahead"]
    gain, few, many = step["difference"], share["num_pairs"], whole["num_pairs"]
    useful = USEFUL_GAIN * math.log2(many / few)
    found = (
        f"with all training prompts in place of {100 * share['share']:g} % of them ({many:,} pairs, not {few:,}) the match "
        f"rate changed by {100 * gain['value']:+.1f} points (95 % interval {100 * gain['low']:+.1f} to "
        f"{100 * gain['high']:+.1f}, n = {gain['n']:,})"
    )
    wanted = f"a useful gain of {100 * useful:.1f} points ({100 * USEFUL_GAIN:g} for twice the pairs)"
    if gain["high"] < useful:
        answer = "hardly"
        sentence = f"More labels of this kind are unlikely to help much: {found}, less than {wanted}."
    elif gain["low"] > 0:
        answer, sentence = "yes", f"Label more: {found}."
    else:
        more = step["more_pairs"]
        enough = f" About {more:,} more test pairs would show a change of this size." if more else ""
        answer = "open"
        sentence = (
            f"Whether more labels would help cannot be told with {gain['n']:,} test pairs: {found}; none and {wanted} are "
            f"both possible.{enough}"
        )
    return {"answer": answer, "useful_gain": useful, "sentence": sentence}


def answer_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the training was still improving when it ended: {"still_improving": True, False or None, "sentence"}.

    By its looks at the validation pairs; without two of them by its loss, which says less.
    """
    validation = training["settings"]["validation"]
    metric = validation["metric"] if validation else "loss"
    looks = _series(training["history"], f"validation_{metric}")
    return _by_validation(looks, metric) if len(looks) > 1 else _by_loss(_series(training["history"], "loss"))


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of what was logged."""
    return [(int(row["step"]), row[key]) for row in history if row.get(key) is not None and math.isfinite(row[key])]


def _by_validation(looks: Sequence[tuple[int, float]], metric: str) -> dict[str, Any]:
    sign = -1 if metric == "loss" else 1
    best_step, best = max(looks[:-1], key=lambda look: sign * look[1])
    step, last = looks[-1]
    is_better = sign * (last - best) > FLAT
    found = (
        f"the validation {metric} was {last:.3f} at the end (step {step:,}), {best:.3f} at best before it "
        f"(step {best_step:,})"
    )
    advice = "Training longer may help, too" if is_better else "Nothing in its history speaks for training longer"
    return {"still_improving": is_better, "sentence": f"{advice}: {found}."}


def _by_loss(losses: Sequence[tuple[int, float]]) -> dict[str, Any]:
    if len(losses) < FEWEST_LOGS:
        sentence = f"Whether training longer would help cannot be told from {len(losses)} logged losses"
        return {"still_improving": None, "sentence": f"{sentence}: set training.validation."}
    quarter, values = len(losses) // 4, [loss for _, loss in losses]
    before, last = values[-2 * quarter : -quarter], values[-quarter:]
    first, second = mean(before), mean(last)
    chance = 2 * math.sqrt((variance(before) + variance(last)) / quarter)
    found = f"{first:.3f} in the third quarter of the training, {second:.3f} in the last"
    if first - second > chance:
        sentence = (
            f"Training longer may help, too: the training loss was still falling ({found}); it also falls while a model "
            "learns its pairs by heart, which only training.validation would show."
        )
        return {"still_improving": True, "sentence": sentence}
    sentence = (
        f"Nothing in its history speaks for training longer: the training loss fell no more than by chance ({found})."
    )
    return {"still_improving": False, "sentence": sentence}
