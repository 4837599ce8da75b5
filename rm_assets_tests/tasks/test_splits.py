"""Splits of real prompt files: near-duplicates, evaluation sets, the pinned test set, and the account over random rows."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.core.errors import DataError, RecipeError, RmAssetsError
from rm_assets.core.near_duplicates import near_duplicate_groups
from rm_assets.core.prompts import group_of, opening
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import Prompt
from rm_assets.core.smoke import smoke_recipe
from rm_assets.resources.compute import Made
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table
from rm_assets.tasks.ingest import ingest
from rm_assets.tasks.session import LineReporter, Task
from rm_assets_tests.tasks.conftest import TOY, Bench, files

ALL_TRAIN = {"train": 1.0, "validation": 0.0, "test": 0.0}
OWN_TEST = {"source": files("prompts.jsonl"), "test": files("test.jsonl"), "split": ALL_TRAIN}
LONG = "write a long story about a red fox and its two friends who live in a forest"


def prompts(bench: Bench, name: str, *texts: str) -> None:
    bench.write(name, [{"prompt": text} for text in texts])


def made(bench: Bench, **changes: Any) -> tuple[dict[str, str], dict[str, int], dict[str, Any]]:
    """The side of each prompt, the counts and the facts."""
    asset = bench.make(bench.recipe(prompts=OWN_TEST | changes), "prompts")
    return {p.prompt: p.split for p in bench.rows(asset)}, asset.manifest.counts, asset.manifest.facts


def test_near_duplicates_of_test_prompts_are_left_out_and_counted(bench: Bench) -> None:
    prompts(bench, "prompts.jsonl", f"{LONG} today", LONG.upper(), "something else", f"{LONG} today please")
    prompts(bench, "test.jsonl", LONG)
    sides, counts, facts = made(bench, near_duplicates={})
    assert sides == {"something else": "train", LONG: "test"}
    assert (counts["overlap_with_test"], counts["near_duplicates_of_test"]) == (1, 2)
    # Four prompts open nearly the same: three of `source`, one of `test`.
    assert (facts["near_duplicate_groups"], facts["near_duplicate_prompts"]) == (1, 4)
    assert len(made(bench)[0]) == 4


def test_near_duplicates_share_a_side_and_none_is_dropped(bench: Bench) -> None:
    near = [f"{LONG} number {number}" for number in range(30)]
    prompts(bench, "prompts.jsonl", *near, *(f"p{number}" for number in range(30)))
    section = {"test": None, "split": {"train": 0.5, "validation": 0.0, "test": 0.5}}
    sides, counts, _ = made(bench, **section, near_duplicates={"threshold": 0.7})
    assert counts["prompts"] == 60 and len({sides[text] for text in near}) == 1
    assert len({made(bench, **section)[0][text] for text in near}) == 2


@pytest.mark.parametrize(("stratify", "fix"), [(True, "more prompts$"), (False, r"set prompts\.split\.stratify")])
def test_an_empty_split_of_a_few_prompts_says_what_helps(bench: Bench, stratify: bool, fix: str) -> None:
    prompts(bench, "prompts.jsonl", "one")
    split = {"train": 0.8, "validation": 0.1, "test": 0.1, "stratify": stratify}
    with pytest.raises(DataError, match="DATA_004") as caught:
        made(bench, test=None, split=split)
    assert re.search(fix, caught.value.fix)


def test_a_part_without_a_prompt_is_an_error_that_names_it(bench: Bench) -> None:
    prompts(bench, "one.jsonl", *(f"one {number}" for number in range(60)))
    prompts(bench, "two.jsonl", *(f"two {number}" for number in range(60)))
    parts = [
        {"name": "helpful", "source": files("one.jsonl"), "weight": 2},
        {"name": "safety", "source": files("two.jsonl"), "weight": 0.001},
    ]
    with pytest.raises(DataError, match=r"part 'safety' gives no prompt: its weight 0\.001 against 2 leaves 0 of 60"):
        made(bench, source={"kind": "mixture", "parts": parts})


def evaluation(name: str, file: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": files(file), **more}


def test_prompts_that_share_a_run_with_an_evaluation_set_are_left_out_and_counted(bench: Bench) -> None:
    thirteen = " ".join(LONG.split()[:13])
    prompts(bench, "prompts.jsonl", f"Please {thirteen}!", " ".join(LONG.split()[:12]), "Why", f"{thirteen} ok", "x y")
    prompts(bench, "test.jsonl", f"{LONG} as a test")
    prompts(bench, "bench.jsonl", LONG, "why")
    bench.write("other.csv", "question\nx y z\n" + f"{LONG.upper()}\n")
    sets = [evaluation("bench", "bench.jsonl"), evaluation("other", "other.csv", field="question", words=13)]
    sides, counts, facts = made(bench, decontaminate=sets)
    # `!` belongs to its word, so the first prompt shares no run of 13; twelve words are too few; "why" is the whole of a text;
    # "x y" is only a part of one. The test prompt stays.
    assert list(sides) == [f"Please {thirteen}!", " ".join(LONG.split()[:12]), "x y", f"{LONG} as a test"]
    assert counts["contaminated"] == 2 and facts["contaminated_by_set"] == {"bench": 2, "other": 1}


def test_earlier_turns_are_searched_too(bench: Bench) -> None:
    turns = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "yes"}]  # fmt: skip
    bench.write("prompts.jsonl", [{"prompt": turns}, {"prompt": "yes"}])
    prompts(bench, "bench.jsonl", LONG)
    assert made(bench, decontaminate=[evaluation("bench", "bench.jsonl")])[1]["contaminated"] == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "DATA_012.*evaluation set 'bench' has no rows"),
        ('{"question": "a"}\n', "DATA_003.*evaluation set 'bench': .*line 1: column 'prompt' is missing"),
        ("{\n", "DATA_002.*evaluation set 'bench': .*line 1"),
    ],
)
def test_a_faulty_evaluation_set_is_named(bench: Bench, rows: str, said: str) -> None:
    bench.write("bench.jsonl", rows)
    with pytest.raises(RmAssetsError, match=said):
        made(bench, decontaminate=[evaluation("bench", "bench.jsonl")])


def test_the_content_of_an_evaluation_set_decides_and_not_its_place(bench: Bench) -> None:
    def make(file: str) -> bool:
        recipe = bench.recipe(prompts=OWN_TEST | {"decontaminate": [evaluation("bench", file)]})
        return bench.make(recipe, "prompts").was_there

    prompts(bench, "bench.jsonl", "a")
    assert not make("bench.jsonl")
    (bench.folder / "recipes" / "moved").mkdir()
    (bench.folder / "recipes" / "bench.jsonl").rename(bench.folder / "recipes" / "moved" / "bench.jsonl")
    assert make("moved/bench.jsonl")
    prompts(bench, "bench.jsonl", "b")
    assert not make("bench.jsonl")


def test_a_pinned_test_set_may_move_and_be_put_in_another_order_but_not_change(bench: Bench) -> None:
    prompts(bench, "test.jsonl", "one", "two", "three")
    pin = made(bench)[2]["test_set_hash"]
    bench.write("test.csv", "prompt\nthree\none\ntwo\ntwo\n")
    assert made(bench, test=files("test.csv"), test_set_hash=pin)[2]["test_set_hash"] == pin
    prompts(bench, "test.jsonl", "one", "four", "five")
    with pytest.raises(DataError, match="DATA_011") as caught:
        made(bench, test_set_hash=pin)
    assert "2 prompts were added, 2 removed, and 0 have another reference" in caught.value.why
    new = made(bench)[2]["test_set_hash"]
    assert new in caught.value.what and pin in caught.value.what
    assert made(bench, test_set_hash=new)[1]["test_prompts"] == 3


def test_a_pin_that_no_result_has_is_an_error_that_says_so(bench: Bench) -> None:
    with pytest.raises(DataError, match="no result in this store has the pinned ones"):
        made(bench, test_set_hash="0" * 32)
    assert not bench.manifests()


def test_a_smoke_run_of_a_few_test_prompts_is_not_held_to_the_pin(bench: Bench) -> None:
    recipe = smoke_recipe(bench.recipe(prompts=OWN_TEST | {"test_set_hash": "0" * 32}))
    assert bench.make(recipe, "prompts").manifest.counts["test_prompts"] == 4


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"test_set_hash": "0" * 32, "test": None, "split": {}}, "'test_set_hash' pins the prompts of 'test'"),
        (
            {"test_set_hash": "0" * 31},
            "test_set_hash: '0{31}': write 32 hex digits, as `rm-assets show prompts` prints them",
        ),
        ({"decontaminate": [evaluation("one", "a.csv"), evaluation("one", "b.csv")]}, "have the same name"),
        ({"near_duplicates": {"threshold": 0.4}}, "greater than or equal to 0.5"),
        ({"near_duplicates": {"threshold": 1}}, "less than or equal to 0.99"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(bench: Bench, section: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=f"RECIPE_003[^$]*{said}"):
        bench.recipe(prompts=OWN_TEST | section)


def test_a_model_that_was_trained_on_a_test_pair_fails_its_check(
    chain: tuple[Bench, dict[str, Made]], tmp_path: Path
) -> None:
    bench, assets = chain
    shutil.copytree(bench.folder, tmp_path / "copy")
    copied = Bench(tmp_path / "copy")

    def check() -> str:
        environment = {
            **os.environ, "RM_ASSETS_RECIPES": str(copied.folder / "recipes"), "RM_ASSETS_HOME": str(copied.home),
            "DAGSTER_HOME": "", "COLUMNS": "200",
        }  # fmt: skip
        command = [sys.executable, "-m", "rm_assets.cli.main", "run", "toy", "--select", "reward_model"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout

    assert "3 of 3 checks passed" in check()
    test_pair = next(p for p in bench.rows(assets["implicit_pairs"]) if p.split == "test")
    trained = copied.home / "reward_model" / assets["reward_model"].manifest.digest / "trained_pair_ids.txt"
    trained.write_text("\n".join([test_pair.pair_id, *trained.read_text().splitlines()[1:]]) + "\n")
    said = check()
    assert "error: reward_model, evaluation_is_not_trained_on: " in said
    assert f"1 in both, the first is {test_pair.chosen[0]['content']!r}" in said


TEXTS = st.lists(st.text(alphabet="abA", min_size=1, max_size=7).map(" ".join), min_size=1, max_size=12)
CAP = st.none() | st.integers(1, 8)


@st.composite
def sections(draw: Callable[..., Any]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Texts of the files, and a section that reads them."""
    texts = {name: draw(TEXTS) for name in ("one", "two", "test", "bench")}
    weights = draw(st.none() | st.tuples(st.sampled_from([1, 2, 3]), st.just(1)))
    parts = [
        {"name": name, "source": files(f"{name}.jsonl"), "max_prompts": draw(CAP), "weight": weights and weights[place]}
        for place, name in enumerate(("one", "two"))
    ]
    own_test = draw(st.booleans())
    shares = {"train": 0.8, "validation": 0.2, "test": 0.0} if own_test else {"train": 0.5, "validation": 0.1, "test": 0.4}  # fmt: skip
    return texts, {
        "source": draw(st.sampled_from([files("one.jsonl"), {"kind": "mixture", "parts": parts}])),
        "test": files("test.jsonl") if own_test else None,
        "split": {**shares, "stratify": draw(st.booleans())},
        "near_duplicates": draw(st.sampled_from([None, {"threshold": 0.5, "words": 2}])),
        "decontaminate": draw(st.sampled_from([[], [evaluation("bench", "bench.jsonl", words=4)]])),
        "max_prompts": draw(CAP),
    }


