"""What bad input gets: an error that names the place, no half result, and everything made before left as it was."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import RmAssetsError
from rm_assets.core.recipe import Recipe
from rm_assets.executors.output import TaskEnd
from rm_assets.resources.compute import Made
from rm_assets.storage.metrics_log import METRICS_LOG
from rm_assets_tests.fakes import build_tokenizer, save_causal, save_encoder
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, files

REPOSITORY = Path(__file__).parents[2]
WITHOUT_TEST = {"source": files("prompts.jsonl"), "split": {"train": 0.5, "validation": 0.0, "test": 0.5}}
RECORDED = {"kind": "recorded", "source": files("answers.jsonl")}
BY_ROW = {"kind": "recorded", "source": files("labels.jsonl"), "align": "row"}


def assert_refused(bench: Bench, recipe: Recipe, asset: str, ends: list[TaskEnd], code: str, *words: str) -> None:
    """Making `asset` fails with `code`, the words are in the message, and the store keeps what it had and no more."""
    before, num_ends = bench.manifests(), len(ends)
    with pytest.raises(RmAssetsError) as caught:
        bench.make(recipe, asset)
    assert caught.value.code == code, caught.value
    assert all(word in str(caught.value) for word in words), caught.value
    assert caught.value.fix
    assert all(end.status == 1 for end in ends[num_ends:])
    assert bench.manifests() == before
    unfinished = [d for d in bench.home.glob(f"{asset}/*/") if not (d / "manifest.json").exists()]
    assert {f.name for d in unfinished for f in d.iterdir()} <= {"request.json", "work", METRICS_LOG}
    assert not [f for f in bench.home.rglob("*") if f.name.endswith(".tmp")]


def edit(bench: Bench, name: str, change: Callable[[list[dict[str, Any]]], list[Any]]) -> None:
    """Changes the rows of a source file."""
    path = bench.folder / "recipes" / name
    bench.write(name, change([json.loads(line) for line in path.read_text("utf-8").splitlines()]))


def relabel(bench: Bench, reward: Any, *, row: int | None = None) -> None:
    edit(bench, "answers.jsonl", lambda rows: [
        r | {"gold_reward": reward} if row in (None, n) else r for n, r in enumerate(rows)
    ])  # fmt: skip


def malformed(bench: Bench) -> None:
    bench.write("prompts.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": \n')


def without_prompt(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": "a"}, {"text": "b"}])


def blank_prompt(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": "a"}, {"prompt": " "}])


def no_test_prompt(bench: Bench) -> None:
    bench.write("test.jsonl", "")


def no_prompt_at_all(bench: Bench) -> None:
    bench.write("prompts.jsonl", "\n")


def every_prompt_is_a_test_prompt(bench: Bench) -> None:
    bench.write("test.jsonl", [{"prompt": f"what is {n} and 1"} for n in range(8)])


def no_responses_file(bench: Bench) -> None:
    (bench.folder / "recipes" / "answers.jsonl").unlink()


def two_without_response(bench: Bench) -> None:
    missing = ("what is 3 and 1", "is 2 even")
    edit(bench, "answers.jsonl", lambda rows: [r for r in rows if r["prompt"] not in missing])


def response_that_is_a_number(bench: Bench) -> None:
    edit(bench, "answers.jsonl", lambda rows: [rows[0], rows[1] | {"response": 3}, *rows[2:]])


def one_reward_too_few(bench: Bench) -> None:
    edit(bench, "answers.jsonl", lambda rows: rows)
    bench.write("labels.jsonl", "")
    answers = (bench.folder / "recipes" / "answers.jsonl").read_text("utf-8").splitlines()
    bench.write("labels.jsonl", "\n".join(answers[:3] + answers[4:]))


def response_without_reward(bench: Bench) -> None:
    (bench.folder / "recipes" / "labels.jsonl").write_text((bench.folder / "recipes" / "answers.jsonl").read_text())
    edit(
        bench,
        "labels.jsonl",
        lambda rows: [r | {"response": r["response"].replace("good what is 5", "x")} for r in rows],
    )


def by_row(rows: list[dict[str, Any]]) -> Callable[[Bench], None]:
    """Twenty prompts of two responses each, and these rows of rewards."""

    def prepare(bench: Bench) -> None:
        bench.write("prompts.jsonl", [{"prompt": f"p{n}"} for n in range(20)])
        bench.write("answers.jsonl", [{"response": f"r{n}"} for n in range(20)])
        bench.write("labels.jsonl", rows)

    return prepare


def nan_reward(bench: Bench) -> None:
    relabel(bench, float("nan"), row=4)


def infinite_reward(bench: Bench) -> None:
    relabel(bench, "-inf", row=0)


def reward_in_words(bench: Bench) -> None:
    relabel(bench, "high", row=2)


def all_tied(bench: Bench) -> None:
    relabel(bench, 0.5)


def all_test_pairs_tied(bench: Bench) -> None:
    edit(bench, "answers.jsonl", lambda rows: [
        r | {"gold_reward": 1} if r["prompt"].endswith("even") else r for r in rows
    ])  # fmt: skip


def contradictory_references(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": "a", "gold": "#### 1"}, {"prompt": "a", "gold": "#### 2"}])


def same_prompt_under_two_systems(bench: Bench) -> None:
    bench.write("prompts.jsonl", [{"prompt": "what is 0 and 1", "system": s} for s in ("brief", "long")])
    bench.write("test.jsonl", [{"prompt": "is 0 even", "system": None}])


def nothing(bench: Bench) -> None:
    """The fault is in the recipe."""


LABELS = {"kind": "recorded", "source": files("labels.jsonl")}
ROWS = {"prompts": WITHOUT_TEST, "sampling": {**RECORDED, "align": "row"}}
CASES: dict[str, tuple[Callable[[Bench], None], dict[str, Any], str, str, tuple[str, ...]]] = {
    "missing prompts": (
        nothing, {"prompts": TOY["prompts"] | {"source": files("no.jsonl")}}, "prompts", "DATA_001", ("/no.jsonl",),
    ),
    "pattern without files": (
        nothing, {"prompts": TOY["prompts"] | {"source": files("no*.csv")}}, "prompts", "DATA_001", ("/no*.csv",),
    ),
    "missing responses": (no_responses_file, {}, "sampled_responses", "DATA_001", ("/answers.jsonl",)),
    "malformed JSON": (malformed, {}, "prompts", "DATA_002", ("prompts.jsonl, line 3",)),
    "row without prompt": (
        without_prompt, {}, "prompts", "DATA_003", ("prompts.jsonl, line 2", "column 'prompt' is missing", "text"),
    ),
    "blank prompt": (blank_prompt, {}, "prompts", "DATA_003", ("prompts.jsonl, line 2", "holds no text")),
    "empty test split": (no_test_prompt, {}, "prompts", "DATA_004", ("the test split has no prompts",)),
    "no prompts": (no_prompt_at_all, {}, "prompts", "DATA_004", ("the train split has no prompts",)),
    "all held out": (every_prompt_is_a_test_prompt, {}, "prompts", "DATA_004", ("the train split has no prompts",)),
    "contradiction": (
        contradictory_references, {"prompts": TOY["prompts"] | {"reference_field": "gold"}}, "prompts", "DATA_010",
        ("rows 1 and 2",),
    ),
    "responses missing": (
        two_without_response, {}, "sampled_responses", "DATA_006", ("2 of 12 prompts", "'what is 3 and 1'"),
    ),
    "response of another type": (
        response_that_is_a_number, {}, "sampled_responses", "DATA_003", ("answers.jsonl, line 2", "'response'"),
    ),
    "two prompts for a row": (
        same_prompt_under_two_systems, {"prompts": TOY["prompts"] | {"system_field": "system"}}, "sampled_responses",
        "DATA_010", ("'what is 0 and 1'",),
    ),
    "a reward too few": (
        one_reward_too_few, {"gold": LABELS}, "gold_rewards", "DATA_007",
        ("'what is 1 and 1' has 2 responses and 1 recorded rewards",),
    ),
    "reward of another response": (
        response_without_reward, {"gold": {**LABELS, "response_field": "response"}}, "gold_rewards", "DATA_007",
        ("1 of 24 responses have no recorded reward, the first is 'good what is 5' to prompt 'what is 5 and 1'",),
    ),
    "rows too few": (
        by_row([{"gold_reward": n} for n in range(19)]), {**ROWS, "gold": BY_ROW}, "gold_rewards", "DATA_007",
        ("labels.jsonl has 19 rows", "20 rows"),
    ),
    "rows too many": (
        by_row([{"gold_reward": n} for n in range(21)]), {**ROWS, "gold": BY_ROW}, "gold_rewards", "DATA_007",
        ("labels.jsonl has 21 rows", "20 rows"),
    ),
    "rows in another order": (
        by_row([{"response": f"r{19 - n}", "gold_reward": n} for n in range(20)]),
        {**ROWS, "gold": {**BY_ROW, "response_field": "response"}}, "gold_rewards", "DATA_007", ("'p0'", "'r0'"),
    ),
    "NaN": (nan_reward, {}, "gold_rewards", "DATA_008", ("answers.jsonl, line 5", "nan")),
    "infinity": (infinite_reward, {}, "gold_rewards", "DATA_008", ("answers.jsonl, line 1", "-inf")),
    "reward in words": (reward_in_words, {}, "gold_rewards", "DATA_003", ("answers.jsonl, line 3", "'high'")),
    "no reference": (
        nothing, {"gold": {"kind": "verifier"}}, "gold_rewards", "DATA_009", ("'what is 0 and 1'",),
    ),
    "all pairs tied": (all_tied, {}, "implicit_pairs", "DATA_005", ("no training pair", "12 tie")),
    "all test pairs tied": (all_test_pairs_tied, {}, "implicit_pairs", "DATA_005", ("no test pair", "4 test prompts")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_rows_are_refused_by_name(bench: Bench, ends: list[TaskEnd], case: str) -> None:
    prepare, changes, asset, code, words = CASES[case]
    prepare(bench)
    recipe = bench.recipe(**changes)
    num_before = ASSETS.index(asset)
    if num_before:
        bench.make(recipe, *ASSETS[:num_before])
    assert_refused(bench, recipe, asset, ends, code, *words)


def test_a_mended_file_is_all_that_is_needed_after_an_error(bench: Bench, ends: list[TaskEnd]) -> None:
    nan_reward(bench)
    bench.make(bench.recipe(), *ASSETS[:2])
    assert_refused(bench, bench.recipe(), "gold_rewards", ends, "DATA_008")
    bench.write_toy()
    assert bench.make(bench.recipe(), *ASSETS[:3]).manifest.counts["gold_rewards"] == 24


def test_an_asset_whose_input_is_not_made_is_refused(bench: Bench, ends: list[TaskEnd]) -> None:
    assert_refused(bench, bench.recipe(), "sampled_responses", ends, "STORE_002", "needs prompts")
    assert ends == []


def limit_file_size(folder: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """Task processes of this test cannot write a file beyond this size, as on a disk that fills up."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({num_bytes}, {num_bytes}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(REPOSITORY)]))


