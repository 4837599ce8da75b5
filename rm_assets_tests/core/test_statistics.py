"""Statistics against hand-computed values and independent implementations."""

import math
import random

import pytest
from scipy import stats

from rm_assets.core import statistics


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 10), (87, 100), (541, 541)])
def test_wilson_interval_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert statistics.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert statistics.wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_takes_half_credits() -> None:
    low, high = statistics.wilson_interval(2.5, 5)
    assert low + high == pytest.approx(1.0)  # symmetric about one half


def test_wilson_interval_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        statistics.wilson_interval(3, 2)


def test_wilson_interval_covers_the_true_rate_about_95_times_in_100() -> None:
    draw = random.Random(0)
    intervals = [statistics.wilson_interval(sum(draw.random() < 0.85 for _ in range(60)), 60) for _ in range(1500)]
    assert 0.93 < sum(low <= 0.85 <= high for low, high in intervals) / 1500 < 0.97


def test_bootstrap_interval_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    values, clusters = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], list("aabbcc")
    first = statistics.bootstrap_interval(values, clusters, seed=1, num_resamples=200)
    assert first == statistics.bootstrap_interval(values, clusters, seed=1, num_resamples=200)
    wide = [draw.random() for draw in [random.Random(3)] for _ in range(50)]
    by_seed = {statistics.bootstrap_interval(wide, list(range(50)), seed=seed, num_resamples=50) for seed in (1, 2)}
    assert len(by_seed) == 2


def test_bootstrap_interval_of_independent_values_is_near_the_normal_one() -> None:
    values = [1.0] * 320 + [0.0] * 80
    low, high = statistics.bootstrap_interval(values, list(range(400)), seed=0)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)  # of 90 % it would be 0.006 narrower


def test_bootstrap_interval_widens_when_values_of_a_cluster_go_together() -> None:
    values = [1.0] * 50 + [0.0] * 50
    alone = statistics.bootstrap_interval(values, list(range(100)), seed=0)
    together = statistics.bootstrap_interval(values, [index // 10 for index in range(100)], seed=0)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_bootstrap_interval_weighs_clusters_by_their_values() -> None:
    # Two draws of {1} and {0, 0, 0}: the mean is 0, 1 / 4 (half of the time) or 1, and not 1 / 2.
    found = statistics.bootstrap_interval([1.0, 0.0, 0.0, 0.0], list("abbb"), seed=0, confidence=0.2)
    assert found == (0.25, 0.25)


def test_bootstrap_interval_without_spread_falls_back_to_wilson() -> None:
    expected = statistics.wilson_interval(3, 3)
    assert statistics.bootstrap_interval([1.0] * 6, list("aabbcc"), seed=0) == pytest.approx(expected)
    low, high = statistics.bootstrap_interval([0.0] * 3, list("abc"), seed=0, bounds=(-1.0, 1.0))
    assert low == pytest.approx(-high) and high > 0.4


def test_bootstrap_interval_of_clusters_that_differ_within_alone_is_about_their_mean() -> None:
    # Every cluster has the mean 2 / 3, or 0, whatever its first value is.
    thirds = statistics.bootstrap_interval([1.0, 1.0, 0.0] * 9, [n // 3 for n in range(27)], seed=0)
    assert thirds == pytest.approx(statistics.wilson_interval(6, 9))
    low, high = statistics.bootstrap_interval([1.0, -1.0] * 9, [n // 2 for n in range(18)], seed=0, bounds=(-1.0, 1.0))
    assert low == pytest.approx(-high) and high > 0.4


def test_bootstrap_interval_of_one_cluster_or_none_is_its_bounds() -> None:
    assert statistics.bootstrap_interval([1.0, 1.0], ["a", "a"], seed=0) == (0.0, 1.0)
    assert statistics.bootstrap_interval([], [], seed=0, bounds=(-1.0, 1.0)) == (-1.0, 1.0)


def test_bootstrap_interval_refuses_values_outside_its_bounds_and_uneven_input() -> None:
    with pytest.raises(ValueError, match="outside"):
        statistics.bootstrap_interval([2.0], ["a"], seed=0)
    with pytest.raises(ValueError, match="clusters"):
        statistics.bootstrap_interval([1.0], [], seed=0)


def test_difference_interval_gives_newcombes_published_example() -> None:
    # Newcombe (1998), table II, example (a), method 10: 56/70 against 48/80 is 0.0524 to 0.3339.
    first, second = statistics.wilson_interval(56, 70), statistics.wilson_interval(48, 80)
    low, high = statistics.difference_interval(56 / 70, first, 48 / 80, second)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def test_accuracy_gives_half_credit_for_ties() -> None:
    assert statistics.accuracy([2.0, 0.1, 0.0, -1.0]) == 0.625
    assert statistics.accuracy([]) is None


def test_nan_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"margins\[1\] is nan"):
        statistics.accuracy([1.0, math.nan])
    with pytest.raises(ValueError, match="finite"):
        statistics.summarize([math.inf])


def test_rank_correlations_of_a_hand_computed_case() -> None:
    # One swap of neighbours in 4: Spearman 1 - 6 * 2 / (4 * 15) = 0.8, Kendall (5 - 1) / 6.
    assert statistics.spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert statistics.kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)


def test_rank_correlation_with_a_constant_or_one_value_is_undefined() -> None:
    assert statistics.spearman([1, 1, 1], [1, 2, 3]) is None
    assert statistics.kendall([1], [1]) is None
    with pytest.raises(ValueError, match="needs pairs"):
        statistics.kendall([1, 2], [1])


def test_per_prompt_correlation_counts_prompts_that_gold_ranks_and_gives_0_where_the_model_ranks_nothing() -> None:
    ranked, reversed_, flat, tied = ([1, 2], [5, 6]), ([1, 2], [6, 5]), ([1, 2], [3, 3]), ([1, 1], [1, 2])
    found = statistics.per_prompt_rank_correlation([ranked, ranked, reversed_, flat, tied])
    assert found == {"spearman": pytest.approx(0.25), "kendall": pytest.approx(0.25), "n": 4}
    assert statistics.per_prompt_rank_correlation([tied]) == {"spearman": None, "kendall": None, "n": 0}


def test_summary_of_a_distribution() -> None:
    found = statistics.summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found["n"], found["mean"], found["min"], found["max"]) == (5, 3.0, 1.0, 5.0)
    assert found["sd"] == pytest.approx(math.sqrt(2.5))
    assert found["quantiles"] == pytest.approx({"0.05": 1.2, "0.25": 2.0, "0.5": 3.0, "0.75": 4.0, "0.95": 4.8})


def test_summary_of_nothing_and_of_one_value_has_no_spread() -> None:
    nothing = statistics.summarize([])
    assert nothing["n"] == 0 and nothing["mean"] is nothing["sd"] is nothing["quantiles"]["0.5"] is None
    assert statistics.summarize([7.0])["sd"] is None


def test_within_group_sd_leaves_out_groups_of_one() -> None:
    assert statistics.within_group_sd([[0.0, 2.0], [1.0, 1.0], [9.0]]) == {"value": pytest.approx(2**0.5 / 2), "n": 2}
