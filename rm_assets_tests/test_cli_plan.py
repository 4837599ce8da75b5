"""`rm-assets plan`, as a user would type it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rm_assets.backends import machine as machine_facts
from rm_assets.cli.main import app
from rm_assets.core.errors import ModelError, PlanError
from rm_assets.core.recipe import Recipe
from rm_assets.executors.local import run_local
from rm_assets.resources import known
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench

COMMAND = str(Path(sys.executable).parent / "rm-assets")
STEPS = ("--pairs", "3000", "--prompts", "2000", "--batch-size", "64", "--reward-epochs", "30", "--rl-epochs", "10")
MINE = """
prompts:
  source: {kind: files, files: [prompts.jsonl]}
  split: {train: 0.5, validation: 0, test: 0.5}
sampling: {kind: policy, policy: {path: base}, num_responses: 3, max_new_tokens: 20}
gold: {kind: classifier, model: {hub_id: someone/unheard-of}}
training: {base: {path: base}, learning_rate: 3.0e-4, max_length: 64, pairs_per_step: 8}
execution: {training_token_budget: 512}
"""
CONFIG = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 2,
    "vocab_size": 100,
}  # fmt: skip


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe folder with 60 prompts and a base without weights, and an empty store beside it."""
    folder = tmp_path / "recipes"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i}?"}) + "\n" for i in range(60)))
    (folder / "mine.yaml").write_text(MINE)
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(folder))
    monkeypatch.setenv("RM_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RM_ASSETS_PRICES", raising=False)
    return folder


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def typed(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RM_ASSETS_")} | {
        "RM_ASSETS_HOME": str(home)
    }
    return subprocess.run(
        [COMMAND, "plan", *arguments], capture_output=True, text=True, env=environment, cwd=home, check=False
    )


def test_the_replaced_calculators_figures_as_json_without_a_warning(tmp_path: Path) -> None:
    result = typed(*STEPS, "--json", home=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert json.loads(result.stdout) == {"reward_model_steps": 1410, "reinforcement_learning_steps": 320}


def test_a_misspelt_recipe_gets_a_suggestion_and_exit_status_1(tmp_path: Path) -> None:
    result = typed("embeded", home=tmp_path)
    assert result.returncode == 1
    assert "[RECIPE_001]" in result.stderr and "did you mean 'embedded'?" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_steps_print_as_a_table_with_the_models_guidance_and_warnings() -> None:
    result = plan("--pairs", "900", "--reward-epochs", "30", "--model", "t5x")
    assert result.exit_code == 0
    assert "450" in result.stdout and "500 to 2,000 reward-model steps" in result.stdout
    assert "900 training pairs are fewer than 1,000" in result.stderr and "outside the 500 to 2,000" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("--pairs", "10"), ("--pairs", "10", "--reward-epochs", "0"), ("--prompts", "10", "--reward-epochs", "1"),
        ("--pairs", "10", "--reward-epochs", "1", "--model", "gpt"), ("mine", "--pairs", "10"),
        ("mine", "--batch-size", "8"), ("mine", "--device", "H100"), ("mine", "--seconds-per-step", "1"),
        ("mine", "--seconds-per-step", "1", "--device", "abacus"), ("--device", "H100"),
    ],
)  # fmt: skip
def test_numbers_that_lack_or_exclude_each_other_are_plan_001(recipes: Path, arguments: tuple[str, ...]) -> None:
    error = plan(*arguments).exception
    assert isinstance(error, PlanError) and error.code == "PLAN_001" and error.fix


def test_a_recipe_that_was_never_run_is_bounded_and_leaves_no_trace(recipes: Path, tmp_path: Path) -> None:
    found = planned("mine")
    training = found["training"]
    assert training["num_pairs"] == {"value": 90, "basis": "at_most_about"}  # 30 prompts, 3 pairs each
    assert training["num_optimizer_steps"] == {"value": 12, "basis": "at_most_about"}
    assert training["num_warmup_steps"]["value"] == 1
    assert training["num_tokens"]["value"] == 90 * 2 * 64
    assert training["num_tokens_per_forward"] == 512
    # 100 * 16 embeddings; a layer 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16; last norm and score 2 * 16
    assert training["num_parameters"] == 1_600 + 2 * 2_592 + 32
    assert training["memory_bytes"]["optimizer"] == 8 * training["num_parameters"]
    assert [warning["name"] for warning in found["warnings"]] == ["few_pairs"]
    assert any("someone/unheard-of" in note for note in found["notes"])
    assert not (tmp_path / "home").exists()


