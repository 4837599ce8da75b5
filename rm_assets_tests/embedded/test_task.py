"""The miniature task: prompts, references and what pre-training sees of them."""

import random
from itertools import islice

import pytest

from rm_assets.core.gold.verifier import VerifierRule, verify
from rm_assets.embedded.task import (
    FAULTS,
    Order,
    corrupt,
    generate_prompts,
    is_recipe_prompt,
    pretraining_examples,
    reference_of,
)

ORDER = Order("Mia", "orders", (("pens", 3), ("cups", 2), ("hats", 4)))
RULE = VerifierRule(
    format_pattern=r"(?:[a-z]+: \d+\n)+#### \d+", exact=1.0, partial=1.0, numerical=1.0, lines=1.0, format=1.0
)


def test_an_order_reads_as_a_request_and_its_reference_as_a_list_with_the_total() -> None:
    assert ORDER.prompt == "Mia orders 3 pens, 2 cups and 4 hats. Write the list and the total."
    assert reference_of(ORDER) == "pens: 3\ncups: 2\nhats: 4\n#### 9"


def test_prompts_are_distinct_and_as_many_as_asked_for() -> None:
    prompts = [prompt for prompt, _ in generate_prompts(500, seed=3)]
    assert len(prompts) == len(set(prompts)) == 500
    assert list(generate_prompts(0, seed=3)) == []


def test_the_same_seed_gives_the_same_prompts_in_every_process() -> None:
    # Literal, so that a change of Python's string hashing or of the generator shows.
    assert list(generate_prompts(1, seed=0)) == [
        (
            "Zoe buys 3 lamps, 4 coins, 4 keys and 3 eggs. Write the list and the total.",
            "lamps: 3\ncoins: 4\nkeys: 4\neggs: 3\n#### 14",
        )
    ]
    assert list(generate_prompts(20, seed=1)) == list(generate_prompts(20, seed=1))
    assert list(generate_prompts(20, seed=1)) != list(generate_prompts(20, seed=2))


def test_fewer_prompts_are_a_prefix_of_more() -> None:
    assert list(generate_prompts(10, seed=5)) == list(generate_prompts(30, seed=5))[:10]


def test_a_negative_number_of_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="num_prompts is -1"):
        list(generate_prompts(-1, seed=0))


def test_pretraining_and_recipe_prompts_lie_in_different_halves() -> None:
    assert all(is_recipe_prompt(prompt) for prompt, _ in generate_prompts(300, seed=0))
    assert not any(is_recipe_prompt(example.prompt) for example in islice(pretraining_examples(seed=0), 300))


def test_every_reference_is_perfect_under_the_verifier() -> None:
    for _, reference in generate_prompts(100, seed=0):
        assert verify(reference, reference, RULE).reward == 5.0


def test_an_example_is_faulty_exactly_if_the_verifier_finds_a_fault() -> None:
    rng = random.Random(0)
    for num_faults in (0, 1, 2, 3) * 100:
        draft = corrupt(ORDER, num_faults, rng)
        assert len(draft.faults) == num_faults
        assert (verify(draft.render(), reference_of(ORDER), RULE).reward == 5.0) == (num_faults == 0)


def test_more_faults_than_there_are_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="num_faults is 7; a response takes 6 at most"):
        corrupt(ORDER, 7, random.Random(0))


def test_pretraining_shows_every_fault_and_right_answers_too() -> None:
    examples = list(islice(pretraining_examples(seed=0), 1000))
    assert {fault for example in examples for fault in example.faults} == set(FAULTS)
    assert 300 < sum(not example.faults for example in examples) < 600
    assert 500 < sum(example.is_demonstration for example in examples) < 700


def test_a_wrong_total_is_named_low_or_high_and_stays_positive() -> None:
    order = Order("Tom", "buys", (("pens", 1), ("cups", 1)))
    rng = random.Random(0)
    for draft in (corrupt(order, 6, rng) for _ in range(50)):
        assert draft.total >= 1
        assert ("low" in draft.faults) == (draft.total < 2)
        assert ("high" in draft.faults) == (draft.total > 2)
