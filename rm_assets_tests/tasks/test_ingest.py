"""prompts: every row read is kept or counted, and nothing is made twice."""

from rm_assets_tests.tasks.conftest import Bench, files

SPLIT = {"train": 1.0, "validation": 0.0, "test": 0.0}


def test_every_row_is_kept_or_counted(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": p} for p in ("a", "b", "a", "c", "  C ", "T  ONE")])
    bench.write("test.jsonl", [{"prompt": p} for p in ("t one", "t two", "t two")])
    made = bench.make(bench.recipe(), "prompts")
    assert made.manifest.counts == {
        "prompts": 6, "train_prompts": 4, "validation_prompts": 0, "test_prompts": 2, "duplicates_dropped": 2,
        "overlap_with_test": 1, "rows": 9, "dialogues_part_early": 0, "left_out_of_mixture": 0,
        "near_duplicates_of_test": 0, "contaminated": 0,
    }  # fmt: skip
    assert made.manifest.work == {"rows read": 9}
    assert [(p.prompt, p.split, p.row) for p in bench.rows(made)] == [
        ("a", "train", 0), ("b", "train", 1), ("c", "train", 3), ("  C ", "train", 4), ("t one", "test", 0),
        ("t two", "test", 1),
    ]  # fmt: skip


def test_columns_are_taken_as_the_recipe_names_them(bench: Bench) -> None:
    bench.write(
        "prompts.csv", "q,key,who,gold,from\nWhy?,k1,You are terse.,#### 3,web\nHow?,k2,You are kind.,#### 4,book\n"
    )
    section = {
        "source": files("prompts.csv"), "test": files("test.jsonl"), "split": SPLIT, "prompt_field": "q",
        "id_field": "key", "system_field": "who", "reference_field": "gold", "source_field": "from",
    }  # fmt: skip
    bench.write("test.jsonl", [{"q": "T", "key": 3, "who": None, "gold": None, "from": None}])
    made = bench.make(bench.recipe(prompts=section), "prompts")
    assert [(p.prompt, p.external_id, p.system, p.reference, p.source) for p in bench.rows(made)] == [
        ("Why?", "k1", "You are terse.", "#### 3", "web"), ("How?", "k2", "You are kind.", "#### 4", "book"),
        ("T", "3", None, None, "unnamed"),
    ]  # fmt: skip
    assert made.manifest.facts["prompts_by_source"] == {"web": 1, "book": 1, "unnamed": 1}


def test_max_prompts_keeps_the_first_of_each_source(bench: Bench) -> None:
    section = {"source": files("prompts.jsonl"), "test": files("test.jsonl"), "split": SPLIT, "max_prompts": 2}
    made = bench.make(bench.recipe(prompts=section), "prompts")
    assert [p.prompt for p in bench.rows(made)] == ["what is 0 and 1", "what is 1 and 1", "is 0 even", "is 1 even"]


def test_prompts_of_the_generator_fall_on_all_three_sides(bench: Bench) -> None:
    made = bench.make(bench.recipe(prompts={"source": {"kind": "generator", "num_prompts": 100}}), "prompts")
    counts = made.manifest.counts
    assert counts["prompts"] == 100 == sum(counts[f"{s}_prompts"] for s in ("train", "validation", "test"))
    assert min(counts["train_prompts"], counts["validation_prompts"], counts["test_prompts"]) > 0


def test_a_second_make_starts_no_process(bench: Bench) -> None:
    first = bench.make(bench.recipe(), "prompts")
    second = bench.make(bench.recipe(), "prompts")
    assert (first.was_there, second.was_there) == (False, True)
    assert first.manifest == second.manifest and first.folder == second.folder
    assert bench.num_tasks_started() == 1 and "nothing to do" in bench.said[-1]


def test_the_same_data_under_another_recipes_name_is_shared(bench: Bench) -> None:
    first = bench.make(bench.recipe(), "prompts")
    assert bench.make(bench.recipe("other", description="the same"), "prompts").was_there
    assert bench.num_tasks_started() == 1 and first.manifest.recipe == "toy"


def test_a_prompt_more_is_another_result_beside_the_first(bench: Bench) -> None:
    first = bench.make(bench.recipe(), "prompts")
    bench.write("test.jsonl", [{"prompt": "new"}])
    second = bench.make(bench.recipe(), "prompts")
    assert not second.was_there and len(bench.manifests()) == 2
    assert first.manifest.counts["test_prompts"] == 4 and second.manifest.counts["test_prompts"] == 1
