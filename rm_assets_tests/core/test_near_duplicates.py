"""Near-duplicates: the exact similarity decides, and what hangs together is one group whatever the order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.core import near_duplicates
from rm_assets.core.errors import DataError
from rm_assets.core.near_duplicates import near_duplicate_groups
from rm_assets.core.prompts import word_runs
from rm_assets.core.recipe import NearDuplicates

LETTERS = "abcdefghijklmnopqrstu"  # 21 words are 20 runs of two


def words(letters: str) -> str:
    return " ".join(letters)


def test_two_texts_are_near_from_the_threshold_on() -> None:
    one, longer = words(LETTERS), words(LETTERS + "12345")
    # 20 runs of two words against 25: they share 20 of 25.
    assert near_duplicate_groups([one, longer], NearDuplicates(threshold=0.8, words=2)) == {one: one, longer: one}
    assert near_duplicate_groups([one, longer], NearDuplicates(threshold=0.81, words=2)) == {}


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    chain = [words(LETTERS + "vwxyz"[:extra]) for extra in range(0, 6)]
    far = words(LETTERS[::-1])
    # The ends share 20 of 25 runs, neighbours at least 24 of 25.
    groups = near_duplicate_groups([*chain[::-1], far], NearDuplicates(threshold=0.9, words=2))
    assert groups == dict.fromkeys(chain, chain[0])


def test_a_joined_group_is_compared_by_all_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_buckets", lambda runs, _: [list(range(len(runs)))])
    chain = [words(LETTERS[start : start + 10]) for start in range(3)]
    # Of nine runs of two, neighbours share eight (of ten in all), the ends seven (of eleven).
    groups = near_duplicate_groups(chain, NearDuplicates(threshold=0.8, words=2))
    assert groups == dict.fromkeys(chain, chain[0])


def test_nothing_one_word_and_equal_texts_make_no_group() -> None:
    assert near_duplicate_groups([], NearDuplicates()) == {}
    assert near_duplicate_groups(["", "a", "b", "a"], NearDuplicates()) == {}


@pytest.mark.parametrize("threshold", [0.5, 0.99])
def test_the_least_and_the_largest_threshold_find_texts_that_are_as_good_as_equal(threshold: float) -> None:
    one = " ".join(str(number) for number in range(1_000))
    other = f"{one} more"  # 999 of 1,000 runs of two
    assert near_duplicate_groups([one, other], NearDuplicates(threshold=threshold, words=2)) == {one: one, other: one}


def similarity(one: str, other: str) -> float:
    a, b = word_runs(one, 2), word_runs(other, 2)
    return len(a & b) / len(a | b)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=8).map(words), max_size=20), st.randoms())
def test_groups_hang_together_by_the_exact_similarity_in_any_order(texts: list[str], shuffle: random.Random) -> None:
    half = NearDuplicates(threshold=0.5, words=2)
    groups = near_duplicate_groups(texts, half)
    others = list(texts)
    shuffle.shuffle(others)
    assert near_duplicate_groups(others, half) == groups
    for text, group in groups.items():
        assert group == min(other for other in groups if groups[other] == group)
        assert any(similarity(text, other) >= 0.5 for other in groups if other != text and groups[other] == group)


def test_nearly_all_near_pairs_are_found() -> None:
    draw = random.Random(0)
    pairs = []
    for _ in range(300):
        one = [str(draw.randrange(10**6)) for _ in range(60)]
        other = [*one[:57], "x", "y", "z"]  # 56 of 62 runs of two shared: 0.90
        pairs.append((" ".join(one), " ".join(other)))
    groups = near_duplicate_groups([text for pair in pairs for text in pair], NearDuplicates(words=2))
    found = sum(one in groups and groups[one] == groups.get(other) for one, other in pairs)
    assert found >= 297 and len(set(groups.values())) == found


def test_more_comparisons_than_the_limit_are_an_error_and_not_a_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_COMPARISONS", 60)
    draw = random.Random(0)
    texts = [words(LETTERS * 2) + " " + " ".join(str(draw.randrange(10**6)) for _ in range(6)) for _ in range(60)]
    with pytest.raises(DataError, match="DATA_015"):
        near_duplicate_groups(texts, NearDuplicates(words=1))
