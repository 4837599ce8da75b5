"""Rates by kind of pair, counted by hand."""

import pytest

from rm_assets.core.evaluation import rates
from rm_assets.core.evaluation.pairs import ComparedPair
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.statistics import bootstrap_interval, wilson_interval
from rm_assets_tests.core.evaluation.test_evaluation import scored

RANDOM = EvaluationSection()


def pair(number: int, *, chosen: int = 4, rejected: int = 4, gold: float = 1.0, right: bool = True) -> ComparedPair:
    """A pair of responses with so many characters."""
    return ComparedPair(
        chosen=scored(number, 0, gold, 1.0 if right else -1.0, text="x" * chosen),
        rejected=scored(number, 1, 0.0, 0.0, text="x" * rejected),
    )


def test_the_match_rate_of_every_pair_has_the_interval_of_its_prompts() -> None:
    # Ten prompts with ten pairs each, all right in seven of them and all wrong in three.
    pairs = [pair(n // 10, right=n < 70) for n in range(100)]
    credits, prompts = [float(n < 70) for n in range(100)], [f"p{n // 10}" for n in range(100)]
    every = rates.match_rate(pairs, 0, EvaluationSection(pairs="all", seed=3))
    assert (every["low"], every["high"]) == bootstrap_interval(credits, prompts, seed=3)
    assert (every["value"], every["n"], every["interval"]) == (0.7, 100, "95 % bootstrap over prompts")
    assert every["high"] - every["low"] > 0.5  # Wilson's for a hundred independent pairs is 0.18 wide
    alone = rates.match_rate(pairs[::10], 0, RANDOM)
    assert (alone["low"], alone["high"]) == wilson_interval(7, 10) and alone["interval"] == "95 % Wilson"


def test_quarters_by_gold_margin_keep_equal_margins_together() -> None:
    pairs = [pair(n, gold=gold, right=gold > 0.2) for n, gold in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])]
    found = rates.by_gold_margin(pairs, RANDOM)
    assert [(name, part["value"], part["n"]) for name, part in found.items()] == [
        ("0.1 to 0.2", 0.0, 2), ("0.3 to 0.4", 1.0, 2), ("0.5 to 0.6", 1.0, 2), ("0.7 to 0.8", 1.0, 2),
    ]  # fmt: skip
    two = rates.by_gold_margin([pair(n, gold=1.0 + n % 2) for n in range(8)], RANDOM)
    assert {name: part["n"] for name, part in two.items()} == {"1": 4, "2": 4}


def test_margins_with_the_noise_of_floats_are_named_in_few_digits() -> None:
    golds = [0.1 + 0.2, 0.4, 0.5, 0.6 + 1e-16, 0.6 + 3e-16, 0.7, 0.8, 1.0]
    found = rates.by_gold_margin([pair(n, gold=gold) for n, gold in enumerate(golds)], RANDOM)
    assert list(found) == ["0.3 to 0.4", "0.5 to 0.6", "0.6 to 0.7", "0.8 to 1"]


@pytest.mark.parametrize(
    "margins", [[4 + n / 1000 for n in range(5)], [1000.0 + n for n in range(4)], [0.1 + 0.2, 0.3]]
)
def test_margins_that_hardly_differ_lose_no_pair(margins: list[float]) -> None:
    pairs = [pair(n, gold=margins[n % len(margins)], right=n % 4 > 0) for n in range(400)]
    found = rates.by_gold_margin(pairs, RANDOM)
    assert sum(part["n"] for part in found.values()) == 400
    assert sum(part["n"] * part["value"] for part in found.values()) == 300


def test_bins_of_length_have_their_bounds_on_the_side_of_the_middle() -> None:
    lengths = [(1, 3), (2, 4), (3, 4), (4, 4), (5, 4), (8, 4), (9, 4), (3, 0), (0, 0)]
    pairs = [pair(n, chosen=chosen, rejected=rejected) for n, (chosen, rejected) in enumerate(lengths)]
    assert {name: part["n"] for name, part in rates.by_length(pairs, RANDOM).items()} == {
        "less than half as long": 1, "shorter": 2, "equally long": 2, "longer": 2, "more than twice as long": 2,
    }  # fmt: skip


