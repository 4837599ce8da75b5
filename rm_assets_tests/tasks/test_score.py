"""gold_rewards: every reward is of its own response, and only what is new is labelled."""

from typing import Any, get_args

import pytest

from rm_assets.core.planning.stage_plans import GOLD_PLANS
from rm_assets.core.recipe import GoldSection
from rm_assets.resources.compute import Made
from rm_assets.tasks.score import LABELLERS
from rm_assets_tests.tasks.conftest import ASSETS, Bench, files
from rm_assets_tests.tasks.test_sample import PROMPTS, prepare, share_of_tokens


def rewards(bench: Bench, **sections: Any) -> dict[str, float]:
    """Gold reward by response text."""
    made = bench.make(bench.recipe(**sections), *ASSETS[:3])
    rows = bench.rows(made)
    assert made.manifest.counts["gold_rewards"] == len(rows)
    assert [r.response_id for r in rows] == [
        r.response_id for r in bench.rows(bench.make(bench.recipe(**sections), ASSETS[1]))
    ]
    return {r.response: r.gold_reward for r in rows}


def test_every_kind_of_gold_has_a_labeller_and_a_plan() -> None:
    union, _ = get_args(GoldSection)
    kinds = {get_args(section.model_fields["kind"].annotation)[0] for section in get_args(union)}
    assert set(LABELLERS) == kinds and set(GOLD_PLANS) == kinds - {"combined"}


def test_rewards_that_differ_by_rounding_alone_are_equal(bench: Bench) -> None:
    prompts = [f"what is {n} and 1" for n in range(8)] + [f"is {n} even" for n in range(4)]
    golds = {"left": 0.1 + 0.2, "right": 0.3, "less": 0.299999998}
    bench.write(
        "answers.jsonl", [{"prompt": p, "response": t, "gold_reward": g} for p in prompts for t, g in golds.items()]
    )
    assert rewards(bench) == {"left": 0.3, "right": 0.3, "less": 0.299999998}


def test_recorded_rewards_find_their_response_by_its_text(bench: Bench) -> None:
    prepare(bench)
    rows = [{"prompt": f"p{n}", "response": f"p{n} {k}", "gold_reward": 10 * n + k} for n in range(20) for k in (1, 2)]
    bench.write("answers.jsonl", rows)
    bench.write("labels.jsonl", rows[::-1])
    gold = {"kind": "recorded", "source": files("labels.jsonl"), "response_field": "response"}
    found = rewards(bench, prompts=PROMPTS, gold=gold)
    assert found == {f"p{n} {k}": 10 * n + k for n in range(20) for k in (1, 2)}


def test_rewards_without_response_column_are_taken_in_order(bench: Bench) -> None:
    prepare(bench)
    bench.write("answers.jsonl", [{"prompt": f"p{n}", "response": f"p{n} {k}"} for k in (1, 2) for n in range(20)])
    bench.write("labels.csv", "prompt,gold_reward\n" + "".join(f"p{n},{k}.5\n" for k in (1, 2) for n in range(20)))
    found = rewards(bench, prompts=PROMPTS, gold={"kind": "recorded", "source": files("labels.csv")})
    assert found == {f"p{n} {k}": k + 0.5 for n in range(20) for k in (1, 2)}


def test_ranks_of_a_csv_become_rewards_of_which_the_first_is_the_highest(bench: Bench) -> None:
    prepare(bench)
    bench.write(
        "ranked.csv", "prompt,response,rank\n" + "".join(f"p{n},p{n} {k},{k}\n" for n in range(20) for k in (3, 1, 2))
    )
    gold = {
        "kind": "recorded", "source": files("ranked.csv"), "response_field": "response", "reward_fields": ["rank"],
        "ranks": True,
    }  # fmt: skip
    sampling = {"kind": "recorded", "source": files("ranked.csv")}
    found = rewards(bench, prompts=PROMPTS, sampling=sampling, gold=gold)
    assert found == {f"p{n} {k}": -k for n in range(20) for k in (1, 2, 3)}


