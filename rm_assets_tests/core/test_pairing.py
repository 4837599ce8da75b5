"""Implicit pairs: who is chosen, and an account in which no candidate is lost."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_assets.core.errors import DataError
from rm_assets.core.pairing import by_prompt, candidates, make_pairs
from rm_assets.core.recipe import PairsSection
from rm_assets.core.records import GoldReward, Pair

Policy = Literal["best_worst", "all", "adjacent"]
POLICIES: tuple[Policy, ...] = ("best_worst", "all", "adjacent")


def rewards(*values: float, texts: str | None = None, prompt: str = "p", system: str | None = None) -> list[GoldReward]:
    """One response a value, named a, b, c, ...; `texts` gives each a one-letter text of its own."""
    return [
        GoldReward(
            prompt_id=prompt,
            prompt=prompt,
            system=system,
            reference=None,
            source="web",
            split="train",
            external_id=None,
            row=0,
            response_id=prompt + "abcdefgh"[i],
            sample_index=i,
            response=(texts or "abcdefgh")[i],
            model="m",
            seed=None,
            num_tokens=None,
            finished=None,
            gold_reward=value,
        )
        for i, value in enumerate(values)
    ]


def made(groups: list[list[GoldReward]], section: PairsSection) -> tuple[list[Pair], Counter[str]]:
    pairs, account = make_pairs(groups, section)
    return list(pairs), account


def names(group: list[GoldReward], policy: Policy) -> list[str]:
    return [better.response + worse.response for better, worse in candidates(group, policy)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("best_worst", ["bc"]),
        ("all", ["bd", "ba", "bc", "da", "dc", "ac"]),
        ("adjacent", ["bd", "da", "ac"]),
    ],
)
def test_policy_proposes_these_pairs_of_four(policy: Policy, expected: list[str]) -> None:
    assert names(rewards(1, 9, 0, 5), policy) == expected  # in rank: b d a c


@pytest.mark.parametrize("policy", POLICIES)
def test_two_responses_give_one_candidate_and_fewer_give_none(policy: Policy) -> None:
    assert names(rewards(1, 2), policy) == ["ba"]
    assert names(rewards(1), policy) == []
    assert names([], policy) == []


def test_ties_stay_in_order_of_their_sample_index() -> None:
    assert names(rewards(1, 1, 1), "all") == ["ab", "ac", "bc"]


def test_pair_carries_conversations_ids_and_margin() -> None:
    (pair,), _ = made([rewards(-7.5, -3.25, system="")], PairsSection())
    assert pair.chosen == [
        {"role": "system", "content": ""},
        {"role": "user", "content": "p"},
        {"role": "assistant", "content": "b"},
    ]
    assert pair.rejected[-1] == {"role": "assistant", "content": "a"}
    assert (pair.chosen_id, pair.rejected_id, pair.prompt_id) == ("pb", "pa", "p")
    assert (pair.source, pair.split) == ("web", "train")
    assert (pair.chosen_gold_reward, pair.rejected_gold_reward, pair.gold_margin) == (-3.25, -7.5, 4.25)


def test_system_message_of_none_is_left_out() -> None:
    (pair,), _ = made([rewards(0, 1)], PairsSection())
    assert [message["role"] for message in pair.chosen] == ["user", "assistant"]


def test_ties_are_dropped_and_counted() -> None:
    pairs, account = made([rewards(1, 1, 2)], PairsSection(policy="all"))
    assert [p.chosen_id + p.rejected_id for p in pairs] == ["pcpa", "pcpb"]
    assert account == {"candidates": 3, "kept": 2, "tie": 1, "below_min_margin": 0, "identical_text": 0, "duplicate": 0}


def test_pairs_below_min_margin_are_dropped_and_the_margin_itself_is_kept() -> None:
    pairs, account = made([rewards(0, 1, 3)], PairsSection(policy="adjacent", min_margin=2))
    assert [p.gold_margin for p in pairs] == [2]
    assert account == {"candidates": 2, "kept": 1, "tie": 0, "below_min_margin": 1, "identical_text": 0, "duplicate": 0}


def test_identical_texts_make_no_pair_even_where_gold_differs() -> None:
    pairs, account = made([rewards(0, 1, texts="xx")], PairsSection())
    assert pairs == []
    assert account == {"candidates": 1, "kept": 0, "tie": 0, "below_min_margin": 0, "identical_text": 1, "duplicate": 0}


def test_no_pair_crosses_prompts() -> None:
    pairs, account = made([rewards(0, 1), rewards(5, prompt="q"), rewards(3, 2, prompt="r")], PairsSection())
    assert [(p.prompt_id, p.chosen_id, p.rejected_id) for p in pairs] == [("p", "pb", "pa"), ("r", "ra", "rb")]
    assert account["candidates"] == 2


@given(st.permutations([0, 1, 2, 3]), st.sampled_from(POLICIES))
def test_order_of_rows_changes_no_pair(order: list[int], policy: Policy) -> None:
    group = rewards(2, 0, 2, 1)
    section = PairsSection(policy=policy)
    assert made([[group[i] for i in order]], section) == made([group], section)


def test_at_most_one_prompt_is_taken_ahead_of_the_pair_that_is_given() -> None:
    taken: list[str] = []

    def source() -> Iterator[GoldReward]:
        for prompt in "pqr":
            for reward in rewards(0, 1, 2, prompt=prompt):
                taken.append(reward.prompt_id)
                yield reward

    pairs, account = make_pairs(by_prompt(source()), PairsSection(policy="all"))
    assert taken == []
    for number, pair in enumerate(pairs):
        # All of this prompt, and the one reward that shows where the next prompt begins.
        assert pair.prompt_id == "pqr"[number // 3] and taken == list("pppqqqrrr")[: 3 * (number // 3) + 4]
        assert account["kept"] == number + 1
    assert account["kept"] == 9


def test_a_prompt_that_comes_back_is_data_010() -> None:
    first, second = rewards(0, 1)
    with pytest.raises(DataError, match="gold rewards of prompt p are not side by side") as caught:
        list(by_prompt([first, *rewards(3, prompt="q"), second]))
    assert caught.value.code == "DATA_010"


def test_a_pair_of_texts_is_kept_once_unless_the_recipe_keeps_all() -> None:
    groups = [rewards(1, 1, 0, 0, texts="aabb")]
    pairs, account = made(groups, PairsSection())
    assert (len(pairs), account["duplicate"], account["identical_text"]) == (1, 3, 2)
    assert len(made(groups, PairsSection(duplicates="keep"))[0]) == 4
