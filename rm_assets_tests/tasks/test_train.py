"""reward_model: a checkpoint that loads, and the account of what it was trained on."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rm_assets.core.checks.inputs import TRAINING_CHECKS
from rm_assets.core.errors import DataError
from rm_assets.resources.compute import Made
from rm_assets.tasks.train import keep_profile
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench

Chain = tuple[Bench, dict[str, Made]]


def test_the_account_of_pairs_adds_up(chain: Chain) -> None:
    made = chain[1]["reward_model"].manifest
    # Eight pairs twice, four a step.
    assert made.counts["optimizer_steps"] == 4 and made.work == {"pairs trained on": 8}
    parts = ("trained", "over_length", "identical_after_tokenization", "set_aside")
    assert made.counts["pairs_in"] == 8 == sum(made.counts[f"pairs_{part}"] for part in parts)


def test_the_checkpoint_says_what_it_was_trained_on(chain: Chain) -> None:
    made = chain[1]["reward_model"]
    training = json.loads((made.folder / "checkpoint" / "rm_assets.json").read_text("utf-8"))
    assert training["pairs_data_version"] == chain[1]["implicit_pairs"].manifest.version_read_by("reward_model")
    assert training["num_optimizer_steps"] == 4 and training["max_length"] == 100
    assert [step["step"] for step in training["history"]] == [1, 2, 3, 4]
    assert training["history"][-1]["loss"] == training["final_loss"] == made.manifest.facts["final_loss"]


def test_the_checks_of_a_trained_model_pass(chain: Chain) -> None:
    made, pairs = chain[1]["reward_model"].manifest, chain[1]["implicit_pairs"].manifest
    account = TRAINING_CHECKS["training_pairs_add_up"].find(made.counts, pairs.counts)
    assert account.passed and account.sentence.startswith("8 training pairs = 8 trained + 0 over length")
    assert made.facts["batch_comparison"]["conversations"] == 8
    assert TRAINING_CHECKS["rewards_ignore_the_batch"].find(made.facts, 1e-4).passed


def test_the_weights_moved_and_have_one_output(chain: Chain) -> None:
    bench, made = chain
    weights = load_file(made["reward_model"].folder / "checkpoint" / "model.safetensors")
    base = load_file(bench.folder / "recipes" / "base" / "model.safetensors")
    assert tuple(weights["score.weight"].shape) == (1, 16)
    assert not weights["model.norm.weight"].equal(base["model.norm.weight"])


def test_no_state_to_resume_from_is_left(chain: Chain) -> None:
    folder = chain[1]["reward_model"].folder
    assert sorted(f.name for f in folder.iterdir()) == [
        "checkpoint", "manifest.json", "metrics.jsonl", "request.json", "trained_pair_ids.txt", "training_curve.png",
    ]  # fmt: skip


def test_training_again_does_nothing(chain: Chain) -> None:
    bench, _ = chain
    started = bench.num_tasks_started()
    assert bench.make(bench.recipe(), "reward_model").was_there
    assert bench.num_tasks_started() == started


def test_a_profile_is_found_in_the_work_folder_and_where_an_earlier_process_moved_it(tmp_path: Path) -> None:
    half, whole, kept = tmp_path / "work" / ".profile", tmp_path / "work" / "profile", tmp_path / "profile"
    half.mkdir(parents=True)
    assert keep_profile(tmp_path) == {}
    whole.mkdir()
    (whole / "operators.txt").write_text("Of 1 s a step.\n\ntable")
    for _ in range(2):  # the second time as after a kill between the move and the commit
        assert keep_profile(tmp_path) == {"profile": "Of 1 s a step.", "profile_folder": str(kept)}


def test_validation_without_pairs_to_validate_on_is_refused_before_training(bench: Bench) -> None:
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe(training={**TOY["training"], "validation": {"every_steps": 1}})
    with pytest.raises(DataError, match=r"prompts\.split\.validation") as caught:
        bench.make(recipe, *ASSETS[:5])
    assert caught.value.code == "DATA_005" and not any("training on" in line for line in bench.said)
