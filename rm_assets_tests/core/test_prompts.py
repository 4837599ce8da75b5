"""Prompts: one normal form, no duplicates, no prompt on two sides."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.core.digests import prompt_id
from rm_assets.core.errors import DataError
from rm_assets.core.prompts import assign_splits, deduplicate, hash_of_test_set, mix, normalise, word_runs
from rm_assets.core.recipe import SplitFractions
from rm_assets.core.records import Prompt

FRACTIONS = SplitFractions(train=0.5, validation=0.2, test=0.3)
STRATIFIED = SplitFractions(train=0.5, validation=0.2, test=0.3, stratify=True)


def prompt(text: str, *, system: str | None = None, reference: str | None = None, row: int = 0) -> Prompt:
    return Prompt(
        prompt_id=prompt_id(text, system),
        prompt=text,
        system=system,
        reference=reference,
        source="all",
        split="",
        external_id=None,
        row=row,
    )


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Two\t words\n", "two words"),
        ("STRASSE straße", "strasse strasse"),
        ("ﬁne ①", "fine 1"),  # compatibility characters
        ("e\u0301", "é"),  # a letter and its accent become one character
        ("", ""),
    ],
)
def test_normal_form_ignores_case_spaces_and_spelling_of_characters(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text(alphabet="aA \t\nß"))
def test_upper_case_and_more_space_change_no_normal_form(text: str) -> None:
    assert normalise(f"  {text.upper()}\n") == normalise(text)


def test_first_of_equal_prompts_is_kept_and_the_others_counted() -> None:
    rows = [prompt("a", row=0), prompt("b", row=1), prompt("a", row=2), prompt("a", system="s", row=3)]
    kept, num_dropped = deduplicate(rows)
    assert [p.row for p in kept] == [0, 1, 3]
    assert num_dropped == 1


def test_same_prompt_with_two_references_is_an_error_that_names_both_rows() -> None:
    with pytest.raises(DataError, match=r"DATA_010.*rows 1 and 3"):
        deduplicate([prompt("a", reference="1"), prompt("b", row=1), prompt("a", reference="2", row=2)])


PARTS = st.lists(st.tuples(st.integers(1, 30), st.sampled_from([1, 2, 3, 0.5, 0.3])), min_size=1, max_size=5)


@given(PARTS, st.none() | st.integers(1, 40))
def test_a_weighted_mixture_has_what_its_scarcest_part_allows_and_never_more_than_most(
    drawn: list[tuple[int, float]], most: int | None
) -> None:
    parts = {
        str(part): [prompt(f"{number} of {part}") for number in range(size)] for part, (size, _) in enumerate(drawn)
    }
    weights = {str(part): weight for part, (_, weight) in enumerate(drawn)}
    tenths = {name: round(10 * weight) for name, weight in weights.items()}
    whole = sum(tenths.values())
    allowed = min(len(part) * whole // tenths[name] for name, part in parts.items())
    try:
        kept, num_left_out = mix(parts, weights, most)
    except DataError:
        assert any(allowed * tenth < whole for tenth in tenths.values())
        return
    assert len(kept) == min(allowed, most or allowed)
    assert num_left_out == sum(map(len, parts.values())) - len(kept)
    counts = Counter(p.prompt.split()[-1] for p in kept)
    assert all(abs(counts[name] - len(kept) * tenth / whole) < 1 for name, tenth in tenths.items())


def test_three_equal_parts_share_five_prompts() -> None:
    parts = {name: [prompt(f"{number} of {name}") for number in range(4)] for name in "abc"}
    kept, _ = mix(parts, dict.fromkeys("abc", 1.0), 5)
    assert Counter(p.prompt[-1] for p in kept) == {"a": 2, "b": 2, "c": 1}


def test_parts_that_contradict_each_other_are_an_error_that_names_them() -> None:
    parts = {"one": [prompt("a", reference="1")], "two": [prompt("b"), prompt("a", reference="2", row=1)]}
    with pytest.raises(DataError, match=r"DATA_010.*row 1 of part 'one' and row 2 of part 'two'"):
        mix(parts, None, None)


def test_a_part_that_earlier_parts_have_whole_is_an_error() -> None:
    with pytest.raises(DataError, match=r"DATA_016.*part 'two' gives no prompt: earlier parts have all 1"):
        mix({"one": [prompt("a"), prompt("b")], "two": [prompt("a")]}, None, None)


@given(st.lists(st.text(alphabet="abAB \t", max_size=4), max_size=40), st.integers(0, 5))
def test_no_normal_form_is_on_two_sides(texts: list[str], seed: int) -> None:
    side: dict[str, str] = {}
    for p in assign_splits([prompt(text) for text in texts], FRACTIONS, seed):
        assert side.setdefault(normalise(p.prompt), p.split) == p.split


@given(st.lists(st.text(), unique=True, max_size=20), st.lists(st.text(), max_size=20))
def test_added_prompts_move_no_other_prompt(old: list[str], new: list[str]) -> None:
    before = assign_splits([prompt(text) for text in old], FRACTIONS, 0)
    after = assign_splits([prompt(text) for text in [*new, *old]], FRACTIONS, 0)
    assert after[len(new) :] == before


def test_shares_are_near_the_fractions_and_another_seed_draws_anew() -> None:
    prompts = [prompt(f"prompt {i}") for i in range(4000)]
    first, second = (assign_splits(prompts, FRACTIONS, seed) for seed in (0, 1))
    counts = Counter(p.split for p in first)
    # 4,000 prompts: the standard error of a share is below 0.008
    assert abs(counts["train"] / 4000 - 0.5) < 0.03
    assert abs(counts["validation"] / 4000 - 0.2) < 0.03
    assert abs(counts["test"] / 4000 - 0.3) < 0.03
    assert first != second


def test_larger_train_share_only_takes_from_the_others() -> None:
    prompts = [prompt(f"prompt {i}") for i in range(200)]
    small = assign_splits(prompts, SplitFractions(train=0.5, validation=0.0, test=0.5), 0)
    large = assign_splits(prompts, SplitFractions(train=0.8, validation=0.0, test=0.2), 0)
    assert all(b.split == "train" for a, b in zip(small, large, strict=True) if a.split == "train")


def test_share_of_one_leaves_the_other_splits_empty() -> None:
    everything = SplitFractions(train=1.0, validation=0.0, test=0.0)
    assert {p.split for p in assign_splits([prompt(str(i)) for i in range(100)], everything, 0)} == {"train"}


def of_sources(sizes: list[int]) -> list[Prompt]:
    """So many distinct prompts of each source."""
    return [
        replace(prompt(f"prompt {number} of {source}"), source=str(source))
        for source, size in enumerate(sizes)
        for number in range(size)
    ]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 5))
def test_stratified_shares_hold_in_each_source_to_within_one_prompt(sizes: list[int], seed: int) -> None:
    counts = Counter((p.source, p.split) for p in assign_splits(of_sources(sizes), STRATIFIED, seed))
    for source, size in enumerate(sizes):
        for split in ("train", "validation", "test"):
            assert abs(counts[str(source), split] - size * getattr(STRATIFIED, split)) <= 1


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 5))
def test_stratified_shares_hold_to_within_one_group_and_no_group_is_on_two_sides(sizes: list[int], seed: int) -> None:
    prompts = [prompt("A  " * number + str(group)) for group, size in enumerate(sizes) for number in range(size)]
    groups = {normalise(p.prompt): normalise(p.prompt).split()[-1] for p in prompts}
    split = assign_splits(prompts, STRATIFIED, seed, groups)
    assert len({(groups[normalise(p.prompt)], p.split) for p in split}) == len(sizes)
    counts = Counter(p.split for p in split)
    assert all(
        abs(counts[side] - sum(sizes) * getattr(STRATIFIED, side)) <= max(sizes)
        for side in ("train", "validation", "test")
    )


@given(st.integers(1, 60), st.integers(0, 5))
def test_one_prompt_more_moves_at_most_one_at_each_of_the_two_borders(size: int, seed: int) -> None:
    prompts = of_sources([size, 20])
    before = assign_splits(prompts, STRATIFIED, seed)
    after = assign_splits([replace(prompt("new"), source="0"), *prompts], STRATIFIED, seed)[1:]
    moved = [old.source for old, new in zip(before, after, strict=True) if old.split != new.split]
    assert len(moved) <= 2 and set(moved) <= {"0"}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=200, max_size=200), st.integers(0, 20))
def test_stratified_shares_of_many_small_sources_are_near_in_all(sizes: list[int], seed: int) -> None:
    fractions = SplitFractions(train=0.8, validation=0.1, test=0.1, stratify=True)
    counts = Counter(p.split for p in assign_splits(of_sources(sizes), fractions, seed))
    # A source's rounding has a standard deviation of at most 1/2, so 200 sources have at most 7.1: five of these.
    for side in ("train", "validation", "test"):
        assert abs(counts[side] - sum(sizes) * getattr(fractions, side)) < 36


@pytest.mark.parametrize(("num_sources", "size"), [(200, 4), (100, 5), (100, 7)])
@pytest.mark.parametrize("seed", range(5))
def test_no_split_of_many_small_sources_is_empty(num_sources: int, size: int, seed: int) -> None:
    fractions = SplitFractions(train=0.8, validation=0.1, test=0.1, stratify=True)
    counts = Counter(p.split for p in assign_splits(of_sources([size] * num_sources), fractions, seed))
    expected = num_sources * size / 10
    assert (
        expected / 2
        < min(counts["test"], counts["validation"])
        <= max(counts["test"], counts["validation"])
        < 1.5 * expected
    )


def test_a_group_of_two_sources_counts_for_the_first_by_name() -> None:
    half = SplitFractions(train=0.5, validation=0.0, test=0.5, stratify=True)
    # "same" is of source a, which then has ten prompts: five of them are test prompts, and five of the ten of source b.
    own = [replace(prompt(f"{number} of {source}"), source=source) for source in "ab" for number in range(8)]
    own += [replace(prompt(f"more {number}"), source="b") for number in range(2)]
    both = [replace(prompt("same"), source="b"), replace(prompt("SAME"), source="a")]
    for seed in range(10):
        for rows in ([*own, *both], [*own, *both[::-1]]):
            test = [p for p in assign_splits(rows, half, seed) if p.split == "test"]
            of_b = sum(p.source == "b" and p.prompt != "same" for p in test)
            assert of_b == 5 and 4 <= len(test) - of_b <= 6


@given(st.permutations([prompt(str(i)) for i in range(12)]), st.booleans())
def test_the_order_of_prompts_decides_no_side(prompts: list[Prompt], stratify: bool) -> None:
    fractions = STRATIFIED if stratify else FRACTIONS
    in_order = assign_splits([prompt(str(i)) for i in range(12)], fractions, 0)
    assert {p.prompt: p.split for p in assign_splits(prompts, fractions, 0)} == {p.prompt: p.split for p in in_order}


def test_runs_of_words_are_those_of_the_normal_form_and_a_shorter_text_is_one() -> None:
    assert len(word_runs("a b c d", 3)) == 2
    assert word_runs("B  c D", 3) < word_runs("a b c d", 3)
    assert word_runs("a b", 3) == word_runs(" A b", 3) and len(word_runs("a b", 3)) == 1
    assert word_runs("a b", 3).isdisjoint(word_runs("a b c", 3))


def test_hash_of_the_test_set_is_that_of_its_prompts_and_references() -> None:
    one, two = replace(prompt("a", reference="1", row=5), split="test"), replace(prompt("b"), split="test")
    known = hash_of_test_set([one, two])
    assert known == hash_of_test_set([two, replace(one, row=0, source="x"), prompt("c")])
    assert known != hash_of_test_set([two, replace(one, reference="2")])
    assert known != hash_of_test_set([one])