def test_the_tables_say_what_needs_a_probe(recipes: Path) -> None:
    text = plan("mine").stdout
    for part in (
        "at most about 12",
        "needs a probe",
        "H100",
        "2024-12",
        "gradient_checkpointing",
        "warning:",
        "unknown",
    ):
        assert part in text


def commit(store: Store, recipe: Recipe, asset: str, **counts: int) -> None:
    want = wanted(store, recipe, asset)
    folder = store.folder(asset, want.digest)
    folder.mkdir(parents=True)
    (folder / "rows").write_text(asset)
    record = {
        "asset": asset, "digest": want.digest, "recipe": recipe.name, "stage_version": 1, "settings": want.settings,
        "inputs": {}, "counts": counts, "work": {},
    }  # fmt: skip
    store.commit(record, folder, ["rows"])


def test_committed_stages_give_their_own_counts_and_stay_as_they_are(recipes: Path, tmp_path: Path) -> None:
    store, mine = Store(tmp_path / "home"), recipe_book().load("mine")
    commit(store, mine, "prompts", train_prompts=28, validation_prompts=0, test_prompts=31)
    commit(store, mine, "sampled_responses", responses=177)
    commit(store, mine, "gold_rewards", gold_rewards=177)
    commit(store, mine, "implicit_pairs", train_pairs=70, validation_pairs=0, test_pairs=80)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "home").rglob("*")}
    found = planned("mine")
    stages = {stage["asset"]: stage for stage in found["stages"]}
    assert stages["implicit_pairs"]["made"] and stages["implicit_pairs"]["num_items"] == {"value": 150, "basis": "made"}
    assert not stages["evaluation_report"]["made"]
    assert found["training"]["num_pairs"] == {"value": 70, "basis": "at_most"}
    assert found["training"]["num_optimizer_steps"]["value"] == 9
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "home").rglob("*")} == before


def test_a_source_that_is_not_there_is_a_note_and_no_error(recipes: Path) -> None:
    (recipes / "prompts.jsonl").unlink()
    found = planned("mine")
    assert found["training"]["num_pairs"]["value"] is None
    assert sum("prompts.jsonl" in note for note in found["notes"]) == 1
    assert "steps unknown" in plan("mine").stdout


def test_model_config_stands_in_for_a_base_that_is_not_here(recipes: Path, tmp_path: Path) -> None:
    (recipes / "base" / "config.json").unlink()
    assert planned("mine")["training"]["memory_bytes"] is None
    assert "--model-config" in " ".join(planned("mine")["notes"])
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert planned("mine", "--model-config", str(tmp_path / "config.json"))["training"]["memory_bytes"]["total"] > 0
    error = plan("mine", "--model-config", str(tmp_path / "nowhere.json")).exception
    assert isinstance(error, ModelError) and error.code == "MODEL_001"


def test_a_measured_step_gives_time_and_cost(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prices.yaml").write_text("- {device: mine, usd_per_hour: 3, memory_gb: 1}\n")
    monkeypatch.setenv("RM_ASSETS_PRICES", str(tmp_path / "prices.yaml"))
    found = planned("mine", "--seconds-per-step", "150", "--device", "mine")
    assert found["training"]["seconds"] == 12 * 150
    assert [(d["device"], d["fits"], d["hours"], d["usd"]) for d in found["devices"]] == [("mine", True, 0.5, 1.5)]
    assert "at most 1.50 USD" in plan("mine", "--seconds-per-step", "150", "--device", "mine").stdout
    monkeypatch.setenv("RM_ASSETS_PRICES", str(tmp_path / "nowhere.yaml"))
    error = plan("mine").exception
    assert isinstance(error, PlanError) and error.code == "PLAN_002"


def test_every_shipped_recipe_has_a_plan(recipes: Path) -> None:
    for key in recipe_book().partition_keys():
        assert planned(key)["recipe"] == key


def test_a_probe_in_an_empty_store_asks_for_the_pairs_alone(recipes: Path, tmp_path: Path) -> None:
    error = plan("mine", "--probe").exception
    assert isinstance(error, PlanError) and error.code == "PLAN_001"
    assert "--select '*implicit_pairs'" in str(error.fix)
    assert not (tmp_path / "home").exists()


def test_a_probe_of_several_processes_is_refused_by_name(recipes: Path) -> None:
    (recipes / "mine.yaml").write_text(MINE.replace("training_token_budget: 512", "num_processes: 2"))
    error = plan("mine", "--probe").exception
    assert isinstance(error, PlanError) and "the training of 'mine' has 2" in error.what


def everything(home: Path) -> set[str]:
    """Every path in a store but the locks, which stay."""
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.suffix != ".lock"}


