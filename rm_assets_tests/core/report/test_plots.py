"""Plots: real PNGs of the stated size, whatever the text and however few the data."""

import io
import subprocess
import sys

import pytest
from matplotlib.image import imread

from rm_assets.core.evaluation import ComparedPair, ScoredResponse
from rm_assets.core.records import GoldReward
from rm_assets.core.report import plots
from rm_assets.core.report.training_plot import training_curve


def scored(prompt: int, index: int, reward: float, text: str = "a prompt") -> ScoredResponse:
    row = GoldReward(
        prompt_id=f"p{prompt}", prompt=text, system=None, reference=None, source="s", split="test", external_id=None,
        row=prompt, response_id=f"p{prompt}r{index}", sample_index=index, response="r", model="m", seed=0,
        num_tokens=1, finished=True, gold_reward=float(index),
    )  # fmt: skip
    return ScoredResponse(gold=row, reward=reward, num_tokens=2)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    picture = imread(io.BytesIO(png))
    assert picture.std() > 0.01  # not blank
    return picture.shape[1], picture.shape[0]


@pytest.mark.parametrize("num_responses", [2, 4, 16])
def test_score_plot_draws_any_number_of_responses(num_responses: int) -> None:
    test = [scored(p, k, k / 2 - p) for p in range(12) for k in range(num_responses)]
    pairs = [ComparedPair(chosen=test[1], rejected=test[0])] * 5
    assert size(plots.score_plot(test, pairs)) == (1728, 691)


@pytest.mark.parametrize("text", ["$\\frac{x costs $5", "你好 😀 \x00 two\nlines", "", "x" * 5000])
def test_score_plot_takes_any_prompt_as_plain_text(text: str) -> None:
    test = [scored(0, k, float(k), text) for k in range(2)]
    size(plots.score_plot(test, [ComparedPair(chosen=test[1], rejected=test[0])]))


def test_score_plot_of_equal_rewards_and_of_no_pairs() -> None:
    test = [scored(0, k, 1.0) for k in range(2)]
    size(plots.score_plot(test, [ComparedPair(chosen=test[1], rejected=test[0])]))
    size(plots.score_plot(test, []))


def test_gold_scatter_says_how_many_of_how_many_it_shows() -> None:
    test = [scored(p, k, float(k)) for p in range(30) for k in range(2)]
    assert size(plots.gold_scatter(test)) == size(plots.gold_scatter(test, most=10))


def test_training_curve_draws_short_long_and_empty_histories() -> None:
    long = [{"step": i, "loss": 0.7 - i / 1000, "accuracy": 0.5 + i / 1000} for i in range(300)]
    validated = [{"step": 1, "loss": 0.7, "eval_accuracy": None}, {"step": 2, "eval_loss": 0.6, "eval_accuracy": 0.7}]
    for history in (long, validated, []):
        assert size(training_curve(history)) == (1728, 547)


def test_match_rate_curve_draws_equal_rates_and_few_pairs() -> None:
    rate = {"value": 1.0, "low": 0.6, "high": 1.0, "n": 6}
    points = [{"num_pairs": n, "match_rate": rate, "train_accuracy": rate} for n in (1, 2, 12_345_678)]
    assert size(plots.match_rate_curve({"points": points})) == (921, 691)


def test_same_data_give_the_same_bytes() -> None:
    test = [scored(0, k, float(k)) for k in range(2)]
    assert plots.gold_scatter(test) == plots.gold_scatter(test)


def test_importing_the_core_loads_nothing_heavy() -> None:
    program = (
        "import sys, rm_assets.core.report.plots, rm_assets.core.report.training_plot, rm_assets.core.report.html, rm_assets.core.evaluation\n"
        "print([name for name in ('numpy', 'scipy', 'matplotlib', 'torch') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
