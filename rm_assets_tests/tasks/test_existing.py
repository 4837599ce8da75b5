"""reward_model from a checkpoint that is there already: ours or another's, as whole and as usable as a trained one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from rm_assets.backends.torch.scorer import TorchScorer
from rm_assets.checks.data import CHECKS_OF_TRAINING, TABLE_CHECKS
from rm_assets.core.errors import ModelError, PlanError, RecipeError
from rm_assets.core.planning.training_plan import training_of
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ModelRef
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.records import ProxyReward, response_messages
from rm_assets.core.smoke import smoke_recipe
from rm_assets.resources.compute import Made
from rm_assets.storage.tables import read_table
from rm_assets_tests.fakes import TEMPLATE, save_causal, save_classifier, save_encoder
from rm_assets_tests.tasks.conftest import ASSETS, Bench, in_this_process


def existing(path: str, **model: Any) -> dict[str, Any]:
    return {"kind": "existing", "model": {"path": path, **model}, "max_length": 60}


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)


def rewards_of(folder: Path, bench: Bench, gold: Made) -> dict[str, float]:
    """What the checkpoint itself gives to the test responses, by id."""
    rows = [row for row in bench.rows(gold) if row.split == "test"]
    scorer = TorchScorer(
        ModelRef(path=str(folder)), max_length=60, dtype="float32", device=torch.device("cpu"), token_budget=512,
        reporter=QuietReporter(),
    )  # fmt: skip
    scores = scorer.score(response_messages(row) for row in rows)
    return {row.response_id: score.reward for row, score in zip(rows, scores, strict=True)}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_checkpoint_is_evaluated_and_released_without_training(bench: Bench, kind: str) -> None:
    folder = bench.folder / "recipes" / "rm"
    save_classifier(folder) if kind == "decoder" else save_encoder(folder, classifier=True)
    recipe = bench.recipe(training=existing("rm"))
    made = {asset: bench.make(recipe, asset) for asset in ASSETS}
    model = made["reward_model"]
    assert model.manifest.work == {"checkpoints taken": 1} and model.manifest.counts["optimizer_steps"] == 0
    assert (model.folder / "trained_pair_ids.txt").read_text() == ""
    assert model.manifest.facts["batch_comparison"]["largest_difference"] < 1e-5
    kept = read_table(made["evaluation_report"].folder / "test_rewards.parquet", ProxyReward)
    own = rewards_of(folder, bench, made["gold_rewards"])
    assert {row.response_id: row.reward for row in kept} == pytest.approx(own, abs=1e-6) and len(own) == 8
    released = made["hub_release"].folder / "release"
    assert "Not trained by this recipe" in (released / "README.md").read_text("utf-8")


def test_the_report_says_that_the_training_is_not_known(bench: Bench) -> None:
    save_classifier(bench.folder / "recipes" / "rm")
    made = bench.make(bench.recipe(training=existing("rm")), *ASSETS[:6])
    report = json.loads((made.folder / "report.json").read_text("utf-8"))
    assert (report["train_accuracy"]["n"], report["num_train_pairs"]) == (0, 0)
    # The recipe's training pairs still say in which direction length is to be beaten.
    assert report["length_baseline"]["num_train_pairs"] == 8 and report["length_baseline"]["rule"] == "longer is better"
    signs = {sign["sign"]: sign for sign in report["diagnosis"]}
    assert "what it was trained on is not known" in signs and "few training pairs" not in signs
    remedies = [sign["remedy"] for sign in report["diagnosis"] if "training." in sign["remedy"]]
    assert all(remedy.endswith(" (in a training that starts from this model)") for remedy in remedies)
    markdown, html = ((made.folder / f"report.{kind}").read_text("utf-8") for kind in ("md", "html"))
    assert "## Training" not in markdown and "on training pairs" not in html
    assert "training_curve.png" not in made.manifest.plots


def test_a_chat_template_and_pad_token_of_the_recipe_stay_with_the_copy(bench: Bench) -> None:
    save_classifier(bench.folder / "recipes" / "rm")
    template = TEMPLATE.replace("<|end|>", "<|end|>" * 2)
    training = existing("rm", chat_template=template, pad_token="<|spare|>")
    made = bench.make(bench.recipe(training=training), *ASSETS[:5])
    tokenizer = AutoTokenizer.from_pretrained(made.folder / "checkpoint")
    assert (tokenizer.chat_template, tokenizer.pad_token) == (template, "<|spare|>")


def test_the_copy_stays_when_somebody_trains_the_checkpoint_on(bench: Bench) -> None:
    folder = save_classifier(bench.folder / "recipes" / "rm")
    made = bench.make(bench.recipe(training=existing("rm")), *ASSETS[:5])
    weights = made.folder / "checkpoint" / "model.safetensors"
    before = weights.read_bytes()
    with open(folder / "model.safetensors", "r+b") as file:  # in place, as a link would not survive
        file.write(b"\0" * 64)
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (save_causal, "is a Qwen3ForCausalLM, which gives no reward"),
        (lambda folder: save_classifier(folder, num_labels=2), r"\(Qwen3ForSequenceClassification\) has 2 outputs"),
    ],
)
def test_a_model_that_is_no_reward_model_is_refused_and_says_what_it_is(bench: Bench, save: Any, says: str) -> None:
    save(bench.folder / "recipes" / "rm")
    with pytest.raises(ModelError, match=says) as caught:
        bench.make(bench.recipe(training=existing("rm")), *ASSETS[:5])
    assert caught.value.code == "MODEL_002"


def test_recipes_train_unless_they_say_otherwise(bench: Bench) -> None:
    assert bench.recipe().training.kind == "train"
    taken = bench.recipe("taken", training=existing("rm"))
    assert taken.training.kind == "existing" and smoke_recipe(taken).training == taken.training
    with pytest.raises(PlanError, match="existing reward model") as caught:
        training_of(taken)
    assert caught.value.code == "PLAN_001"


def test_a_model_that_runs_code_of_its_own_is_refused(bench: Bench) -> None:
    with pytest.raises(RecipeError, match="Python code of its own"):
        bench.recipe(training=existing("rm", trust_remote_code=True))


def test_an_existing_model_takes_the_place_of_all_training_keys_of_an_extended_recipe(bench: Bench) -> None:
    bench.recipe()
    extending = bench.folder / "recipes" / "extending.yaml"
    extending.write_text("extends: toy\ntraining: {kind: existing, model: {path: rm}}\n")
    assert RecipeBook(bench.folder / "recipes", {}).load("extending").training.kind == "existing"


def test_checks_of_training_are_those_of_the_table() -> None:
    assert set(CHECKS_OF_TRAINING) <= set(TABLE_CHECKS)
