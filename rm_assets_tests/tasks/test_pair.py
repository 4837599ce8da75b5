"""implicit_pairs: TRL's conversational format, every candidate accounted for."""

import json
from pathlib import Path

from rm_assets_tests.tasks.conftest import ASSETS, Bench

ROWS = [("good", 3), ("fine", 2), ("also fine", 2), ("poor", 1), ("poor", 0)]
"""Ten candidates: a tie, two of the same text, four with a margin of 1, three of 2 and one of 3."""


def prepare(bench: Bench) -> None:
    prompts = ("what is 0 and 1", "is 0 even")
    bench.write("prompts.jsonl", [{"prompt": prompts[0]}])
    bench.write("test.jsonl", [{"prompt": prompts[1]}])
    bench.write("answers.jsonl", [{"prompt": p, "response": t, "gold_reward": r} for p in prompts for t, r in ROWS])


def test_every_candidate_is_a_pair_or_has_a_reason(bench: Bench) -> None:
    prepare(bench)
    made = bench.make(bench.recipe(pairs={"policy": "all", "min_margin": 2}), *ASSETS[:4])
    assert made.manifest.counts == {
        "pairs": 6, "train_pairs": 3, "validation_pairs": 0, "test_pairs": 3, "candidates": 20, "tie": 2,
        "below_min_margin": 8, "identical_text": 2, "duplicate": 2,
    }  # fmt: skip
    assert [p.gold_margin for p in bench.rows(made) if p.split == "train"] == [2, 2, 2]
    assert made.manifest.facts["tie_rate"] == 0.2


def test_pairs_are_conversations_in_table_and_export(bench: Bench) -> None:
    prepare(bench)
    recipe = bench.recipe(pairs={"policy": "best_worst"})
    made = bench.make(recipe, *ASSETS[:4])
    question = {"role": "user", "content": "what is 0 and 1"}
    (line,) = (made.folder / "train.jsonl").read_text("utf-8").splitlines()
    exported = json.loads(line)
    assert exported["chosen"] == [question, {"role": "assistant", "content": "good"}]
    assert exported["rejected"] == [question, {"role": "assistant", "content": "poor"}]
    assert exported["gold_margin"] == 3 and bench.rows(made)[0].chosen == exported["chosen"]
    assert sorted(made.manifest.files) == ["pairs.parquet", "test.jsonl", "train.jsonl"]


def test_a_system_message_comes_first(bench: Bench) -> None:
    prepare(bench)
    prompts = {**bench.recipe().prompts.model_dump(exclude_none=True, mode="json"), "system": "Be brief."}
    made = bench.make(bench.recipe(prompts=prompts), *ASSETS[:4])
    assert {p.chosen[0]["content"] for p in bench.rows(made)} == {"Be brief."}
    assert [m["role"] for m in bench.rows(made)[0].rejected] == ["system", "user", "assistant"]


def test_another_pair_policy_makes_only_pairs_anew(bench: Bench) -> None:
    prepare(bench)
    bench.make(bench.recipe(), *ASSETS[:4])
    made = bench.make(bench.recipe(pairs={"policy": "adjacent"}), *ASSETS[:4])
    assert bench.num_tasks_started() == 5 and not made.was_there
    assert made.manifest.counts["candidates"] == 8


def test_equal_pairs_are_equal_bytes_in_any_store(bench: Bench, tmp_path: Path) -> None:
    prepare(bench)
    other = Bench(tmp_path, home=tmp_path / "another home")
    one, two = (b.make(b.recipe(), *ASSETS[:4]) for b in (bench, other))
    assert one.folder != two.folder and one.manifest.data_version == two.manifest.data_version
    assert one.manifest.digest == two.manifest.digest
