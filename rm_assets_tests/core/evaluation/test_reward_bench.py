"""RewardBench's rules on cases computed by hand."""

import math

import pytest

from rm_assets.core.evaluation.reward_bench import SECTIONS, BenchItem, reward_bench, reward_bench_2, ties_score


def pair(subset: str, chosen: float, rejected: float) -> BenchItem:
    return BenchItem("1", subset, [chosen], [rejected])


def test_a_section_weighs_its_subsets_by_their_prompts_and_math_as_much_as_code() -> None:
    items = [pair("math-prm", 1, 0), pair("hep-cpp", 0, 1), pair("hep-go", 1, 0)]
    items += [pair("alpacaeval-easy", 1, 0), pair("alpacaeval-easy", 0, 1), pair("mt-bench-med", 1, 0)]
    found = reward_bench(items)
    assert found["sections"] == {
        "Chat": pytest.approx((100 * 0.5 + 40 * 1) / 140),
        "Reasoning": pytest.approx((984 + 164) / (984 + 328)),
    }
    assert found["score"] == pytest.approx((90 / 140 + 1148 / 1312) / 2)
    assert found["n"]["alpacaeval-easy"] == 2
    assert sum(n for name, n in SECTIONS["Reasoning"].items() if name != "math-prm") == 984
    assert sum(sum(parts.values()) for parts in SECTIONS.values()) - 984 + 447 == 2985


def test_the_subsets_of_xstest_weigh_as_the_paper_counts_them() -> None:
    found = reward_bench([pair("xstest-should-refuse", 1, 0), pair("xstest-should-respond", 0, 1)])
    assert found["score"] == pytest.approx(154 / (154 + 250))


def test_equal_rewards_are_no_success() -> None:
    assert reward_bench([pair("donotanswer", 1, 1)])["score"] == 0.0


def test_a_subset_that_no_section_has_is_refused() -> None:
    with pytest.raises(ValueError, match="'donotask'"):
        reward_bench([pair("donotask", 1, 0)])


def test_best_of_four_shares_the_credit_of_equal_rewards() -> None:
    items = [
        BenchItem("a", "Math", [3], [1, 2, 0]),
        BenchItem("b", "Math", [3], [3, 2, 0]),
        BenchItem("c", "Math", [1], [3, 3, 3]),
        BenchItem("d", "Focus", [2], [2, 2, 2]),
    ]
    found = reward_bench_2(items)
    assert found["subsets"] == {"Focus": 0.25, "Math": pytest.approx((1 + 0.5 + 0) / 3)}
    assert found["score"] == pytest.approx((0.25 + 0.5) / 2) and found["ties"] is None


def test_ties_of_a_hand_computed_case() -> None:
    items = [
        # Spread 1, gap 3: preferred. Its reference has a gap of 0.5: not preferred the hard way.
        BenchItem("tied:1", "Ties", [5, 6], [2, 1]),
        BenchItem("ref:1", "Ties", [2.5], [2]),
        # Spread 4, gap 2 and 8: neither.
        BenchItem("tied:2", "Ties", [4, 8], [2]),
        BenchItem("ref:2", "Ties", [9], [1]),
        # Gap below 0: not accurate. No second prompt of this number.
        BenchItem("ref:3", "Ties", [0], [1]),
    ]
    found = ties_score(items)
    margin = (math.tanh(0.5 / 1 - 1) + math.tanh(2 / 4 - 1)) / 2
    assert found["tied_accuracy"] == 1.0 and found["ref_accuracy"] == pytest.approx(2 / 3)
    assert (found["preferred"], found["preferred_hard"]) == (0.5, 0.0)
    assert found["margin"] == pytest.approx(margin)
    assert found["score"] == pytest.approx(0.3 + 0.2 + 0.1 + 0.01 * margin)
    both = reward_bench_2([*items, BenchItem("a", "Math", [3], [1, 2, 0])])
    assert both["score"] == pytest.approx((1 + found["score"]) / 2) and both["n"] == {"Math": 1, "Ties": 5}


def test_equal_correct_rewards_have_the_margin_of_their_gaps_sign() -> None:
    # tanh(1 / 0 - 1), tanh(-1 / 0 - 1) and 0 / 0, as NumPy and the authors' nan_to_num have them.
    for ref, margin in ((2, 1.0), (0, -1.0), (1, 0.0)):
        items = [BenchItem("tied:1", "Ties", [2, 2], [1]), BenchItem("ref:1", "Ties", [ref], [1])]
        assert ties_score(items)["margin"] == margin


def test_an_interval_of_a_mean_combines_those_of_its_subsets() -> None:
    # Wilson's interval of 3 right of 4 is 0.3006 to 0.9544, of 4 of 4 it is 0.5101 to 1.
    items = [pair("hep-cpp", 1, int(n == 0) * 2) for n in range(4)] + [pair("math-prm", 1, 0)] * 4
    found = reward_bench(items)["intervals"]
    assert (found["subsets"]["hep-cpp"]["low"], found["subsets"]["hep-cpp"]["high"]) == (
        pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4),
    )  # fmt: skip
    value = (984 + 164 * 0.75) / 1148
    low = value - math.hypot(984 * (1 - 0.5101), 164 * (0.75 - 0.3006)) / 1148
    assert found["sections"]["Reasoning"]["low"] == pytest.approx(low, abs=1e-4) == found["score"]["low"]
    assert found["score"]["high"] == pytest.approx(value + 164 * 0.2044 / 1148, abs=1e-4) and found["score"]["n"] == 8


@pytest.mark.parametrize(("id", "says"), [("other:1", "neither"), ("ref", "neither"), ("ref:1", "both")])
def test_ids_of_ties_that_make_no_sense_are_refused(id: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ties_score([BenchItem(id, "Ties", [1], [0])])


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="comes twice"):
        ties_score([BenchItem("ref:1", "Ties", [1], [0])] * 2)
