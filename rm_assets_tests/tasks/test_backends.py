"""`backend: jax` in a recipe: the same graph, rewards and weights of JAX, and results of their own in the store."""

import json
from typing import Any

import pytest

from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ExecutionSection, ModelRef
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import GoldReward, ProxyReward
from rm_assets.storage.tables import read_table
from rm_assets.tasks.scorers import load_scorer
from rm_assets_tests.fakes import save_classifier, save_encoder
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process

SMALL = """
extends: embedded
prompts: { source: { num_prompts: 40 }, split: { train: 0.6, validation: 0.1, test: 0.3 } }
training: { backend: jax, num_epochs: 1 }
evaluation: { backend: jax }
execution: { device: cpu, num_threads: 1, token_budget: 512, training_token_budget: 256 } # few shapes to compile
"""


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


def test_gold_and_evaluation_by_jax_go_through_to_a_release_that_torch_reproduces(bench: Bench) -> None:
    save_classifier(bench.folder / "recipes" / "gold", "llama")
    save_classifier(bench.folder / "recipes" / "rm", seed=1)
    rewards: dict[str, list[float]] = {}
    for backend in ("torch", "jax"):
        recipe = bench.recipe(
            gold={"kind": "classifier", "model": {"path": "gold"}, "max_length": 100, "backend": backend},
            training={"kind": "existing", "model": {"path": "rm"}, "max_length": 60},
            evaluation={**TOY["evaluation"], "backend": backend},
        )
        made = {asset: bench.make(recipe, asset) for asset in ASSETS}
        # Nothing is taken from what the other backend has computed.
        assert made["gold_rewards"].manifest.work["responses scored"] == 24
        gold = read_table(made["gold_rewards"].folder / "gold_rewards.parquet", GoldReward)
        proxy = read_table(made["evaluation_report"].folder / "test_rewards.parquet", ProxyReward)
        rewards[backend] = [row.gold_reward for row in gold] + [row.reward for row in proxy]
        assert (made["hub_release"].folder / "release" / "README.md").is_file()
    assert len(rewards["jax"]) == 32 and rewards["jax"] == pytest.approx(rewards["torch"], abs=1e-5)
    assert rewards["jax"] != rewards["torch"]


def test_a_model_that_jax_does_not_compute_is_refused_by_name(bench: Bench) -> None:
    model = ModelRef(path=str(save_encoder(bench.folder / "encoder", classifier=True)))
    options: dict[str, Any] = {"max_length": 60, "dtype": "float32", "reporter": QuietReporter()}
    with pytest.raises(ModelError, match=r"MODEL_002.*JAX backend does not compute .*distilbert"):
        load_scorer(model, "jax", execution=ExecutionSection(device="cpu"), **options)


def test_embedded_in_small_is_trained_and_judged_by_jax_and_released(bench: Bench) -> None:
    bench.write("small.yaml", SMALL)
    recipe = RecipeBook(bench.folder / "recipes", {}).load("small")
    made = {asset: bench.make(recipe, asset) for asset in ASSETS}
    summary = json.loads((made["reward_model"].folder / "checkpoint" / "rm_assets.json").read_text("utf-8"))
    assert set(summary["versions"]) == {"jax", "optax", "transformers", "tokenizers"}
    assert made["reward_model"].manifest.counts["optimizer_steps"] == 3
    assert summary["history"][0]["loss"] > summary["history"][-1]["loss"]
    report = made["evaluation_report"].manifest
    assert report.settings["backend"] == "jax" and 0 < report.facts["match_rate"] <= 1
    assert (made["hub_release"].folder / "release" / "README.md").is_file()
