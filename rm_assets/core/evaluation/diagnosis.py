"""What the figures of a report mean: signs of known faults with their remedy, and one sentence to decide by."""

from collections.abc import Mapping
from typing import Any

FEW_TRAIN_PAIRS = 1000
WIDEST_INTERVAL = 0.1
LARGEST_GAP = 0.1
LARGEST_CALIBRATION_ERROR = 0.1
FEWEST_PROMPTS = 20
"""From which the interval of a mean over prompts says something."""


def diagnose(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Signs that something is wrong, each {sign, severity, evidence, remedy}; severity is "problem" or "hint".

    Empty when every figure is as it should be. A figure that is missing gives no sign.
    """
    found = [
        *_fit_signs(report),
        *_spread_signs(report),
        *_baseline_signs(report),
        *_trust_signs(report),
        *_sample_signs(report),
    ]
    if is_existing(report):
        found = [*map(_of_existing, found), *_unknown_training()]
    order = {"problem": 0, "hint": 1}
    return sorted(found, key=lambda sign: order[sign["severity"]])


def is_existing(report: Mapping[str, Any]) -> bool:
    """Whether the model was there already, so that nothing is known of its training."""
    return bool(report["training"].get("kind") == "existing")


def _of_existing(sign: dict[str, str]) -> dict[str, str]:
    """Settings of a training are no remedy for a model that was not trained here, unless somebody goes on from it."""
    speaks_of_training = "training." in sign["remedy"] or "train on" in sign["remedy"]
    where = " (in a training that starts from this model)" if speaks_of_training else ""
    return sign | {"remedy": sign["remedy"] + where}


def _unknown_training() -> list[dict[str, str]]:
    evidence = "the checkpoint was not trained here, so these test prompts may have been among what it was trained on"
    remedy = "read its model card, or judge it on prompts that are newer than it is"
    return [_sign("hint", "what it was trained on is not known", evidence, remedy)]


def _sign(severity: str, sign: str, evidence: str, remedy: str) -> dict[str, str]:
    return {"sign": sign, "severity": severity, "evidence": evidence, "remedy": remedy}


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _is_plain(training: Mapping[str, Any]) -> bool:
    """Whether the loss of a perfect model is near 0: soft labels have an entropy, margins and regression another scale."""
    objective = training.get("settings", {}).get("objective") or {"kind": "bradley_terry"}
    return objective["kind"] == "bradley_terry" and not objective.get("margin_scale")


def _fit_signs(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Loss, accuracy on training pairs, and the gap to test pairs."""
    signs = []
    train, gap, training = report["train_accuracy"], report["generalization_gap"], report["training"]
    loss = training.get("final_loss")
    more = "raise training.learning_rate (ten times is not too much to try) or training.num_epochs"
    if "final_loss" in training and loss is None:
        remedy = "lower training.learning_rate and look at the gradient norms"
        signs.append(_sign("problem", "training diverged", "the final loss is not a finite number", remedy))
    elif loss is not None and _is_plain(training) and loss > 0.5:
        evidence = f"the final loss is {loss:.2f}; guessing gives 0.69 and a trained model should be below 0.5"
        remedy = f"{more}; check that chosen and rejected are not swapped"
        signs.append(_sign("problem", "the loss has hardly fallen", evidence, remedy))
    elif loss is not None and _is_plain(training) and loss > 0.3:
        evidence = f"the final loss is {loss:.2f}; well separated pairs reach 0.3 or less"
        remedy = f"{more}, unless gold itself is noisy"
        signs.append(_sign("hint", "the loss could fall further", evidence, remedy))
    if train["value"] is not None and train["value"] < 0.8:
        failed = train["value"] < 0.7
        evidence = (
            f"{_percent(train['value'])} of {train['n']} training pairs are ordered as by gold, "
            f"below {70 if failed else 80} %"
        )
        sign = "training failed" if failed else "the model does not fit its training pairs"
        signs.append(_sign("problem", sign, evidence, f"{more}; check the chat template and training.max_length"))
    if gap["value"] is not None and gap["value"] >= LARGEST_GAP and gap["low"] > 0:
        evidence = (
            f"accuracy is {100 * gap['value']:.1f} points higher on training pairs (n = {gap['num_train_pairs']}) "
            f"than on test pairs (n = {gap['num_test_pairs']}); part of it may be that the pair policy makes "
            "training pairs easier"
        )
        remedy = "use more training prompts, fewer training.num_epochs, or more training.weight_decay"
        signs.append(_sign("problem", "the model does not generalize", evidence, remedy))
    return signs


def _spread_signs(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rewards that hardly differ."""
    spread = report["distributions"]["compression"]
    barely = spread["barely_separated"]
    if barely["value"] < 0.5 and spread["mean_abs_reward_margin"] >= 0.3:
        return []
    evidence = (
        f"the rewards of a pair are {spread['mean_abs_reward_margin']:.2f} log odds apart in the mean (below 0.3 is "
        f"narrow), and {_percent(barely['value'])} of {barely['n']} test pairs less than {barely['threshold']}"
    )
    remedy = "raise training.learning_rate and training.num_epochs; more of the same data seldom helps"
    return [_sign("problem", "compressed rewards", evidence, remedy)]


def _baseline_signs(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """No better than a rule that needs no model."""
    signs = []
    match = report["match_rate"]
    if match["low"] <= 0.5:
        evidence = (
            f"the interval of the match rate, {_percent(match['low'])} to {_percent(match['high'])} "
            f"(n = {match['n']}), is not above 50 %"
        )
        remedy = (
            "see in its model card what it was made for, and which chat template it was trained with"
            if is_existing(report)
            else "look at the accuracy on training pairs: if it is high the model does not generalize, else it did not learn"
        )
        signs.append(_sign("problem", "not shown to be better than chance", evidence, remedy))
    for feature in ("length", "format"):
        baseline = report[f"{feature}_baseline"]
        gain = baseline["model_advantage"] if baseline else None
        if gain is None or gain["low"] > 0:
            continue
        evidence = (
            f'the rule "{baseline["rule"]}" reaches {_percent(baseline["value"])} on the same {gain["n"]} pairs; '
            f"the model differs by {100 * gain['value']:+.1f} points "
            f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        )
        remedy = f"train on more pairs in which {feature} and gold disagree, or start from a stronger checkpoint"
        signs.append(_sign("problem", f"not shown to be better than {feature} alone", evidence, remedy))
    return signs


def _trust_signs(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Whether the rewards' size means anything, and whether choosing by them goes on helping."""
    signs = []
    found = report["calibration"]
    error, temperature = found["expected_calibration_error"], found["temperature"]
    is_high = error["value"] > max(LARGEST_CALIBRATION_ERROR, 2 * error["by_chance"])
    if is_high and found["mean_confidence"] > report["match_rate"]["value"]:
        evidence = (
            f"it is sure to {_percent(found['mean_confidence'])} in the mean and right in "
            f"{_percent(report['match_rate']['value'])}; calibration error {100 * error['value']:.1f} points, n = {error['n']}"
        )
        cure = (
            "do not read probabilities from rewards"
            if temperature is None
            else f"divide rewards by {temperature:.2g} where their size matters"
        )
        remedy = f"{cure}; fewer training.num_epochs or soft labels make a model less sure"
        signs.append(_sign("hint", "too sure of itself", evidence, remedy))
    curve = report["best_of_n"]
    points = curve["points"] if curve and curve["num_prompts"] >= FEWEST_PROMPTS else []
    if len(points) > 1:
        best, last = max(points, key=lambda point: point["gold"]["value"]), points[-1]
        if last["gold"]["high"] < best["gold"]["low"]:
            evidence = (
                f"the gold reward of the model's best of {last['n']} is {last['gold']['value']:.3g}, below the "
                f"{best['gold']['value']:.3g} of its best of {best['n']}"
            )
            remedy = f"do not choose among more than {best['n']}, and label responses that this model likes and gold does not"
            signs.append(_sign("problem", "gold falls where the model is pushed", evidence, remedy))
    return signs


def _sample_signs(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Too few pairs, to learn from or to tell."""
    signs = []
    trained = report["num_train_pairs"]
    if trained < FEW_TRAIN_PAIRS and not is_existing(report):
        remedy = "use more training prompts, or more responses per prompt with pairs.policy 'all'"
        evidence = f"the model was trained on {trained} pairs, fewer than {FEW_TRAIN_PAIRS}"
        signs.append(_sign("hint", "few training pairs", evidence, remedy))
    match = report["match_rate"]
    if match["high"] - match["low"] > WIDEST_INTERVAL:
        evidence = (
            f"the interval of the match rate is {100 * (match['high'] - match['low']):.0f} points wide with "
            f"n = {match['n']}; models that differ by less cannot be told apart"
        )
        remedy = "use more test prompts: about 400 untied pairs make it narrower than 10 points whatever the rate"
        signs.append(_sign("hint", "too few test pairs to tell", evidence, remedy))
    return signs


def verdict(report: Mapping[str, Any]) -> str:
    """One sentence to decide by: match rate, interval, n, distance from the length baseline, and what follows."""
    match, length = report["match_rate"], report["length_baseline"]
    gain = length["model_advantage"]
    if match["low"] <= 0.5:
        conclusion = "it is not shown to be better than chance"
    elif gain["low"] <= 0:
        conclusion = "it is not shown to know more than length"
    elif match["low"] >= 0.8:
        conclusion = "a good stand-in for gold on prompts like these"
    elif match["high"] < 0.8:
        conclusion = "it has learned something, but less than the 80 % that make a good stand-in for gold"
    else:
        conclusion = "it has learned something; whether it reaches the 80 % of a good stand-in for gold is open"
    side = "above" if gain["value"] >= 0 else "below"
    return (
        f"The model agrees with gold on {_percent(match['value'])} of {match['n']:,} test pairs (95 % interval "
        f"{_percent(match['low'])} to {_percent(match['high'])}), {abs(100 * gain['value']):.1f} points {side} "
        f'"{length["rule"]}" ({_percent(length["value"])}): {conclusion}.'
    )
