"""Comparisons against SciPy, hand-computed cases and simulation."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rm_assets.core.errors import DataError
from rm_assets.core.evaluation.comparison import LENGTH, compare, compare_models, ensemble, holm, mcnemar, pairs_needed
from rm_assets.core.evaluation.pairs import draw_pairs
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import ProxyReward


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_twice_the_tail_of_a_fair_coin(better: int, worse: int) -> None:
    total = better + worse
    tail = sum(math.comb(total, k) for k in range(min(better, worse) + 1)) / 2**total
    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_two_models_on_hand_counted_pairs() -> None:
    # 20 pairs: both right in 8, only the second in 9, only the first in 1, a tie of the second where the first is wrong in 2.
    first = [1.0] * 8 + [0.0] * 9 + [1.0] + [0.0] * 2
    second = [1.0] * 8 + [1.0] * 9 + [0.0] + [0.5] * 2
    found = compare(first, second, [f"p{n}" for n in range(20)], seed=0)
    assert found["difference"]["value"] == pytest.approx((9 - 1 + 1) / 20)
    assert (found["num_better"], found["num_worse"]) == (11, 1)
    assert found["p_value"] == pytest.approx(stats.binomtest(1, 12).pvalue) and found["significant"]
    assert found["difference"]["low"] > 0
    back = compare(second, first, [f"p{n}" for n in range(20)], seed=0)
    assert back["difference"]["value"] == -found["difference"]["value"] and back["p_value"] == found["p_value"]


def test_equal_models_need_no_number_of_pairs() -> None:
    found = compare([1.0, 0.0], [1.0, 0.0], ["a", "b"], seed=0)
    assert (found["p_value"], found["significant"], found["pairs_needed"], found["more_pairs"]) == (
        1.0,
        False,
        None,
        None,
    )
    # Wilson's bound for none of two prompts: z² / (n + z²).
    assert found["difference"]["high"] == -found["difference"]["low"] == pytest.approx(3.8415 / 5.8415, abs=1e-4)


def test_pairs_of_one_prompt_are_no_independent_evidence() -> None:
    prompts = [f"p{n // 10}" for n in range(100)]
    first, second = [0.0] * 100, [1.0 if n < 60 else 0.0 for n in range(100)]
    found = compare(first, second, prompts, seed=0)
    alone = compare(first, second, [f"p{n}" for n in range(100)], seed=0)
    assert found["p_value"] is None and alone["p_value"] is not None
    width, narrow = (each["difference"]["high"] - each["difference"]["low"] for each in (found, alone))
    assert width > 2.5 * narrow  # ten prompts, not a hundred


def test_lengths_that_differ_and_no_pairs_are_refused() -> None:
    for first, second, prompts in (([1.0], [1.0, 0.0], ["a"]), ([], [], [])):
        with pytest.raises(ValueError, match="credits for"):
            compare(first, second, prompts, seed=0)


@pytest.mark.parametrize(("difference", "apart"), [(0.05, 0.2), (0.1, 0.3), (-0.08, 0.15)])
def test_so_many_pairs_find_the_difference_four_times_in_five(difference: float, apart: float) -> None:
    number = pairs_needed(difference, apart)
    assert number is not None
    random = np.random.default_rng(0)
    better, worse = (apart + difference) / 2, (apart - difference) / 2
    counts = random.multinomial(number, [better, worse, 1 - apart], size=1500)
    found = np.mean([mcnemar(int(b), int(w)) < 0.05 for b, w, _ in counts])
    assert 0.72 < found < 0.85  # the exact test finds a little less than the formula's


def test_the_sample_size_of_a_hand_computed_case() -> None:
    # (1.959964 sqrt(0.2) + 0.841621 sqrt(0.1975))**2 / 0.05**2 = (0.876523 + 0.374026)**2 / 0.0025
    assert pairs_needed(0.05, 0.2) == 626
    assert pairs_needed(0.0, 0.2) is None
    # Twice as many where two pairs are worth one; at 1 %, z is 2.575829: (1.151946 + 0.374026)**2 / 0.0025.
    assert pairs_needed(0.05, 0.2, design_effect=2.0) == 1252
    assert pairs_needed(0.05, 0.2, level=0.01) == 932


def test_pairs_that_go_together_are_needed_as_often_as_they_repeat_each_other() -> None:
    # 40 prompts, the second model is right in 24 of them where the first is wrong, and wrong in 16 where the first is right.
    first, second = [0.0] * 24 + [1.0] * 16, [1.0] * 24 + [0.0] * 16
    alone = compare(first, second, [f"p{n}" for n in range(40)], seed=0)
    thrice = compare(first * 3, second * 3, [f"p{n}" for n in range(40)] * 3, seed=0)
    # Connor: (1.959964 + 0.841621 sqrt(0.96))**2 / 0.2**2 = 193.9; three pairs that say the same are worth one.
    assert alone["pairs_needed"] == 194 and thrice["pairs_needed"] == pytest.approx(3 * 194, abs=3)
    assert not thrice["significant"] and thrice["more_pairs"] > 400


def test_the_pairs_to_tell_several_models_apart_are_those_that_holms_procedure_needs() -> None:
    # Ten equal models, each wrong in other 12 of 130 prompts; the leader in 2. Each p-value is 12 lost, 2 won: 0.0129.
    def wrong_in(places: range) -> list[ProxyReward]:
        return rows(lambda p, side: -side if p in places else side, num_prompts=130, longer=True)

    models = {f"model {n}": wrong_in(range(2 + 12 * n, 14 + 12 * n)) for n in range(10)}
    found = compare_models(models | {"leader": wrong_in(range(2))}, EvaluationSection())
    behind = [model["behind"] for model in found["models"] if model["model"].startswith("model")]
    assert len(behind) == 10 and all(each["p_value"] == pytest.approx(0.012939, abs=1e-6) for each in behind)
    assert not any(each["told_apart"] for each in behind)
    # Connor at 5 %, d = 10 / 130 and 14 / 130 apart: 141. At 5 / 11 %, where Holm begins, z is 2.837: ((0.931 + 0.269) / d)² = 244;
    # at 5 / 2 %, as length has a larger p-value still, z is 2.241: ((0.736 + 0.269) / d)² = 171.
    assert (max(each["pairs_needed"] for each in behind), min(each["pairs_needed"] for each in behind)) == (244, 171)


def rows(reward: Callable[[int, int], float], *, num_prompts: int = 60, longer: bool = False) -> list[ProxyReward]:
    """Two responses a prompt, of which the second is better; `reward(prompt, side)` is the model's."""
    return [
        ProxyReward(
            prompt_id=f"p{p}", response_id=f"p{p}r{side}", source="s", sample_index=side, num_characters=side if longer else 5,
            comparison=None, gold_reward=float(side), reward=reward(p, side),
        )
        for p in range(num_prompts)
        for side in (0, 1)
    ]  # fmt: skip


