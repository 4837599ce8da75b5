"""Responses and labels in the rows of the prompts: what changes there is seen, and a row counts where its prompt comes from."""

from typing import Any

import pytest

from rm_assets.core.recipe import Recipe
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files

NUM = 12
SPLIT = {"train": 0.5, "validation": 0.0, "test": 0.5, "stratify": True}
Row = dict[str, Any]


def rows(winner: str = "0", answer: str = "fine") -> list[Row]:
    return [
        {"prompt": f"question {n}", "a": f"{answer} {n}", "b": f"no {n}", "winner": winner, "s": [1, 0], "t": [0, 1]}
        for n in range(NUM)
    ]


def labelled(bench: Bench, **sections: Any) -> Recipe:
    return bench.recipe(
        **{
            "prompts": {"source": files("rows.jsonl"), "split": SPLIT},
            "sampling": {"kind": "recorded", "response_fields": ["a", "b"]},
            "gold": {"kind": "preferences", "winner_field": "winner"},
            **sections,
        }
    )


def chosen(bench: Bench, recipe: Recipe) -> set[str]:
    """The first words of the chosen responses."""
    return {pair.chosen[-1]["content"].split()[0] for pair in bench.rows(bench.make(recipe, *ASSETS[:4]))}


def test_a_label_that_was_turned_round_is_seen(bench: Bench) -> None:
    bench.write("rows.jsonl", rows())
    assert chosen(bench, labelled(bench)) == {"fine"}
    bench.write("rows.jsonl", rows(winner="1"))
    assert chosen(bench, labelled(bench)) == {"no"}


def test_an_answer_that_was_edited_is_seen(bench: Bench) -> None:
    bench.write("rows.jsonl", rows())
    chosen(bench, labelled(bench))
    bench.write("rows.jsonl", rows(answer="better"))
    assert chosen(bench, labelled(bench)) == {"better"}


def test_another_column_of_rewards_is_seen(bench: Bench) -> None:
    bench.write("rows.jsonl", rows())
    gold = {"kind": "recorded", "reward_fields": ["score"]}
    found = []
    for column in ("s", "t"):
        source = {**files("rows.jsonl"), "columns": {"score": column}}
        found.append(chosen(bench, labelled(bench, gold=gold, prompts={"source": source, "split": SPLIT})))
    assert found == [{"fine"}, {"no"}]


def test_what_has_a_source_of_its_own_does_not_follow_the_prompts_file(bench: Bench) -> None:
    bench.write("rows.jsonl", rows())
    bench.write("own.jsonl", [{"prompt": r["prompt"], "response": r[side]} for r in rows() for side in "ab"])
    recipe = labelled(
        bench, sampling={"kind": "recorded", "source": files("own.jsonl")},
        gold={"kind": "verifier"},
    )  # fmt: skip
    before = bench.make(recipe, *ASSETS[:2])
    bench.write("rows.jsonl", rows(winner="1"))
    after = bench.make(recipe, *ASSETS[:2])
    assert after.was_there and after.manifest == before.manifest


def test_test_prompts_take_no_row_of_the_training_source(bench: Bench) -> None:
    bench.write("rows.jsonl", rows(winner="1"))
    bench.write("held_out.jsonl", rows()[:3])
    prompts = {
        "source": files("rows.jsonl"), "test": files("held_out.jsonl"),
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
    }  # fmt: skip
    recipe = labelled(bench, prompts=prompts)
    made = bench.make(recipe, *ASSETS[:4])
    tests = [pair for pair in bench.rows(made) if pair.split == "test"]
    assert len(tests) == 3 and {pair.chosen[-1]["content"].split()[0] for pair in tests} == {"fine"}
    assert bench.make(recipe, ASSETS[1]).manifest.counts["rows_of_unknown_prompts"] == 3


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_beyond_the_last_prompt_are_not_read(bench: Bench, mixed: bool) -> None:
    bench.write("rows.jsonl", [*rows(), *rows()[:2], {"prompt": "one too many"}])
    source: Row = files("rows.jsonl")
    prompts: Row = {"source": source, "split": SPLIT, "max_prompts": NUM}
    if mixed:
        parts = [{"name": "only", "source": source, "max_prompts": NUM}]
        prompts = {"source": {"kind": "mixture", "parts": parts}, "split": SPLIT}
    made = bench.make(labelled(bench, prompts=prompts), *ASSETS[:3])
    assert made.manifest.counts["recorded_rows"] == NUM + 2
