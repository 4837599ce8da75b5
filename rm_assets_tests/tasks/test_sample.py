"""sampled_responses: recorded in their order, or sampled, each once."""

from rm_assets.core.digests import sample_seed
from rm_assets.core.records import Response
from rm_assets.resources.compute import Made
from rm_assets_tests.tasks.conftest import Bench, files

PROMPTS = {
    "source": files("prompts.jsonl"), "split": {"train": 0.5, "validation": 0.0, "test": 0.5}, "id_field": "id",
}  # fmt: skip
"""Twenty prompts of one source: enough that neither side of the split is empty."""


def prepare(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": f"p{n}", "id": n} for n in range(20)])


def share_of_tokens(before: Made, after: Made) -> float:
    """Tokens forwarded after a change, of those before it."""
    return after.manifest.work["tokens forwarded"] / before.manifest.work["tokens forwarded"]


def texts(rows: list[Response]) -> list[tuple[str, int, str]]:
    return [(r.prompt, r.sample_index, r.response) for r in rows]


def test_recorded_responses_follow_the_prompts_and_each_prompts_order_the_file(bench: Bench) -> None:
    prepare(bench)
    rows = [{"key": str(n % 20), "a": f"{n}", "by": "m"} for n in reversed(range(40))]
    bench.write("mine.jsonl", [*rows, {"key": "99", "a": "nobody's", "by": "m"}])
    sampling = {
        "kind": "recorded", "source": files("mine.jsonl"), "align": "prompt_id", "prompt_field": "key",
        "response_fields": ["a"], "model_field": "by",
    }  # fmt: skip
    made = bench.make(bench.recipe(prompts=PROMPTS, sampling=sampling), "prompts", "sampled_responses")
    expected = [(f"p{n}", k, str(n + 20 * (1 - k))) for n in range(20) for k in (0, 1)]
    assert texts(bench.rows(made)) == expected
    assert {r.model for r in bench.rows(made)} == {"m"}
    assert made.manifest.counts == {
        "responses": 40, "prompts": 20, "prompts_without_response_dropped": 0, "rows_of_unknown_prompts": 1,
    }  # fmt: skip
    assert made.manifest.work == {"responses sampled": 0}


def test_rows_with_several_responses_align_by_their_position(bench: Bench) -> None:
    prepare(bench)
    bench.write("wide.jsonl", [{"response_1": f"a{n}", "response_2": f"b{n}"} for n in range(20)])
    fields = ["response_1", "response_2"]
    sampling = {"kind": "recorded", "source": files("wide.jsonl"), "align": "row", "response_fields": fields}
    made = bench.make(bench.recipe(prompts=PROMPTS, sampling=sampling), "prompts", "sampled_responses")
    assert texts(bench.rows(made)) == [(f"p{n}", k, f"{'ab'[k]}{n}") for n in range(20) for k in (0, 1)]


def test_prompts_without_response_are_dropped_and_counted_when_the_recipe_says_so(bench: Bench) -> None:
    bench.write(
        "answers.jsonl", [{"prompt": "what is 0 and 1", "response": "1"}, {"prompt": "is 0 even", "response": "y"}]
    )
    sampling = {"kind": "recorded", "source": files("answers.jsonl"), "missing": "drop"}
    made = bench.make(bench.recipe(sampling=sampling), "prompts", "sampled_responses")
    assert made.manifest.counts["responses"] == 2
    assert made.manifest.counts["prompts_without_response_dropped"] == 10


def test_a_policy_gives_each_prompt_its_number_of_responses(grown: tuple[Bench, list[Made], list[Made]]) -> None:
    bench, before, _ = grown
    rows = bench.rows(before[1])
    assert [r.sample_index for r in rows] == [0, 1, 2] * 80 + [0, 1] * 10
    assert before[1].manifest.work["responses sampled"] == before[1].manifest.counts["responses"] == 260
    assert all(r.seed == sample_seed(0, r.prompt_id, r.sample_index) for r in rows)
    assert all(0 < r.num_tokens <= 8 and r.finished is not None for r in rows)


def test_a_changed_and_a_new_prompt_sample_their_own_responses_alone(
    grown: tuple[Bench, list[Made], list[Made]],
) -> None:
    bench, before, after = grown
    assert after[1].manifest.work["responses sampled"] == 6 and after[1].manifest.counts["responses"] == 263
    assert 0 < share_of_tokens(before[1], after[1]) < 0.03
    old = {r.response_id: r for r in bench.rows(before[1])}
    new = {r.response_id: r for r in bench.rows(after[1])}
    assert [r.prompt for key, r in old.items() if key not in new] == ["what is 39 and 1"] * 3
    assert {key: new[key].response for key in old.keys() & new.keys()} == {
        k: old[k].response for k in old.keys() & new.keys()
    }
    assert [r.prompt for key, r in new.items() if key not in old] == ["what is 39 and 2"] * 3 + ["what is 80 and 1"] * 3
