"""Label more or train longer? Hand-computed steps for each answer, and the curve of a few test pairs."""

from typing import Any

import pytest

from rm_assets.core.evaluation.learning_curve import ModelAtShare, answer_labels, answer_training, learning_curve
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import Pair, conversation
from rm_assets_tests.core.evaluation.test_evaluation import scored


def labels(value: float, low: float, high: float, *, few: int = 1_000, many: int = 2_000) -> dict[str, Any]:
    step = {"difference": {"value": value, "low": low, "high": high, "n": 840}, "more_pairs": 1_234}
    return answer_labels({"share": 0.5, "num_pairs": few, "whole_is_ahead": step}, {"num_pairs": many})


def test_a_last_step_whose_gain_is_sure_says_label_more() -> None:
    found = labels(0.031, 0.010, 0.052)
    assert found["answer"] == "yes" and found["useful_gain"] == 0.02
    assert found["sentence"] == (
        "Label more: with all training prompts in place of 50 % of them (2,000 pairs, not 1,000) the match rate changed by "
        "+3.1 points (95 % interval +1.0 to +5.2, n = 840)."
    )


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [(0.001, -0.015, 0.019), (0.010, 0.004, 0.016), (-0.03, -0.05, -0.01)],  # no gain seen, a sure small one, a loss
)
def test_a_step_that_excludes_a_useful_gain_says_that_more_labels_hardly_help(
    value: float, low: float, high: float
) -> None:
    found = labels(value, low, high)
    assert found["answer"] == "hardly"
    assert (
        "unlikely to help much" in found["sentence"]
        and "less than a useful gain of 2.0 points (2 for twice the pairs)" in found["sentence"]
    )


@pytest.mark.parametrize(("value", "low", "high"), [(0.008, -0.01, 0.026), (0.0, -0.02, 0.02), (0.02, 0.0, 0.04)])
def test_a_step_that_excludes_neither_says_so(value: float, low: float, high: float) -> None:
    found = labels(value, low, high)
    assert found["answer"] == "open"
    assert "cannot be told with 840 test pairs" in found["sentence"]
    assert "About 1,234 more test pairs" in found["sentence"]


def test_a_step_of_another_size_is_held_to_its_part_of_a_doubling() -> None:
    # From 1,000 to 1,414 pairs is half a doubling, so 1 point; to 4,000 two, so 4.
    assert labels(0.0, -0.012, 0.012, many=2_000)["answer"] == "hardly"
    smaller, larger = (labels(0.0, -0.012, 0.012, many=many) for many in (1_414, 4_000))
    assert smaller["useful_gain"] == pytest.approx(0.01, abs=1e-5) and smaller["answer"] == "open"
    assert larger["useful_gain"] == 0.04 and larger["answer"] == "hardly"
    assert labels(0.0, -0.001, 0.001, many=1_000)["answer"] == "open"  # no step at all


def training(history: list[dict[str, float]], metric: str | None = None) -> dict[str, Any]:
    return {"history": history, "settings": {"validation": {"metric": metric} if metric else None}}


def looks(*values: float, name: str) -> list[dict[str, float]]:
    return [{"step": 10.0 * place, "loss": 0.1, name: value} for place, value in enumerate(values, 1)]


def test_validation_that_is_best_at_the_end_is_still_improving() -> None:
    better = answer_training(training(looks(0.60, 0.52, 0.55, 0.50, name="validation_loss"), "loss"))
    assert better == {
        "still_improving": True,
        "sentence": "Training longer may help, too: the validation loss was 0.500 at the end (step 40), 0.520 at best before it (step 20).",
    }
    flat = answer_training(training(looks(0.60, 0.504, 0.50, name="validation_loss"), "loss"))
    assert flat["still_improving"] is False
    assert flat["sentence"].startswith("Nothing in its history speaks for training longer")
    rising = looks(0.7, 0.8, 0.75, name="validation_accuracy")
    assert answer_training(training(rising, "accuracy"))["still_improving"] is False
    assert answer_training(training(rising[:2], "accuracy"))["still_improving"] is True


def losses(*values: float) -> list[dict[str, float]]:
    return [{"step": float(place), "loss": value} for place, value in enumerate(values, 1)]


def test_without_validation_the_training_loss_is_asked_and_says_less() -> None:
    # Third quarter 0.5 ± 0.01, last 0.3 ± 0.01.
    falling = answer_training(training(losses(*[0.69] * 8, 0.49, 0.51, 0.49, 0.51, 0.29, 0.31, 0.29, 0.31)))
    assert falling["still_improving"] is True
    assert "0.500 in the third quarter of the training, 0.300 in the last" in falling["sentence"]
    assert "only training.validation would show" in falling["sentence"]
    # Third quarter 0.5, last 0.45, each with variance 0.0133: two standard errors are 0.163.
    noisy = answer_training(training(losses(*[0.69] * 8, 0.4, 0.6, 0.4, 0.6, 0.35, 0.55, 0.35, 0.55)))
    assert noisy["still_improving"] is False and "no more than by chance" in noisy["sentence"]


def test_few_logged_losses_or_one_look_tell_nothing() -> None:
    few = answer_training(training(losses(*[0.5] * 15)))
    assert few["still_improving"] is None and "15 logged losses: set training.validation" in few["sentence"]
    one = answer_training(training(looks(0.5, name="validation_loss"), "loss"))
    assert one["still_improving"] is None


def model(share: float, num_right: int, num_pairs: int) -> ModelAtShare:
    """Right in the first of four test pairs."""
    test = [scored(p, k, gold=k, reward=k if p < num_right else -k) for p in range(4) for k in (0, 1)]
    pair = Pair(
        pair_id="t", prompt_id="tp", source="s", split="train", chosen=conversation("p", None, "a"),
        rejected=conversation("p", None, "b"), chosen_id="a", rejected_id="b", chosen_gold_reward=1.0,
        rejected_gold_reward=0.0, gold_margin=1.0,
    )  # fmt: skip
    summary = {"num_pairs": {"trained": num_pairs}, "num_optimizer_steps": num_pairs // 4, "validation_accuracy": None}
    return ModelAtShare(
        share=share, test=test, train_pairs=[(pair, 1.0, 0.0), (pair, 0.0, 1.0)], training=summary | training([])
    )


def test_every_model_is_judged_on_the_same_pairs_and_compared_with_the_whole() -> None:
    found = learning_curve([model(0.25, 1, 8), model(0.5, 1, 16), model(1.0, 3, 32)], EvaluationSection())
    first, second, whole = found["points"]
    assert [point["match_rate"]["value"] for point in found["points"]] == [0.25, 0.25, 0.75]
    assert [point["num_pairs"] for point in found["points"]] == [8, 16, 32]
    assert {point["match_rate"]["n"] for point in found["points"]} == {4} and first["train_accuracy"]["value"] == 0.5
    ahead = second["whole_is_ahead"]
    assert ahead["difference"]["value"] == 0.5 and (ahead["num_better"], ahead["num_worse"]) == (2, 0)
    assert ahead["p_value"] == 0.5 and "whole_is_ahead" not in whole  # two heads of two tosses, or two tails
    assert found["label_more"]["answer"] == "open" and found["train_longer"]["still_improving"] is None
    assert found["answer"] == f"{found['label_more']['sentence']} {found['train_longer']['sentence']}"