def test_responses_of_different_judgements_make_no_pair() -> None:
    # Three prompts with two responses each: of one judgement, of two, and of two where one is everybody's.
    judgements = {0: ("a", "a"), 1: ("a", "b"), 2: ("a", None)}
    judged = [
        replace(row, comparison=judgements[place // 2][row.sample_index])
        for place, row in enumerate(rows(lambda p, side: side, num_prompts=3))
    ]
    for how in ("all", "one_random"):
        assert draw_pairs(judged, EvaluationSection(pairs=how)) == ([(1, 0)], 0)


def test_the_best_model_is_named_only_if_it_is_significantly_better() -> None:
    good, fair = rows(lambda p, side: side if p < 57 else -side), rows(lambda p, side: side if p < 55 else -side)
    bad = rows(lambda p, side: side if p < 30 else -side)
    found = compare_models({"bad": bad, "fair": fair, "good": good}, EvaluationSection())
    assert [model["model"] for model in found["models"]] == ["good", "fair", "bad", LENGTH]
    assert found["best"] is None and found["num_pairs"] == 60
    assert found["models"][1]["behind"]["p_value"] == pytest.approx(0.5)  # two pairs apart, both for the better one
    assert found["models"][1]["behind"]["more_pairs"] > 0
    assert compare_models({"bad": bad, "good": good}, EvaluationSection())["best"] == "good"


def test_two_tables_with_different_gold_are_refused() -> None:
    one = rows(lambda p, side: side)
    other = [replace(row, gold_reward=1 - row.gold_reward) for row in one]
    with pytest.raises(DataError, match="DATA_010"):
        compare_models({"one": one, "other": other}, EvaluationSection())


def test_length_alone_can_be_ahead_of_the_leader_and_is_never_the_best() -> None:
    fair = rows(lambda p, side: side if p < 40 else -side, longer=True)
    bad = rows(lambda p, side: side if p < 30 else -side, longer=True)
    found = compare_models({"bad": bad, "fair": fair}, EvaluationSection())
    assert [model["model"] for model in found["models"]] == [LENGTH, "fair", "bad"]
    assert (found["leader"], found["best"]) == ("fair", None)
    ahead, behind = found["models"][0]["behind"], found["models"][2]["behind"]
    assert ahead["difference"]["value"] == pytest.approx(-1 / 3) and ahead["told_apart"]
    # Ten pairs apart, all for the better one: 2 / 2**10, the larger of two p-values and so as it is by Holm.
    assert behind["p_value"] == behind["adjusted_p_value"] == 2 / 2**10 and behind["told_apart"]


def test_models_are_compared_on_the_responses_that_all_have() -> None:
    some, all_of_them = rows(lambda p, side: side, num_prompts=20), rows(lambda p, side: side)
    found = compare_models({"some": some[:-1], "all": all_of_them}, EvaluationSection())
    assert (found["num_responses"], found["num_responses_left_out"], found["num_pairs"]) == (39, 81, 19)
    with pytest.raises(DataError, match="DATA_004"):
        compare_models({"one": some[:2], "two": some[2:]}, EvaluationSection())
    with pytest.raises(DataError, match="DATA_005"):
        compare_models({"one": some[:1]}, EvaluationSection())


def test_holm_of_a_hand_computed_case() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {
        "a": pytest.approx(0.03),
        "c": pytest.approx(0.06),
        "b": pytest.approx(0.06),
    }
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_an_ensemble_of_two_models_of_different_scale() -> None:
    found = ensemble([[0.0, 2.0], [10.0, -10.0]])
    assert found["mean"] == [0.0, 0.0] and found["worst_case"] == [-1.0, -1.0]
    assert found["uncertainty_weighted"] == [-1.0, -1.0] and found["disagreement"] == [1.0, 1.0]
    agreeing = ensemble([[0.0, 2.0], [-5.0, 5.0], [3.0, 3.0]])
    assert agreeing["mean"] == pytest.approx([-2 / 3, 2 / 3]) and agreeing["worst_case"] == [-1.0, 0.0]