def test_lists_of_rewards_align_with_rows_of_several_responses(bench: Bench) -> None:
    prepare(bench)
    bench.write("wide.jsonl", [{"response_1": f"a{n}", "response_2": f"b{n}"} for n in range(20)])
    bench.write("rewards.jsonl", [[n, -n] for n in range(20)])
    fields = ["response_1", "response_2"]
    sampling = {"kind": "recorded", "source": files("wide.jsonl"), "align": "row", "response_fields": fields}
    gold = {"kind": "recorded", "source": files("rewards.jsonl"), "align": "row", "reward_fields": ["0", "1"]}
    found = rewards(bench, prompts=PROMPTS, sampling=sampling, gold=gold)
    assert found == {**{f"a{n}": n for n in range(20)}, **{f"b{n}": -n for n in range(20)}}


def test_the_same_text_recorded_twice_keeps_both_rewards(bench: Bench) -> None:
    rows = [
        {"prompt": p, "response": "same", "gold_reward": r} for p in ("what is 0 and 1", "is 0 even") for r in (1, 2)
    ]
    bench.write("answers.jsonl", rows)
    sampling = {"kind": "recorded", "source": files("answers.jsonl"), "missing": "drop"}
    made = bench.make(bench.recipe(sampling=sampling), *ASSETS[:3])
    assert [r.gold_reward for r in bench.rows(made)] == [1, 2, 1, 2]


def test_a_verifier_gives_the_weighted_sum_and_reports_its_parts(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": "2 + 3", "gold": "#### 5"}])
    bench.write("test.jsonl", [{"prompt": "1 + 1", "gold": "#### 2"}])
    bench.write("answers.jsonl", [
        {"prompt": p, "response": r} for p, r in (("2 + 3", "#### 5"), ("2 + 3", "#### 6"), ("1 + 1", "two"))
    ])  # fmt: skip
    prompts = {
        "source": files("prompts.jsonl"), "test": files("test.jsonl"), "reference_field": "gold",
        "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
    }  # fmt: skip
    made = bench.make(
        bench.recipe(prompts=prompts, gold={"kind": "verifier", "exact": 2.0, "format": 0.5}), *ASSETS[:3]
    )
    rows = bench.rows(made)
    assert [r.gold_reward for r in rows] == [2.5, 0.5, 0.0]
    assert [(r.components["exact"], r.components["format"]) for r in rows] == [(1, 1), (0, 1), (0, 0)]
    assert made.manifest.work == {"responses scored": 3}
    assert made.manifest.facts["mean_exact"] == pytest.approx(1 / 3, abs=1e-4)


def test_a_gold_model_labels_distinct_conversations_once(grown: tuple[Bench, list[Made], list[Made]]) -> None:
    bench, before, _ = grown
    rows = bench.rows(before[2])
    distinct = {(r.prompt, r.response): r.gold_reward for r in rows}
    assert before[2].manifest.work["responses scored"] == len(distinct) and len(rows) == 260
    assert all(distinct[r.prompt, r.response] == r.gold_reward for r in rows)
    assert len(set(distinct.values())) > 1 and before[2].manifest.counts["truncated"] == 0


def test_a_gold_model_labels_only_what_is_new(grown: tuple[Bench, list[Made], list[Made]]) -> None:
    bench, before, after = grown
    old = {r.response_id: r.gold_reward for r in bench.rows(before[2])}
    new = {r.response_id: r for r in bench.rows(after[2])}
    added = {(r.prompt, r.response) for key, r in new.items() if key not in old}
    assert after[2].manifest.work["responses scored"] == len(added) and {p for p, _ in added} == {
        "what is 39 and 2", "what is 80 and 1",
    }  # fmt: skip
    assert 0 < share_of_tokens(before[2], after[2]) < 0.03
    assert {key: new[key].gold_reward for key in old if key in new} == {k: v for k, v in old.items() if k in new}
