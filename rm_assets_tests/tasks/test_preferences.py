"""Preference data as people have it: one file gives prompts, responses and gold rewards; every row is kept or counted."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import Recipe
from rm_assets.core.records import Pair, conversation
from rm_assets.executors.output import TaskEnd
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files

NUM = 40
ROWS = [(f"question {n}", f"good {n}", f"bad {n}") for n in range(NUM)]
SPLIT = {"train": 0.5, "validation": 0.0, "test": 0.5}
SIDES = ["chosen", "rejected"]
Row = dict[str, Any]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def answer(text: str) -> Row:
    return {"role": "assistant", "content": text}


FORMATS: dict[str, tuple[Callable[[str, str, str], Row], Row]] = {
    "text": (lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r}, {}),
    "messages": (lambda p, c, r: {"prompt": [user(p)], "chosen": [answer(c)], "rejected": [answer(r)]}, {}),
    "implicit prompt": (
        lambda p, c, r: {"chosen": [user(p), answer(c)], "rejected": [user(p), answer(r)]}, {"dialogue_fields": SIDES},
    ),
    "transcripts": (
        lambda p, c, r: {side: f"\n\nHuman: {p}\n\nAssistant: {text}" for side, text in (("chosen", c), ("rejected", r))},
        {"dialogue_fields": SIDES, "transcript": ["\n\nHuman:", "\n\nAssistant:"]},
    ),
    "rated list": (
        lambda p, c, r: {"prompt": p, "completions": [{"text": r, "score": 2}, {"text": c, "score": 5.5}]}, {},
    ),
}  # fmt: skip


def recipe(bench: Bench, *, name: str = "prefs.jsonl", prompts: Row | None = None, sampling: Row | None = None, gold: Row | None = None) -> Recipe:  # fmt: skip
    return bench.recipe(
        prompts={"source": files(name), "split": SPLIT} | (prompts or {}),
        sampling={"kind": "recorded", "response_fields": SIDES} | (sampling or {}),
        gold=gold or {"kind": "preferences"},
    )


def pairs(bench: Bench, of_recipe: Recipe) -> list[Pair]:
    return bench.rows(bench.make(of_recipe, *ASSETS[:4]))


def sides(found: list[Pair]) -> set[tuple[str, str, str]]:
    return {(p.chosen[-2]["content"], p.chosen[-1]["content"], p.rejected[-1]["content"]) for p in found}


@pytest.mark.parametrize("packing", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_form_gives_the_same_pairs(bench: Bench, form: str, packing: str) -> None:
    row, prompts = FORMATS[form]
    rows = [row(*each) for each in ROWS]
    if packing == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), bench.folder / "recipes" / "prefs.parquet")
    else:
        bench.write("prefs.jsonl", rows)
    sampling, gold = {}, None
    if form == "rated list":
        columns = {"texts": "completions[].text", "scores": "completions[].score"}
        prompts = {"source": files(f"prefs.{packing}") | {"columns": columns}}
        sampling, gold = {"response_fields": ["texts"]}, {"kind": "recorded", "reward_fields": ["scores"]}
    made = recipe(bench, name=f"prefs.{packing}", prompts=prompts, sampling=sampling, gold=gold)
    found = pairs(bench, made)
    assert len(found) == NUM
    assert sides(found) == set(ROWS)
    assert {p.gold_margin for p in found} == ({3.5} if form == "rated list" else {1.0})


def test_a_csv_of_labels_with_ties_and_margins_gives_pairs_and_counts_ties(bench: Bench) -> None:
    labels = ["a", "b", "both"] * 20
    lines = [f"q{n},one {n},two {n},{label},{n % 3 + 1}" for n, label in enumerate(labels)]
    bench.write("prefs.csv", "\n".join(["prompt,response_a,response_b,winner,strength", *lines]))
    gold = {
        "kind": "preferences", "winner_field": "winner", "winners": ["a", "b"], "ties": ["both"],
        "margin_field": "strength",
    }  # fmt: skip
    made = recipe(bench, name="prefs.csv", sampling={"response_fields": ["response_a", "response_b"]}, gold=gold)
    found = pairs(bench, made)
    assert {(p.chosen[-1]["content"], p.gold_margin) for p in found} == {
        (f"one {n}" if label == "a" else f"two {n}", n % 3 + 1.0) for n, label in enumerate(labels) if label != "both"
    }
    counts = bench.make(made, "implicit_pairs").manifest.counts
    assert (counts["candidates"], counts["pairs"], counts["tie"]) == (60, 40, 20)


def test_preferences_of_one_prompt_compare_within_their_row_alone(bench: Bench) -> None:
    rows = [{"prompt": f"q{n}", "chosen": c, "rejected": r} for n in range(NUM) for c, r in ("AB", "BC", "CA")]
    bench.write("prefs.jsonl", rows)
    found = pairs(bench, recipe(bench))
    assert len(found) == 3 * NUM  # of six responses fifteen pairs could be made
    assert {(p.chosen[-1]["content"], p.rejected[-1]["content"]) for p in found} == {("A", "B"), ("B", "C"), ("C", "A")}
    assert bench.make(recipe(bench), "prompts").manifest.counts["duplicates_dropped"] == 2 * NUM


def test_a_dialogue_keeps_its_earlier_turns_and_its_side(bench: Bench) -> None:
    """A dialogue and its continuation are in one split, and the earlier turns reach the pair."""
    rows = []
    for n in range(NUM):
        opening = [user(f"start {n}"), answer("go on"), user("yes")]
        rows.append({"chosen": [*opening[:1], answer("x")], "rejected": [*opening[:1], answer("y")]})
        rows.append({"chosen": [*opening, answer("good")], "rejected": [*opening, answer("bad")]})
    bench.write("prefs.jsonl", rows)
    found = pairs(bench, recipe(bench, prompts={"dialogue_fields": SIDES}))
    assert len(found) == 2 * NUM
    split_of: dict[str, set[str]] = {}
    for pair in found:
        split_of.setdefault(pair.chosen[0]["content"], set()).add(pair.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    assert {split for splits in split_of.values() for split in splits} == {"train", "test"}
    history = [user("start 3"), answer("go on")]
    assert conversation("yes", None, "good", history) in [pair.chosen for pair in found]


def test_dialogues_that_part_early_are_left_out_and_counted(bench: Bench) -> None:
    good = [{"chosen": [user(p), answer(c)], "rejected": [user(p), answer(r)]} for p, c, r in ROWS]
    early = {"chosen": [user("a"), answer("x"), user("b"), answer("y")], "rejected": [user("a"), answer("z")]}
    bench.write("prefs.jsonl", [*good, early, early, good[0]])
    made = recipe(bench, prompts={"dialogue_fields": SIDES})
    counts = bench.make(made, "prompts").manifest.counts
    assert (counts["rows"], counts["prompts"], counts["dialogues_part_early"], counts["duplicates_dropped"]) == (
        NUM + 3, NUM, 2, 1,
    )  # fmt: skip
    assert len(pairs(bench, made)) == NUM  # the row that is there twice gives one pair
    assert bench.make(made, "implicit_pairs").manifest.counts["duplicate"] == 1


def test_a_mixture_keeps_its_weights_and_counts_what_it_leaves_out(bench: Bench) -> None:
    bench.write("one.jsonl", [{"q": f"one {n}", "chosen": "c", "rejected": "r"} for n in range(90)])
    bench.write("two.jsonl", [{"prompt": f"two {n}", "chosen": "c", "rejected": "r"} for n in range(30)])
    parts: list[Row] = [
        {"name": "first", "source": files("one.jsonl") | {"columns": {"prompt": "q"}}, "weight": 1},
        {"name": "second", "source": files("two.jsonl"), "weight": 1, "max_prompts": 20},
    ]
    made = recipe(bench, prompts={"source": {"kind": "mixture", "parts": parts}})
    counts = bench.make(made, "prompts").manifest.counts
    assert (counts["prompts"], counts["rows"], counts["left_out_of_mixture"]) == (40, 110, 70)
    found = pairs(bench, made)
    assert {source: sum(p.source == source for p in found) for source in ("first", "second")} == {
        "first": 20,
        "second": 20,
    }
    # A part that grows takes its place at the same weights; what was kept of the other stays.
    parts[1]["max_prompts"] = 25
    grown = pairs(bench, recipe(bench, prompts={"source": {"kind": "mixture", "parts": parts}}))
    assert len(grown) == 50
    assert {p.pair_id for p in found if p.source == "first"} < {p.pair_id for p in grown}


@pytest.mark.parametrize(
    ("row", "sections", "code", "words"),
    [
        ({"prompt": "q", "chosen": 3, "rejected": "r"}, {}, "DATA_003", ("chosen", "neither a text nor a list")),
        ({"prompt": "q", "chosen": "c"}, {}, "DATA_003", ("rejected", "missing")),
        ({"prompt": [answer("x")], "chosen": "c", "rejected": "r"}, {}, "DATA_003", ("does not end with a user's message",)),
        (
            {"prompt": "q", "chosen": [user("other"), answer("c")], "rejected": "r"}, {}, "DATA_003",
            ("does not begin with the prompt of its row",),
        ),
        (
            {"prompt": "q", "chosen": "c", "rejected": "r", "w": "c"}, {"gold": {"kind": "preferences", "winner_field": "w"}},
            "DATA_003", ("'w'", "none of 0, 1, tie"),
        ),
        (
            {"prompt": "q", "chosen": "c", "rejected": "r", "m": -1}, {"gold": {"kind": "preferences", "margin_field": "m"}},
            "DATA_008", ("margin", "-1"),
        ),
        ({"prompt": "q", "chosen": "c", "rejected": "r"}, {"sampling": {"response_fields": ["chosen"]}}, "DATA_007", ("two responses",)),
        ({"chosen": "c", "rejected": "r"}, {"prompts": {"dialogue_fields": SIDES}}, "DATA_003", ("prompts.transcript",)),
    ],
)  # fmt: skip
def test_faulty_rows_are_refused_by_name(
    bench: Bench, ends: list[TaskEnd], row: Row, sections: Row, code: str, words: tuple[str, ...]
) -> None:
    good = {"prompt": "q", "chosen": "c", "rejected": "r", "w": "0", "m": 1}
    rows = [{**good, "prompt": f"q{n}"} for n in range(NUM)]
    if "prompt" not in row:
        rows = []
    bench.write("prefs.jsonl", [*rows, row])
    with pytest.raises(DataError) as caught:
        bench.make(recipe(bench, **sections), *ASSETS[:4])
    assert caught.value.code == code, caught.value
    for word in words:
        assert word in str(caught.value)
    assert "Traceback" not in json.dumps(str(caught.value))