def test_a_model_that_goes_by_length_alone_has_a_balanced_rate_of_one_half() -> None:
    pairs = [pair(n, chosen=9, rejected=3, right=True) for n in range(80)]
    pairs += [pair(100 + n, chosen=3, rejected=9, right=False) for n in range(20)]
    found = rates.without_length(pairs, RANDOM)
    assert rates.pair_rate(pairs, RANDOM)["value"] == 0.8
    assert found["balanced"]["value"] == 0.5 and (found["balanced"]["n_longer"], found["balanced"]["n_shorter"]) == (
        80,
        20,
    )
    assert found["balanced"]["low"] < 0.5 < found["balanced"]["high"]
    assert found["matched"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0, "largest_difference": 0.1}


def test_pairs_of_one_length_differ_by_a_tenth_at_most() -> None:
    pairs = [pair(0, chosen=90, rejected=100, right=False), pair(1, chosen=89, rejected=100), pair(2)]
    found = rates.without_length(pairs, RANDOM)
    assert (found["matched"]["n"], found["matched"]["value"]) == (2, 0.5)
    assert found["balanced"] is None  # no pair in which the better response is longer


def test_the_balanced_interval_combines_those_of_its_halves() -> None:
    pairs = [pair(n, chosen=9, rejected=3, right=n < 45) for n in range(50)]
    pairs += [pair(100 + n, chosen=3, rejected=9, right=n < 20) for n in range(50)]
    found = rates.without_length(pairs, RANDOM)["balanced"]
    # Wilson: 45 of 50 is 0.786398 to 0.956524, 20 of 50 is 0.276082 to 0.538197.
    assert found["value"] == pytest.approx(0.65)
    assert found["low"] == pytest.approx(0.65 - ((0.9 - 0.786398) ** 2 + (0.4 - 0.276082) ** 2) ** 0.5 / 2, abs=1e-5)
    assert found["high"] == pytest.approx(0.65 + ((0.956524 - 0.9) ** 2 + (0.538197 - 0.4) ** 2) ** 0.5 / 2, abs=1e-4)


def test_the_balanced_interval_knows_which_pairs_are_of_one_prompt() -> None:
    def of_prompts(other: int) -> list[ComparedPair]:
        """45 of 50 prompts right in both kinds of pair; those of the second kind are of the same prompts, or of others."""
        return [
            pair(n + place, chosen=chosen, rejected=12 - chosen, right=n < 45)
            for n in range(50)
            for chosen, place in ((9, 0), (3, other))
        ]

    every = EvaluationSection(pairs="all")
    together, apart = (rates.without_length(of_prompts(other), every)["balanced"] for other in (0, 100))
    one_kind = rates.pair_rate(of_prompts(0)[::2], every)
    # The second kind repeats the first, so both together say no more than one alone.
    assert (together["low"], together["high"]) == pytest.approx((one_kind["low"], one_kind["high"]))
    assert apart["high"] - apart["low"] == pytest.approx((one_kind["high"] - one_kind["low"]) / 2**0.5, rel=0.05)
    # Two of three right in every prompt and kind: nothing goes together, and what rounding leaves does not count.
    thirds = [pair(n, chosen=c, rejected=12 - c, right=k < 2) for n in range(9) for c in (9, 3) for k in range(3)]
    balanced, of_kind = rates.without_length(thirds, every)["balanced"], rates.by_length(thirds, every)
    assert balanced["value"] == pytest.approx(2 / 3)
    width = of_kind["more than twice as long"]["high"] - of_kind["more than twice as long"]["low"]
    assert balanced["high"] - balanced["low"] == pytest.approx(width / 2**0.5)