@pytest.mark.parametrize(
    "asset",
    ["prompts", *(pytest.param(a, marks=pytest.mark.slow) for a in ASSETS[1:3]), "implicit_pairs"],
)
def test_a_full_disk_is_store_001_and_the_next_run_goes_on(
    bench: Bench, ends: list[TaskEnd], asset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for earlier in ASSETS[: ASSETS.index(asset)]:
        bench.make(bench.recipe(), earlier)
    with monkeypatch.context() as patch:
        limit_file_size(tmp_path / "limit", patch, 600)
        assert_refused(bench, bench.recipe(), asset, ends, "STORE_001", "no space left", f"/{asset}/")
    assert not bench.make(bench.recipe(), asset).was_there


def test_a_store_that_cannot_be_written_is_store_001(tmp_path: Path, ends: list[TaskEnd]) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(tmp_path, home=tmp_path / "file" / "home")
    bench.write_toy()
    assert_refused(bench, bench.recipe(), "prompts", ends, "STORE_001", str(bench.home), "RM_ASSETS_HOME")


Chain = tuple[Bench, dict[str, Made]]


def trained_from(chain: Chain, folder: Path, **changes: Any) -> Recipe:
    base = {"path": str(folder), **changes.pop("base", {})}
    return chain[0].recipe("bad", training={**TOY["training"], "base": base, **changes})


def test_an_unknown_model_type_is_refused(chain: Chain, ends: list[TaskEnd], tmp_path: Path) -> None:
    folder = save_causal(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt99"}))
    recipe = trained_from(chain, folder)
    assert_refused(chain[0], recipe, "reward_model", ends, "MODEL_002", str(folder), "does not know the model type")


def test_a_causal_model_without_chat_template_is_refused(chain: Chain, ends: list[TaskEnd], tmp_path: Path) -> None:
    folder = save_causal(tmp_path / "model", tokenizer=build_tokenizer(None))
    recipe = trained_from(chain, folder)
    assert_refused(chain[0], recipe, "reward_model", ends, "MODEL_003", str(folder), "chat_template")


def test_a_causal_model_without_pad_token_is_refused(chain: Chain, ends: list[TaskEnd], tmp_path: Path) -> None:
    folder = save_causal(tmp_path / "model", tokenizer=build_tokenizer(pad=None))
    recipe = trained_from(chain, folder)
    assert_refused(chain[0], recipe, "reward_model", ends, "MODEL_004", str(folder), "pad_token")


def test_a_context_too_short_for_a_pair_is_refused(chain: Chain, ends: list[TaskEnd]) -> None:
    bench = chain[0]
    recipe = trained_from(chain, bench.folder / "recipes" / "base", max_length=20, over_length="error")
    first = bench.rows(chain[1]["implicit_pairs"])[0].pair_id
    assert_refused(bench, recipe, "reward_model", ends, "MODEL_005", f"Pair {first}", "training.max_length is 20")


@pytest.mark.slow
def test_a_length_beyond_the_models_context_is_refused(chain: Chain, ends: list[TaskEnd]) -> None:
    recipe = trained_from(chain, chain[0].folder / "recipes" / "base", max_length=513)
    assert_refused(chain[0], recipe, "reward_model", ends, "MODEL_005", "max_length is 513", "at most 512")


@pytest.mark.slow
def test_pairs_that_are_all_over_length_are_refused(chain: Chain, ends: list[TaskEnd]) -> None:
    recipe = trained_from(chain, chain[0].folder / "recipes" / "base", max_length=10)
    assert_refused(chain[0], recipe, "reward_model", ends, "DATA_005", "8 are longer than max_length 10")


@pytest.mark.slow
def test_a_recipe_can_supply_chat_template_and_pad_token(chain: Chain, tmp_path: Path) -> None:
    folder = save_causal(tmp_path / "model", tokenizer=build_tokenizer(None, pad=None))
    template = "{%- for m in messages -%}{{- m['content'] + '<|end|>' -}}{%- endfor -%}"
    base = {"chat_template": template, "pad_token": "<|spare|>"}
    made = chain[0].make(trained_from(chain, folder, base=base, max_optimizer_steps=1), "reward_model")
    assert made.manifest.counts["pairs_trained"] == 8
    assert (made.folder / "checkpoint" / "chat_template.jinja").read_text() == template


@pytest.mark.slow
def test_an_encoder_needs_no_chat_template(chain: Chain, tmp_path: Path) -> None:
    recipe = trained_from(chain, save_encoder(tmp_path / "model"), max_length=60, max_optimizer_steps=1)
    made = chain[0].make(recipe, *ASSETS[4:])
    assert made.manifest.counts["canaries"] == 3


# The model has 40 kB and the optimizer's state more: the first limit stops one, the second the other.
@pytest.mark.slow
@pytest.mark.parametrize("num_bytes", [6_000, 60_000])
def test_a_disk_that_fills_up_while_training_is_store_001(
    chain: Chain, ends: list[TaskEnd], num_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = trained_from(chain, chain[0].folder / "recipes" / "base", learning_rate=0.02)
    limit_file_size(tmp_path / "limit", monkeypatch, num_bytes)
    assert_refused(chain[0], recipe, "reward_model", ends, "STORE_001", "no space left")
