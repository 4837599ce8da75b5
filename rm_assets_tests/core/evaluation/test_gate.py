"""The gate on hand-made reports and rewards: each fault is found by its own check, and a better model passes."""

from typing import Any

import pytest

from rm_assets.core.evaluation.gate import Released, calibrated, high_match_rate, no_worse, not_by_length
from rm_assets.core.recipe import EvaluationSection, GateSection
from rm_assets.core.records import ProxyReward

SETTINGS = EvaluationSection()


def rate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 100}


def rewards(right: set[int], num_prompts: int = 20, prefix: str = "r") -> list[ProxyReward]:
    """Two responses to each prompt, gold 1 and 0; the model orders those of the prompts in `right` as gold does."""
    return [
        ProxyReward(
            prompt_id=f"p{n}", response_id=f"{prefix}{n}{k}", source="toy", sample_index=k, num_characters=5,
            comparison=None, gold_reward=float(k), reward=float(k if n in right else -k),
        )
        for n in range(num_prompts)
        for k in (0, 1)
    ]  # fmt: skip


def test_the_lower_end_of_the_match_rate_decides_not_the_rate() -> None:
    assert high_match_rate({"match_rate": rate(0.6, 0.51, 0.69)}, 0.5).passed
    finding = high_match_rate({"match_rate": rate(0.6, 0.49, 0.7)}, 0.5)
    assert not finding.passed and "0.600 (0.490 to 0.700, n = 100)" in finding.sentence


def test_calibration_counts_beyond_what_chance_gives() -> None:
    error = {"value": 0.2, "by_chance": 0.12, "n": 30}
    report = {"calibration": {"expected_calibration_error": error}}
    assert calibrated(report, 0.1).passed
    finding = calibrated(report, 0.05)
    assert not finding.passed and finding.numbers["rm/calibration_error_beyond_chance"] == pytest.approx(0.08)


def test_a_model_that_goes_by_length_does_not_pass_and_one_that_cannot_be_told_does_not_either() -> None:
    assert not not_by_length({"without_length": {"balanced": rate(0.52, 0.44, 0.6)}}, 0.5).passed
    assert not_by_length({"without_length": {"balanced": rate(0.6, 0.54, 0.66)}}, 0.5).passed
    finding = not_by_length({"without_length": {"balanced": None}}, 0.5)
    assert not finding.passed and "cannot be told" in finding.sentence


def test_without_a_release_nothing_is_worse() -> None:
    assert no_worse(rewards(set()), None, SETTINGS).passed


def test_only_a_significant_loss_on_the_same_pairs_counts() -> None:
    released = Released("toy-1", "production", rewards(set(range(15))))
    # 15 right before. Of 20 pairs, 6 lost and none won: p = 2 / 2**6 = 0.031; 5 lost: 2 / 2**5 = 0.0625.
    worse = no_worse(rewards(set(range(9))), released, SETTINGS)
    assert not worse.passed and "p = 0.031" in worse.sentence and "toy-1 (production) 0.750" in worse.sentence
    assert no_worse(rewards(set(range(10))), released, SETTINGS).passed
    better = no_worse(rewards(set(range(20))), Released("a", "staging", rewards(set(range(10)))), SETTINGS)
    assert better.passed and better.numbers["rm/difference_to_release"] == 0.5


def test_a_release_that_was_judged_on_other_responses_cannot_be_compared() -> None:
    for other, says in ((rewards(set(), prefix="other"), "no pair is common"), (None, "in this store no more")):
        finding = no_worse(rewards(set()), Released("toy-1", "staging", other), SETTINGS)
        assert not finding.passed and says in finding.sentence


def test_a_limit_that_is_given_in_part_keeps_its_severity() -> None:
    gate = GateSection.model_validate({"match_rate_is_high": {"limit": 0.7}})
    assert (gate.match_rate_is_high.severity, gate.match_rate_is_high.limit) == ("error", 0.7)
