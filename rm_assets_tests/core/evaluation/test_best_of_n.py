"""Best of n against every draw written out, and curves whose peak is known."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_assets.core.evaluation.best_of_n import _fit, _peak, best_of_n, component_accuracy, expected_best
from rm_assets.core.evaluation.pairs import ScoredResponse
from rm_assets_tests.core.evaluation.test_evaluation import scored


def group(prompt: int, golds: Sequence[float], rewards: Sequence[float]) -> list[ScoredResponse]:
    return [scored(prompt, i, g, r) for i, (g, r) in enumerate(zip(golds, rewards, strict=True))]


def brute_force(by: Sequence[float], of: Sequence[float], n: int) -> float:
    """Every draw of n responses; where several are best, their mean."""
    values = []
    for draw in combinations(range(len(by)), n):
        best = max(by[i] for i in draw)
        # Over all draws a coin among equals is the mean of all that are equal, drawn or not.
        equal = [of[i] for i in range(len(by)) if by[i] == best]
        values.append(sum(equal) / len(equal))
    return sum(values) / len(values)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5)), min_size=1, max_size=7))
def test_the_estimator_is_the_mean_over_every_draw(rows: list[tuple[int, int]]) -> None:
    by, of = [float(a) for a, _ in rows], [float(b) for _, b in rows]
    sizes = range(1, len(rows) + 1)
    found = expected_best(by, of, sizes)
    assert found == pytest.approx([brute_force(by, of, n) for n in sizes], abs=1e-9)


def test_a_hand_computed_prompt() -> None:
    # By reward the order is b, c, a with gold 1, 3, 2. Of the three draws of two, c is best in one and a in two.
    (point_1, point_2, point_3) = best_of_n([group(0, [2, 1, 3], [9, 4, 5])], seed=0)["points"]  # type: ignore[index]
    assert (point_1["n"], point_2["n"], point_3["n"]) == (1, 2, 3)
    assert point_1["gold"]["value"] == pytest.approx(2) and point_1["kl"] == 0
    assert point_2["gold"]["value"] == pytest.approx((3 + 2 + 2) / 3)
    assert point_3["gold"]["value"] == pytest.approx(2) and point_3["oracle"] == pytest.approx(3)
    assert point_3["proxy"] == pytest.approx(9) and point_3["kl"] == pytest.approx(math.log(3) - 2 / 3)


def test_prompts_with_fewer_responses_are_left_out_and_counted() -> None:
    groups = [group(p, [0, 1, 2, 3], [0, 1, 2, 3]) for p in range(5)] + [group(9, [0, 9], [0, 1]), group(8, [1], [1])]
    found = best_of_n(groups, seed=0)
    assert found is not None and (found["num_prompts"], found["num_prompts_left_out"]) == (5, 1)
    assert [point["n"] for point in found["points"]] == [1, 2, 4]
    assert found["points"][-1]["gold"] == {"value": 3.0, "low": 3.0, "high": 3.0, "n": 5}
    assert found["fit"] is None  # two values of n above 1
    assert best_of_n([group(8, [1], [1])], seed=0) is None


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (1.0, 0.25), (0.8, 0.0)])
def test_a_curve_of_the_formula_gives_its_parameters_back(alpha: float, beta: float) -> None:
    kl = np.asarray([math.log(n) - (n - 1) / n for n in (1, 2, 4, 8, 16, 32)])
    gold = 0.3 + np.sqrt(kl) * (alpha - beta * np.sqrt(kl))
    random = np.random.default_rng(0)
    resampled = gold + random.normal(0, 1e-4, (200, len(kl)))
    found = _fit(kl, gold, resampled)
    assert found is not None
    assert found["alpha"] == pytest.approx(alpha) and found["beta"] == pytest.approx(beta, abs=1e-9)
    assert found["alpha_interval"][0] < alpha < found["alpha_interval"][1]
    if beta == 1.0:
        assert found["peak_kl"] == pytest.approx(1.0) and found["peak_was_measured"]
        assert found["peak_kl_low"] < 1.0 < found["peak_kl_high"]
    if beta == 0.25:  # the peak, KL = 4, lies beyond the largest n
        assert found["peak_kl"] == pytest.approx(4.0) and not found["peak_was_measured"]


def test_the_peak_of_a_curve_that_never_falls_or_only_falls() -> None:
    assert _peak(1.0, 0.0, 1.5) is None and _peak(1.0, -0.1, 1.5) is None and _peak(0.0, 0.0, 1.5) is None
    assert _peak(-1.0, 0.5, 1.5) == 0.0 == _peak(-1.0, 0.0, 1.5)
    # d (-1 + 0.5 d) is below 0 up to d = 2, and above it from there on.
    assert _peak(-1.0, -0.5, 1.5) == 0.0 and _peak(-1.0, -0.5, 2.5) is None


def test_a_model_that_likes_what_gold_does_not_has_its_peak_at_the_beginning() -> None:
    # The best by reward are the worst by gold, so that gold falls with every n; more slowly in the end.
    groups = [group(p, [8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8]) for p in range(3)]
    fit = best_of_n(groups, seed=0)["fit"]  # type: ignore[index]
    assert fit["alpha"] < 0 and fit["beta"] < 0 and fit["peak_kl"] == 0.0


def test_components_of_the_policy_and_of_the_best() -> None:
    rows = [
        scored(p, i, gold, reward, components={"exact": gold, "format": float(i == 0)})
        for p in range(4)
        for i, (gold, reward) in enumerate([(0.0, 1.0), (1.0, 2.0), (0.0, 3.0)])
    ]
    found = component_accuracy([rows[n : n + 3] for n in range(0, 12, 3)])
    assert found == {
        "n": 3,
        "num_prompts": 4,
        "policy": {"exact": pytest.approx(1 / 3), "format": pytest.approx(1 / 3)},
        "best_by_model": {"exact": 0.0, "format": 0.0},
        "best_by_gold": {"exact": 1.0, "format": 0.0},
    }
    assert component_accuracy([[scored(0, 0, 1.0, 1.0)]]) is None


def test_components_that_are_no_shares_are_not_shown_as_shares() -> None:
    rows = [scored(0, i, 1.0, 1.0, components={"helpful": -4.6, "exact": 1.0}) for i in range(2)]
    assert component_accuracy([rows]) is None


def test_of_two_frequent_numbers_of_responses_the_larger_counts() -> None:
    few, many = group(0, [0, 1], [0, 1]), group(1, [0, 1, 2, 3], [0, 1, 2, 3])
    for groups in ([few, many], [many, few]):
        found = best_of_n(groups, seed=0)
        assert found is not None and [point["n"] for point in found["points"]] == [1, 2, 4]
