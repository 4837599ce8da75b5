"""Calibration against hand-computed cases and SciPy's optimizer."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from rm_assets.core.evaluation.calibration import bradley_terry_loss, calibration
from rm_assets.core.evaluation.pairs import ComparedPair
from rm_assets.core.statistics import wilson_interval
from rm_assets_tests.core.evaluation.test_evaluation import scored


def pairs(margins: Sequence[float]) -> list[ComparedPair]:
    return [
        ComparedPair(chosen=scored(n, 0, 1.0, margin), rejected=scored(n, 1, 0.0, 0.0))
        for n, margin in enumerate(margins)
    ]


def test_the_error_of_a_hand_computed_case() -> None:
    # 50 pairs claim sigmoid(log 4) = 0.8 and 40 of them are right, 50 claim 0.9 and 40 are right; ten bins of ten.
    margins = [math.log(4)] * 40 + [-math.log(4)] * 10 + [math.log(9)] * 40 + [-math.log(9)] * 10
    found = calibration(pairs(margins), seed=0)
    assert found["expected_calibration_error"]["value"] == pytest.approx((50 * 0 + 50 * 0.1) / 100)
    assert found["mean_confidence"] == pytest.approx(0.85) and len(found["bins"]) == 10
    assert found["bins"][-1]["match_rate"]["n"] == 10 and found["bins"][-1]["match_rate"]["value"] == pytest.approx(0.8)
    assert calibration(pairs(margins[::-1]), seed=0)["bins"] == found["bins"]


def test_errors_of_either_sign_add_up_and_equal_rewards_are_right_half_of_the_time() -> None:
    # 50 pairs claim 0.8 and all are right, 50 claim 0.9 and 35 are right: 0.2 too little and 0.2 too much.
    margins = [math.log(4)] * 50 + [math.log(9)] * 35 + [-math.log(9)] * 15
    assert calibration(pairs(margins), seed=0)["expected_calibration_error"]["value"] == pytest.approx(0.2)
    assert calibration(pairs([0.0] * 10), seed=0)["expected_calibration_error"]["value"] == 0


def test_the_interval_of_a_bin_counts_prompts_and_not_pairs() -> None:
    # Ten bins of 16 pairs, 12 of them right; the four pairs of a prompt claim the same and are all right or all wrong.
    margins = [1.0] * 120 + [-1.0] * 40
    of_four = [
        ComparedPair(chosen=scored(n // 4, 0, 1.0, margin), rejected=scored(n // 4, 1, 0.0, 0.0))
        for n, margin in enumerate(margins)
    ]
    for found, num_prompts in ((calibration(pairs(margins), seed=0), 16), (calibration(of_four, seed=0), 4)):
        rate = found["bins"][0]["match_rate"]
        assert (rate["value"], rate["n"]) == (0.75, 16)
        assert (rate["low"], rate["high"]) == pytest.approx(wilson_interval(0.75 * num_prompts, num_prompts))


def drawn(temperature: float, num_pairs: int = 4000) -> list[float]:
    """Margins whose signs come up as often as sigmoid(|margin| / temperature) says."""
    random = np.random.default_rng(3)
    sizes = random.exponential(1.5, num_pairs)
    right = random.random(num_pairs) < 1 / (1 + np.exp(-sizes / temperature))
    return np.where(right, sizes, -sizes).tolist()  # type: ignore[no-any-return]


def test_a_calibrated_model_shows_the_error_of_chance_alone_and_temperature_1() -> None:
    found = calibration(pairs(drawn(1.0)), seed=0)
    error = found["expected_calibration_error"]
    assert error["value"] < 1.7 * error["by_chance"] and error["by_chance"] < 0.03
    assert found["temperature"] == pytest.approx(1.0, abs=0.08)


def test_an_overconfident_model_is_found_with_its_temperature() -> None:
    found = calibration(pairs(drawn(3.0)), seed=0)
    assert found["temperature"] == pytest.approx(3.0, rel=0.1)
    assert found["loss_at_temperature"] < found["loss"]
    assert found["expected_calibration_error"]["value"] > 5 * found["expected_calibration_error"]["by_chance"]
    top = found["bins"][-1]
    assert top["confidence"] > top["match_rate"]["high"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30))
def test_the_temperature_is_the_minimum_that_scipy_finds(margins: list[float]) -> None:
    found = calibration(pairs(margins), seed=0)

    def loss(log_scale: float) -> float:
        return sum(bradley_terry_loss(m * math.exp(log_scale)) for m in margins) / len(margins)

    best = optimize.minimize_scalar(loss, bounds=(-12, 8), method="bounded").fun
    if found["temperature"] is not None:
        assert found["loss_at_temperature"] <= best + 1e-6
    else:  # one sign, or more wrong than right: no scale is best
        assert not (min(margins) < 0 < max(margins)) or sum(margins) <= 1e-12


def test_no_temperature_where_every_pair_is_right() -> None:
    found = calibration(pairs([0.5, 1.0, 2.0]), seed=0)
    assert found["temperature"] is None and found["loss_at_temperature"] is None


def test_huge_margins_do_not_overflow() -> None:
    found = calibration(pairs([1e6, -1e6, 1e5]), seed=0)
    assert all(math.isfinite(part["confidence"]) for part in found["bins"])