def split_up(
    texts: dict[str, list[str]], section: dict[str, Any]
) -> tuple[list[Prompt], dict[str, int], Recipe] | None:
    """The prompts that ingest makes of the files, the counts and the recipe; None where a split or a part is empty."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, lines in texts.items():
            (folder / f"{file}.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in lines))
        (folder / "r.yaml").write_text(json.dumps({**TOY, "prompts": section}))
        recipe = RecipeBook(folder, {}).load("r")
        task = Task("prompts", "0", recipe, Store(folder / "home"), {}, {}, LineReporter())
        try:
            product = ingest(task)
        except DataError as error:
            if error.code not in ("DATA_004", "DATA_016"):
                raise
            return None
        return list(read_table(task.folder / "prompts.parquet", Prompt)), product.counts, recipe


REASONS = (
    "duplicates_dropped", "dialogues_part_early", "left_out_of_mixture", "overlap_with_test", "near_duplicates_of_test",
    "contaminated",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(sections())
def test_rows_add_up_and_nothing_that_belongs_together_is_on_two_sides(
    drawn: tuple[dict[str, list[str]], dict[str, Any]],
) -> None:
    result = split_up(*drawn)
    if result is None:
        return
    rows, counts, recipe = result
    assert counts["rows"] == counts["prompts"] + sum(counts[reason] for reason in REASONS)
    assert counts["prompts"] == len(rows) == len({p.prompt_id for p in rows})
    assert Counter(p.split for p in rows) == Counter({s: counts[f"{s}_prompts"] for s in ("train", "validation", "test") if counts[f"{s}_prompts"]})  # fmt: skip
    near = recipe.prompts.near_duplicates
    groups = near_duplicate_groups(map(opening, rows), near) if near else {}
    sides = {(group_of(p, groups), p.split) for p in rows}
    assert len(sides) == len({group for group, _ in sides})


@settings(max_examples=30, deadline=None)
@given(sections(), st.randoms())
def test_the_order_of_the_rows_decides_no_side(drawn: tuple[dict[str, list[str]], dict[str, Any]], random: Any) -> None:
    texts, section = drawn
    section = {**section, "max_prompts": None}  # a cap takes the first rows
    if section["source"]["kind"] == "mixture":
        parts = [{**part, "max_prompts": None} for part in section["source"]["parts"]]
        section["source"] = {**section["source"], "parts": parts}
    before = split_up(texts, section)
    for lines in texts.values():
        random.shuffle(lines)
    after = split_up(texts, section)
    assert (before is None) == (after is None)
    if before and after:
        assert {p.prompt_id: p.split for p in before[0]} == {p.prompt_id: p.split for p in after[0]}
        assert before[1] == after[1]
