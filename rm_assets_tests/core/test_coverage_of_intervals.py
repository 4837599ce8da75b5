"""95 % intervals cover the truth in 93.5 to 96.5 % of 1,000 simulated draws of 300 prompts."""

from collections.abc import Callable

import numpy as np
import pytest

from rm_assets.core import statistics
from rm_assets.core.evaluation.comparison import compare
from rm_assets.core.evaluation.rates import without_length
from rm_assets.core.recipe import EvaluationSection
from rm_assets_tests.core.evaluation.test_rates import pair

NUM_DRAWS, NUM_PROMPTS, TRUTH = 1000, 300, 0.8
pytestmark = pytest.mark.slow


def covered(draw: Callable[[np.random.Generator, int], tuple[float, float]], truth: float) -> float:
    random = np.random.default_rng(11)
    intervals = [draw(random, number) for number in range(NUM_DRAWS)]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_wilson_of_one_pair_a_prompt() -> None:
    share = covered(
        lambda random, _: statistics.wilson_interval(int(random.binomial(NUM_PROMPTS, TRUTH)), NUM_PROMPTS), TRUTH
    )
    assert 0.935 <= share <= 0.965


def test_the_bootstrap_over_prompts_of_several_correlated_pairs() -> None:
    def draw(random: np.random.Generator, seed: int) -> tuple[float, float]:
        of_prompt = random.beta(4, 1, NUM_PROMPTS)  # mean 0.8, different from prompt to prompt
        credits = random.random((NUM_PROMPTS, 6)) < of_prompt[:, None]
        prompts = [n for n in range(NUM_PROMPTS) for _ in range(6)]
        return statistics.bootstrap_interval(credits.astype(float).ravel().tolist(), prompts, seed=seed)

    assert 0.935 <= covered(draw, TRUTH) <= 0.965


def test_the_difference_of_two_models_on_the_same_pairs() -> None:
    def draw(random: np.random.Generator, seed: int) -> tuple[float, float]:
        first = random.random(NUM_PROMPTS) < 0.7
        second = np.where(random.random(NUM_PROMPTS) < 0.5, first, random.random(NUM_PROMPTS) < 0.8)
        prompts = [str(n) for n in range(NUM_PROMPTS)]
        found = compare(first.astype(float).tolist(), second.astype(float).tolist(), prompts, seed=seed)["difference"]
        return found["low"], found["high"]

    assert 0.935 <= covered(draw, 0.05) <= 0.965


@pytest.mark.timeout(900)  # two intervals a draw
def test_the_length_balanced_rate_of_prompts_with_a_pair_of_either_kind() -> None:
    every, lengths = EvaluationSection(pairs="all"), ((9, 3), (3, 9))
    made = {
        (n, kind, right): pair(n, chosen=lengths[kind][0], rejected=lengths[kind][1], right=right)
        for n in range(NUM_PROMPTS)
        for kind in (0, 1)
        for right in (False, True)
    }

    def draw(random: np.random.Generator, _: int) -> tuple[float, float]:
        of_prompt = random.beta(0.8, 0.2, NUM_PROMPTS)  # mostly right in both pairs, or wrong in both
        right = random.random((NUM_PROMPTS, 2)) < of_prompt[:, None]
        pairs = [made[n, kind, bool(right[n, kind])] for n in range(NUM_PROMPTS) for kind in (0, 1)]
        found = without_length(pairs, every)["balanced"]
        return found["low"], found["high"]

    assert 0.935 <= covered(draw, TRUTH) <= 0.965