def test_recorded_files_are_counted_by_prompt_and_split(recipes: Path) -> None:
    training = planned("ranked-answers")["training"]
    # Five prompts with four answers each, six pairs a prompt, three passes of four steps.
    assert training["num_pairs"] == {"value": 30, "basis": "at_most"}
    assert training["num_optimizer_steps"] == {"value": 12, "basis": "at_most"}
    assert not any("recorded responses" in note for note in planned("ranked-answers")["notes"])


def test_recorded_responses_by_row_are_one_prompt_a_row(recipes: Path) -> None:
    recorded = "{kind: recorded, align: row, source: {kind: files, files: [rows.jsonl]}, response_fields: [a, b, c]}"
    policy = "{kind: policy, policy: {path: base}, num_responses: 3, max_new_tokens: 20}"
    (recipes / "mine.yaml").write_text(MINE.replace(policy, recorded))
    assert any("rows.jsonl" in note for note in planned("mine")["notes"])
    (recipes / "rows.jsonl").write_text('["a", "b", "c"]\n' * 60)
    assert planned("mine")["training"]["num_pairs"] == {"value": 90, "basis": "at_most_about"}


def test_models_of_the_shipped_recipes_have_known_shapes(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_ALPACAFARM", str(recipes))
    for key in recipe_book().partition_keys():
        if key != "mine":
            found = planned(key)
            assert found["training"]["memory_bytes"], key
            assert not any("shape of" in note for note in found["notes"])


@pytest.mark.slow
def test_a_probe_measures_real_steps_and_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(40)
    save_causal(tmp_path / "recipes" / "base")
    mine = bench.recipe("mine")
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(tmp_path / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    bench.make(mine, *ASSETS[:3])
    refused = plan("mine", "--probe").exception
    assert isinstance(refused, PlanError) and "not made yet" in str(refused)
    bench.make(mine, ASSETS[3])
    before = everything(bench.home)
    found = json.loads(plan("mine", "--probe", "--json").stdout)
    training = found["training"]
    assert training["seconds"] > 0 and training["probe_peak_bytes"] > 10**8
    assert next(d for d in found["devices"] if d["device"] == "local")["usd"] == 0
    again = plan("mine", "--probe")
    assert "only ten optimizer steps were run" in again.stdout
    assert again.stderr.count("probe: step 10 of 10") == again.stderr.count("probe: step") / 10 == 1
    assert everything(bench.home) == before


@pytest.mark.slow
def test_an_interrupted_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(1_000)
    save_causal(tmp_path / "recipes" / "base")
    # Steps large enough that the signal comes before the last of them.
    training = {**TOY["training"], "pairs_per_step": 500, "num_epochs": 20}
    bench.make(bench.recipe("mine", training=training), *ASSETS[:4])
    before, temporary = everything(bench.home), tmp_path / "temporary"
    temporary.mkdir()
    places = {
        "RM_ASSETS_RECIPES": str(tmp_path / "recipes"),
        "RM_ASSETS_HOME": str(bench.home),
        "TMPDIR": str(temporary),
    }
    process = subprocess.Popen(
        [COMMAND, "plan", "mine", "--probe"], env={**os.environ, **places}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    assert any("probe: step" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert everything(bench.home) == before and not list(temporary.iterdir())


@pytest.mark.slow
def test_a_probe_writes_neither_state_nor_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(40)
    save_causal(tmp_path / "recipes" / "base")
    for name, changes in (("native", {}), ("trl", {"engine": "trl"}), ("jax", {"backend": "jax"})):
        mine = bench.recipe("mine", training={**TOY["training"], **changes})
        event = probed(bench, mine, tmp_path / name)
        assert event["event"] == "probe" and event["seconds_per_step"] > 0
        assert not list((tmp_path / name).glob("**/checkpoint*")) and not list(
            (tmp_path / name).glob("**/*.safetensors")
        )


@pytest.mark.slow
def test_a_probe_trains_with_the_backend_of_the_recipe(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write_toy(40)
    save_causal(tmp_path / "recipes" / "base")
    mine = bench.recipe("mine", training={**TOY["training"], "backend": "jax"}, execution={"num_processes": 2})
    event = probed(bench, mine, tmp_path / "probe")
    assert event["event"] == "error" and "a training with JAX" in event["error"]["what"]


def probed(bench: Bench, mine: Recipe, folder: Path) -> dict[str, Any]:
    """The last event of a probe that has this folder."""
    pairs = bench.make(mine, *ASSETS[:4]).folder / "pairs.parquet"
    folder.mkdir()
    request = folder.with_suffix(".json")
    values = {"recipe": mine.model_dump(mode="json"), "home": str(bench.home), "pairs": str(pairs)}
    request.write_text(json.dumps({**values, "folder": str(folder)}))
    events: list[dict[str, Any]] = []
    run_local("probe", request, events.append)
    return events[-1]


def test_a_server_is_not_planned_as_recorded(recipes: Path) -> None:
    server = "{kind: server, base_url: 'http://127.0.0.1:1/v1', model: m, revision: '1', num_responses: 3}"
    policy = "{kind: policy, policy: {path: base}, num_responses: 3, max_new_tokens: 20}"
    (recipes / "mine.yaml").write_text(MINE.replace(policy, server))
    found = planned("mine")
    assert found["training"]["num_pairs"]["value"] == 90
    assert not any("recorded" in note for note in found["notes"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pairs", "3000", "--reward-epochs", "30", "--rl-epochs", "10"),
        ("--prompts", "2000", "--rl-epochs", "10", "--reward-epochs", "30"),
    ],
)
def test_epochs_without_their_examples_are_refused_and_not_dropped(arguments: tuple[str, ...]) -> None:
    error = plan(*arguments).exception
    assert isinstance(error, PlanError) and error.code == "PLAN_001" and arguments[-2] in error.what


def test_json_of_plain_numbers_has_guidance_and_warnings_in_it() -> None:
    result = plan("--pairs", "900", "--reward-epochs", "30", "--model", "t5x", "--json")
    found = json.loads(result.stdout)
    assert found["reward_model_steps"] == 450 and found["guidance"]["steps"] == [500, 2_000]
    assert [warning["name"] for warning in found["warnings"]] == ["few_pairs", "service_steps"]
    assert result.stderr == ""


def test_a_note_is_said_once(recipes: Path) -> None:
    notes = planned("gsm8k")["notes"]
    assert any("openai/gsm8k" in note for note in notes) and len(notes) == len(set(notes))


@pytest.mark.parametrize(
    ("has_gpu", "system", "tokens"), [(True, "linux", 16_384), (False, "linux", 2_048), (True, "darwin", 2_048)]
)
def test_device_auto_is_planned_as_what_is_here(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, system: str, tokens: int
) -> None:
    monkeypatch.setattr(known, "has_gpu", lambda: has_gpu)
    monkeypatch.setattr(known, "SYSTEM", system)
    large_steps = MINE.replace("pairs_per_step: 8", "pairs_per_step: 256")  # of more tokens than any budget
    (recipes / "mine.yaml").write_text(large_steps.split("execution:", maxsplit=1)[0])
    found = planned("mine")
    assert found["training"]["num_tokens_per_forward"] == tokens
    assert any("execution.device is auto" in note for note in found["notes"]) != has_gpu


@pytest.mark.parametrize(("machine", "has_gpu"), [("arm64", True), ("x86_64", False)])
def test_a_mac_has_a_gpu_that_counts_if_it_is_apple_silicon(
    monkeypatch: pytest.MonkeyPatch, machine: str, has_gpu: bool
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert machine_facts.has_gpu() == has_gpu


def test_tables_say_what_auto_may_come_to_and_what_is_trained(recipes: Path) -> None:
    text = plan("mine").stdout
    assert "at least" in text and "(this recipe if it fits)" in text and "parameters trained" not in text
    (recipes / "mine.yaml").write_text(
        MINE.replace("max_length: 64", "max_length: 64, lora: {rank: 2}").replace(
            "training_token_budget: 512", "gradient_checkpointing: always, num_processes: 2"
        )
    )
    text = plan("mine").stdout
    assert "at least" not in text and "always (this recipe)" in text and "parameters trained" in text
    assert "2 x H100" in text and "of each of 2 devices" in text


@pytest.mark.parametrize(
    ("seconds_per_step", "shown"), [(0.5, "at most 6.0 s"), (15, "at most 3.0 min"), (3_600, "at most 12.0 h")]
)
def test_times_are_in_seconds_minutes_or_hours_of_the_training(
    recipes: Path, seconds_per_step: float, shown: str
) -> None:
    text = plan("mine", "--seconds-per-step", str(seconds_per_step), "--device", "H100").stdout
    assert shown in text
    assert "time of the training, saving apart" in text and "training cost" in text and "nothing was run" in text
