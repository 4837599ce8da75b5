"""Rankings: what a person types, which entry stands, and the gold rewards that follow."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_assets.core.gold.rankings import (
    Action,
    Agreement,
    Entry,
    Ranking,
    format_ranking,
    labels,
    parse_ranking,
    places,
    ranking_of,
    standing,
    text_id,
    verdict,
)

TYPED: list[tuple[str, str, Ranking]] = [
    ("abc", "b > a = c", (("b",), ("a", "c"))),
    ("abc", "C>B>A", (("c",), ("b",), ("a",))),
    ("abc", " = ", (("a", "b", "c"),)),
    ("ab", "=", (("a", "b"),)),
    ("ab", "b", (("b",), ("a",))),
    ("ab", "a > b", (("a",), ("b",))),
    ("a", "a", (("a",),)),
]
REFUSED = [
    ("abc", "b", "not ranked: a, c; name every answer, tied ones as a = b"),
    ("abc", "b > a >", "an answer is missing beside '>' or '='"),
    ("abc", "b > a > a > c", "a is named twice"),
    ("abc", "b a c", "there is no answer 'b a c'; write for example a > b > c"),
    ("ab", "s", "there is no answer 's'; write for example a > b"),
    ("ab", "1", "there is no answer '1'; write for example a > b"),
    ("ab", "\x00\ud800", "there is no answer '\x00\ud800'; write for example a > b"),
]


@pytest.mark.parametrize(("known", "typed", "ranking"), TYPED)
def test_what_is_typed_becomes_a_ranking(known: str, typed: str, ranking: Ranking) -> None:
    assert parse_ranking(typed, list(known)) == ranking


@pytest.mark.parametrize(("known", "typed", "sentence"), REFUSED)
def test_what_is_no_ranking_gets_one_sentence(known: str, typed: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_ranking(typed, list(known))


@given(st.integers(1, 60).flatmap(lambda n: st.permutations(labels(n))), st.data())
def test_every_ranking_is_read_as_it_is_written(order: list[str], data: st.DataObject) -> None:
    is_tied = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))
    groups: list[tuple[str, ...]] = []
    for name, with_the_last in zip(order, is_tied, strict=True):
        groups[-1:] = [(*groups[-1], name)] if groups and with_the_last else [*groups[-1:], (name,)]
    assert parse_ranking(format_ranking(tuple(groups)), sorted(order)) == tuple(groups)


@given(st.text(), st.integers(1, 4))
def test_whatever_is_typed_is_a_ranking_of_all_or_refused(typed: str, num: int) -> None:
    try:
        ranking = parse_ranking(typed, labels(num))
    except ValueError:
        return
    assert sorted(name for group in ranking for name in group) == labels(num)


def test_labels_leave_out_the_commands() -> None:
    assert labels(3) == ["a", "b", "c"]
    assert labels(25)[-3:] == ["z", "aa", "ab"]
    assert not {"q", "s", "u"} & set(labels(500))


def test_a_text_has_one_id_within_its_prompt() -> None:
    assert text_id("p", "x") == text_id("p", "x") != text_id("other", "x")
    assert len(text_id("p", "x")) == 16


def entry(prompt: str, ranking: str | None, by: str | None = None, action: Action = "rank") -> Entry:
    """`ranking` as it is typed, with letters for text ids."""
    groups = parse_ranking(ranking, sorted(set(ranking) - set(" >="))) if ranking else ()
    return Entry(prompt_id=prompt, action=action, ranking=groups, annotator=by, at="")


def test_tied_texts_share_the_mean_of_their_places() -> None:
    assert places((("b",), ("a", "c"))) == {"b": 1, "a": 2.5, "c": 2.5}
    assert places((("a", "b", "c"),)) == {"a": 2, "b": 2, "c": 2}


def test_the_last_entry_of_an_annotator_stands_and_an_undo_leaves_none() -> None:
    entries = [
        entry("p", "a > b"), entry("q", "a > b"), entry("p", "b > a"), entry("p", "a = b", by="anna"),
        entry("q", None, action="undo"), entry("r", None, action="skip"),
    ]  # fmt: skip
    assert standing(entries) == {
        ("p", None): entry("p", "b > a"),
        ("p", "anna"): entry("p", "a = b", by="anna"),
        ("r", None): entry("r", None, action="skip"),
    }


def test_a_ranking_holds_for_fewer_texts_and_not_for_new_ones() -> None:
    ranking = (("b",), ("a", "c"), ("d",))
    assert ranking_of(ranking, {"a", "c", "d"}) == (("a", "c"), ("d",))
    assert ranking_of(ranking, {"a", "e"}) is None


def test_gold_rewards_are_minus_the_mean_rank_of_two_annotators() -> None:
    found = verdict([entry("p", "b > a = c"), entry("p", "a > b > c", by="anna")], {"a", "b", "c"})
    assert (found.state, found.num_stale) == ("ranked", 0)
    assert found.gold_rewards() == {"a": -(2.5 + 1) / 2, "b": -(1 + 2) / 2, "c": -(2.5 + 3) / 2}


@pytest.mark.parametrize(
    ("entries", "texts", "state", "num_stale"),
    [
        ([], "ab", "pending", 0),
        ([], "a", "one_text", 0),
        ([entry("p", None, action="skip")], "ab", "skipped", 0),
        ([entry("p", None, action="skip"), entry("p", "a > b", by="anna")], "ab", "ranked", 0),
        ([entry("p", "a > b")], "abc", "pending", 1),
        ([entry("p", "a > b"), entry("p", None, "anna", "skip")], "abc", "pending", 1),
        ([entry("p", "a > b"), entry("p", "c > a > b", by="anna")], "abc", "ranked", 1),
    ],
)
def test_a_prompt_is_ranked_skipped_or_pending(entries: list[Entry], texts: str, state: str, num_stale: int) -> None:
    found = verdict(entries, set(texts))
    assert (found.state, found.num_stale) == (state, num_stale)


def test_agreement_counts_pairs_that_both_order() -> None:
    agreement = Agreement()
    assert agreement.facts() == {}
    agreement.add([places(parse_ranking("a > b > c", "abc")), places(parse_ranking("b > a = c", "abc"))])
    # a b: opposite; b c: same; a c: tied by the second, left out
    assert agreement.facts() == {"annotator_agreement": 0.5, "annotator_agreement_n": 2}
