"""Drift and outliers against hand-computed values and scipy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rm_assets.core.checks.drift import few_outliers, no_drift, stability_index
from rm_assets.core.checks.finding import EarlierTable, Finding
from rm_assets.core.records import GoldReward, Prompt
from rm_assets.core.table_statistics.outliers import usual_range
from rm_assets.storage.tables import read_table


def prompts(lengths: list[int], source: str = "s") -> list[Prompt]:
    return [
        Prompt(prompt_id=f"p{n}", prompt="x" * length, system=None, reference=None, source=source, split="train", external_id=None, row=n)
        for n, length in enumerate(lengths)
    ]  # fmt: skip


def test_stability_index_of_two_bins_is_the_sum_over_smoothed_shares() -> None:
    p, q = (50.5 / 101, 50.5 / 101), (90.5 / 101, 10.5 / 101)
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))  # 0.853
    index, by_chance = stability_index([90, 10], [50, 50])
    assert index == pytest.approx(expected) == pytest.approx(0.8531, abs=1e-4)
    assert by_chance == pytest.approx(10.828 * (1 / 100 + 1 / 100), abs=1e-4)  # chi squared, one degree of freedom


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any))
def test_equal_samples_have_index_0_and_empty_bins_change_nothing(counts: list[int]) -> None:
    assert stability_index(counts, counts)[0] == 0
    other = counts[::-1]
    assert stability_index([0, *counts], [0, *other]) == pytest.approx(stability_index(counts, other))
    assert stability_index(counts, other)[0] == pytest.approx(stability_index(other, counts)[0])


def test_an_empty_bin_gives_a_finite_index() -> None:
    assert 1 < stability_index([100, 0], [0, 100])[0] < math.inf


def compared(now: list[Any], before: list[Any], asset: str = "prompts") -> Finding:
    return no_drift(asset, now, EarlierTable(before, "2026-11-21T12:14:59+00:00"), 0.25, 0.15)


def test_a_shift_is_found_by_index_and_ks_and_said_with_both_medians() -> None:
    finding = compared(prompts(list(range(250, 450))), prompts(list(range(200, 400))))
    assert not finding.passed
    assert finding.numbers["data/ks_prompt_chars"] == pytest.approx(0.25)  # a quarter of the newer are above all older
    # Older: ten bins of 20 and an empty one above; newer: 2.5 empty bins, 7.5 with 20 each, 50 above.
    expected = stability_index([20] * 10 + [0], [0] * 2 + [10] + [20] * 7 + [50])[0]
    assert finding.numbers["data/psi_prompt_chars"] == pytest.approx(expected, rel=0.02)
    assert finding.sentence == (
        "prompt lengths in characters are distributed otherwise than before (made 2026-11-21 12:14, 200 rows): "
        f"median 299.5 then, 349.5 now; PSI {finding.numbers['data/psi_prompt_chars']:.3g}, limit 0.296; KS 0.25, limit 0.195"
    )


def test_what_chance_explains_in_a_small_sample_is_no_drift() -> None:
    draw = np.random.default_rng(1)
    lengths = [draw.integers(20, 200, size=15).tolist() for _ in range(2)]
    finding = compared(prompts(lengths[0]), prompts(lengths[1]))
    assert finding.numbers["data/psi_prompt_chars"] > 0.25 and finding.passed
    assert finding.sentence.startswith("prompt lengths in characters are distributed as before (made")


def test_a_value_outside_of_a_constant_version_before_is_drift() -> None:
    for length in (40, 60):
        assert not compared(prompts([length] * 100), prompts([50] * 100)).passed
    assert compared(prompts([50] * 100), prompts([50] * 90)).passed


def test_sources_are_compared_by_their_shares() -> None:
    before = [*prompts([50] * 90, "a"), *prompts([50] * 10, "b")]
    now = [*prompts([50] * 50, "a"), *prompts([50] * 50, "b")]
    assert compared(now, before).sentence == (
        "sources are mixed otherwise than before (made 2026-11-21 12:14, 100 rows): a 90.0% then, 50.0% now; "
        "PSI 0.853, limit 0.25"
    )


def test_a_first_version_passes_and_says_so() -> None:
    assert no_drift("prompts", prompts([1]), None, 0.0, 0.0).sentence == "there is no earlier version"


def test_a_version_before_that_cannot_be_read_passes_and_says_so(tmp_path: Path) -> None:
    before = EarlierTable(read_table(tmp_path / "none.parquet", Prompt), "")
    finding = no_drift("prompts", prompts([1]), before, 0.0, 0.0)
    assert finding.passed and finding.sentence.startswith("cannot be compared with the version before: ")


def rewarded(golds: np.ndarray) -> list[GoldReward]:
    """Gold rewards of shape (prompts, K)."""
    return [
        GoldReward(
            prompt_id=f"p{n}", prompt="q", system=None, reference=None, source="s", split="train", external_id=None, row=n, response="",
            response_id=f"r{n}.{k}", sample_index=k, model="m", seed=None, num_tokens=None, finished=None, gold_reward=float(gold),
        )
        for n, of_prompt in enumerate(golds) for k, gold in enumerate(of_prompt)
    ]  # fmt: skip


def test_a_solve_rate_that_falls_from_30_to_12_percent_is_drift() -> None:
    before, now = (rewarded((np.arange(5000)[:, None] % 50 < solved) * np.ones((1, 4))) for solved in (15, 6))
    finding = compared(now, before, "gold_rewards")
    assert not finding.passed and finding.numbers["data/psi_gold_reward"] < 0.25
    assert finding.sentence == (
        "gold rewards are distributed otherwise than before (made 2026-11-21 12:14, 20000 rows): mean 0.3 then, 0.12 now; "
        "KS 0.18, limit 0.15"
    )


@pytest.mark.parametrize(("num_prompts", "kind"), [(20, "score"), (20, "solved"), (60, "score"), (200, "same")])
def test_samples_of_one_distribution_hardly_alarm(num_prompts: int, kind: str) -> None:
    draw = np.random.default_rng(0)

    def sample() -> list[GoldReward]:
        of_prompt = draw.normal(size=(num_prompts, 1))  # what the rewards of a prompt share
        own = np.zeros(16) if kind == "same" else draw.normal(size=(num_prompts, 16))
        return rewarded(of_prompt + own if kind != "solved" else of_prompt + own > 1.0)

    alarms = sum(not compared(sample(), sample(), "gold_rewards").passed for _ in range(50))
    assert alarms <= 1


def test_the_usual_range_is_three_and_a_half_deviations_on_either_side() -> None:
    values = np.arange(-100.0, 101.0)  # median 0, quantiles at -90 and 90
    assert usual_range(values, on_log=False) == pytest.approx((-90 * 3.5 / 1.645, 90 * 3.5 / 1.645))
    normal = stats.norm.ppf(np.linspace(0.0005, 0.9995, 1000))
    assert usual_range(normal, on_log=False) == pytest.approx((-3.5, 3.5), abs=0.01)


def test_lengths_are_judged_by_their_logarithm() -> None:
    low, high = usual_range(np.expm1(np.linspace(2, 6, 101)), on_log=True)
    reach = 1.8 * 3.5 / 1.645  # the median of the logarithms is 4, the quantiles are 2.2 and 5.8
    assert (math.log1p(low), math.log1p(high)) == pytest.approx((4 - reach, 4 + reach))


def test_two_clusters_and_rare_levels_are_no_outliers() -> None:
    for rewards in ([0.0] * 36 + [9.0] * 64, [0.0] * 2 + [1.0] * 98, [1.0] * 100):
        low, high = usual_range(np.array(rewards), on_log=False)
        assert low <= min(rewards) and max(rewards) <= high


def num_outside(values: np.ndarray, *, on_log: bool = False) -> int:
    low, high = usual_range(values, on_log=on_log)
    return int(((values < low) | (values > high)).sum())


@pytest.mark.parametrize("num_planted", [10, 49, 60, 100, 400])
@pytest.mark.parametrize("planted", [1e6, -1e6])
def test_planted_rewards_are_found_however_many_they_are(num_planted: int, planted: float) -> None:
    rewards = np.random.default_rng(0).uniform(-2, 2, size=1000)
    assert num_outside(rewards) == 0
    rewards[:num_planted] = planted + rewards[:num_planted]
    assert num_outside(rewards) == num_planted
    levels = np.arange(1000.0) % 4
    levels[:num_planted] = planted
    assert num_outside(levels) == num_planted


@pytest.mark.parametrize("share", [0.01, 0.06, 0.1, 0.4])
def test_far_too_long_texts_are_found_however_many_they_are(share: float) -> None:
    lengths = np.random.default_rng(0).integers(50, 400, size=1000).astype(float)
    lengths[: int(1000 * share)] *= 2000
    assert num_outside(lengths, on_log=True) == int(1000 * share)


def test_rare_levels_of_a_verifier_and_rewards_near_their_ends_are_no_outliers() -> None:
    assert num_outside(np.repeat([0.0, 0.1, 1.0], [900, 60, 40])) == 0
    assert num_outside(np.repeat([0.0, 1.0], [970, 30])) == 0
    assert (
        num_outside(np.random.default_rng(0).beta(0.05, 0.2, size=5000)) == 0
    )  # as a preference over a strong reference


@pytest.mark.parametrize("values", [[-1e308, 1e308], [1e308, 1.1e308], [*1e308 * np.linspace(-1, 1, 50)]])
def test_the_usual_range_of_the_largest_floats_is_finite(values: list[float]) -> None:
    assert np.isfinite(usual_range(np.array(values), on_log=False)).all()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.booleans())
def test_the_usual_range_has_the_median(values: list[int], on_log: bool) -> None:
    low, high = usual_range(np.array(values, dtype=float), on_log=on_log)
    assert low <= np.median(values) <= high


def test_one_outlier_is_counted_and_listed_with_id_value_and_text() -> None:
    finding = few_outliers("prompts", prompts([100 + n % 10 for n in range(99)] + [9000]), 0.0)
    assert not finding.passed
    assert finding.numbers == {"data/num_outlying_prompt_chars": 1, "data/share_outlying_prompt_chars": 0.01}
    assert finding.sentence.endswith("the most extreme: p99 9000 " + repr("x" * 40))
