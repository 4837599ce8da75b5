"""Training in JAX takes the native engine's steps, and writes what transformers loads."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rm_assets.backends.jax import checkpoints, devices, training_files
from rm_assets.backends.jax.architecture import read_architecture
from rm_assets.backends.jax.checkpoints import load_parameters
from rm_assets.backends.jax.devices import make_mesh
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.step_control import LossGuard
from rm_assets.backends.tokenization import load_config, load_renderer
from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets_tests.backends.jax.conftest import EXECUTION, SHAPES, TRAINERS, rewards_of, train
from rm_assets_tests.fakes import ListReporter, save_classifier, save_encoder, toy_pairs

torch.set_num_threads(1)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama-3.1": {
        "objective": {"kind": "soft_bradley_terry", "temperature": 0.7}, "weighting": "prompt", "schedule": "linear",
    },
    "smollm2": {
        "objective": {"kind": "bradley_terry", "margin_scale": 0.5}, "centering": 0.01, "weight_decay": 0.1,
        "max_grad_norm": 0.1,
    },
}  # fmt: skip


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize(
    "shape", ["qwen3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama-3.1", "smollm2"))]
)
def test_thirty_steps_in_float64_are_those_of_torch(shape: str, tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", **SHAPES[shape])
    both = [train(trainer, tmp_path / type(trainer).__name__, base, **OBJECTIVES[shape]) for trainer in TRAINERS]
    assert len(both[0].history) == 30 and both[0].history[0]["loss"] > 1.2 * both[0].history[-1]["loss"]
    for one, other in zip(*(result.history for result in both), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0, abs=1e-8)
        for name in ("accuracy", "margin", "grad_norm", "learning_rate"):
            assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-7), (name, one["step"])
    one, other = (load_file(tmp_path / type(trainer).__name__ / "model" / "model.safetensors") for trainer in TRAINERS)
    assert one.keys() == other.keys() and max((one[name] - other[name]).abs().max() for name in one) < 1e-7
    figures = [(r.num_pairs, r.num_pair_tokens, r.validation_accuracy, list(r.trained_pair_ids)) for r in both]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    "shape", ["smollm2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3", "llama-3.1"))]
)
def test_thirty_steps_in_float32_are_those_of_torch(shape: str, tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", **SHAPES[shape])
    one, other = (
        [step["loss"] for step in train(trainer, tmp_path / type(trainer).__name__, base, **OBJECTIVES[shape]).history]
        for trainer in TRAINERS
    )
    assert len(one) == 30 and one[0] > 1.1 * one[-1]
    assert other == pytest.approx(one, rel=0, abs=1e-5)


@pytest.mark.usefixtures("in_double")
def test_a_pad_token_of_the_base_that_texts_hold_is_trained_as_by_torch(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", pad_token_id=2)  # the end of each message; the tokenizer has another
    for trainer in TRAINERS:
        train(trainer, tmp_path / type(trainer).__name__, base, num_epochs=1)
    one, other = (
        load_file(tmp_path / type(trainer).__name__ / "model" / "model.safetensors")["model.embed_tokens.weight"]
        for trainer in TRAINERS
    )
    assert (one - other).abs().max() < 1e-7


@pytest.mark.slow
@pytest.mark.usefixtures("in_double")
def test_regression_on_single_pairs_in_float64_is_that_of_torch(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base")
    options: dict[str, Any] = {"objective": {"kind": "regression"}, "shuffle": "pairs", "schedule": "constant"}
    losses = [
        [step["loss"] for step in train(trainer, tmp_path / type(trainer).__name__, base, **options).history]
        for trainer in TRAINERS
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0, abs=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("in_double")
def test_a_step_that_is_skipped_leaves_weights_and_moments_as_those_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_classifier(tmp_path / "base")
    monkeypatch.setattr(LossGuard, "accepts", lambda self, step, loss, norm: step != 3)
    for trainer in TRAINERS:
        train(trainer, tmp_path / type(trainer).__name__, base, num_epochs=1, schedule="constant", warmup_ratio=0.0)
    one, other = (load_file(tmp_path / type(trainer).__name__ / "model" / "model.safetensors") for trainer in TRAINERS)
    assert max((one[name] - other[name]).abs().max() for name in one) < 1e-7


@pytest.mark.slow
def test_bfloat16_computes_in_less_and_keeps_the_weights_in_float32(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base", initializer_range=0.1)
    losses = {}
    for dtype in ("float32", "bfloat16"):
        result = train(JaxTrainer(), tmp_path / dtype, base, num_epochs=2, dtype=dtype, learning_rate=1e-4)
        losses[dtype] = np.array([step["loss"] for step in result.history])
    difference = abs(losses["float32"] - losses["bfloat16"]).max()
    assert 1e-5 < difference < 0.03
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "bfloat16" / "model"))
    for name, weight in after.items():
        assert weight.dtype == torch.float32 and not torch.equal(weight, before[name])
        assert not torch.equal(weight, weight.bfloat16().float())


@pytest.mark.usefixtures("in_double")
def test_looks_at_validation_pairs_choose_and_stop_as_those_of_torch(tmp_path: Path) -> None:
    """Every third validation pair is turned round, so the loss falls first, and rises as the rewards grow."""
    base = save_classifier(tmp_path / "base")
    mixed = [
        p if i % 3 else replace(p, chosen=p.rejected, rejected=p.chosen)
        for i, p in enumerate(toy_pairs(12, "validation"))
    ]
    options: dict[str, Any] = {
        "validation": {"every_steps": 2, "patience": 3},
        "validation_pairs": mixed,
        "learning_rate": 5e-4,
    }
    reporters = [ListReporter() for _ in TRAINERS]
    both = [
        train(trainer, tmp_path / type(trainer).__name__, base, reporter=reporter, **options)
        for trainer, reporter in zip(TRAINERS, reporters, strict=True)
    ]
    assert reporters[0].lines[-2:] == reporters[1].lines[-2:] and "kept the weights of step" in reporters[1].lines[-1]
    steps, losses, accuracies = (
        [[look[name] for look in result.history if "validation_loss" in look] for result in both]
        for name in ("step", "validation_loss", "validation_accuracy")
    )
    assert steps[0] == steps[1] and len(steps[0]) < 15 and accuracies[0] == accuracies[1]
    assert losses[1] == pytest.approx(losses[0], rel=0, abs=1e-8)
    one, other = (load_file(tmp_path / type(trainer).__name__ / "model" / "model.safetensors") for trainer in TRAINERS)
    assert max((one[name] - other[name]).abs().max() for name in one) < 1e-7
    assert both[0].validation_accuracy == both[1].validation_accuracy


@pytest.mark.parametrize("largest", [training_files.LARGEST_FILE, 8_000])
def test_checkpoints_go_both_ways_bit_by_bit(
    model: Path, largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's is read and written in JAX, as one file and as several, and read by transformers."""
    monkeypatch.setattr(training_files, "LARGEST_FILE", largest)
    ref = ModelRef(path=str(model))
    config, renderer, mesh = load_config(ref), load_renderer(ref), make_mesh(ExecutionSection(device="cpu"))
    architecture = read_architecture(ref, config)
    parameters = load_parameters(ref, config, architecture, dtype=jnp.float32, mesh=mesh)
    saved = load_file(model / "model.safetensors")
    assert (np.asarray(parameters["score.weight"]) == saved["score.weight"].numpy()).all()
    training_files.write_model(parameters, architecture, config, renderer, tmp_path / "model", tmp_path / "writing")
    assert (len(list((tmp_path / "model").glob("*.safetensors"))) > 1) == (largest == 8_000)
    again: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    weights = again.state_dict()
    assert weights.keys() == saved.keys() and all(torch.equal(weights[name], saved[name]) for name in saved)


def test_what_cannot_fit_is_refused_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_classifier(tmp_path / "base")
    num_bytes = sum(weight.nbytes for weight in load_file(base / "model.safetensors").values())
    monkeypatch.setattr(checkpoints, "require_weights", lambda ref: pytest.fail("loaded"))
    for least, begin in (
        (4 * num_bytes, lambda: train(JaxTrainer(), tmp_path, base)),
        (num_bytes, lambda: rewards_of(base, "jax")),
    ):
        monkeypatch.setattr(devices, "available_memory", lambda free=least - 1: free)
        with pytest.raises(ModelError, match=r"MODEL_010.*free on cpu"):
            begin()
        monkeypatch.setattr(devices, "available_memory", lambda free=least: free)
        with pytest.raises(pytest.fail.Exception, match="loaded"):
            begin()


def test_the_parts_of_a_mesh_share_what_a_training_keeps() -> None:
    device = SimpleNamespace(
        platform="tpu", device_kind="TPU v6e", memory_stats=lambda: {"bytes_limit": 32_000, "bytes_in_use": 2_000}
    )
    mesh: Any = SimpleNamespace(devices=np.array([[device] * 4] * 2), shape={"data": 2, "fsdp": 4}, size=8)
    room = devices.room_on(mesh)
    assert (room.device, room.free(False), room.num_parts, room.is_limit) == ("2 x 4 TPU v6e", 30_000, 4, True)


def test_what_jax_does_not_train_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"MODEL_002.*JAX.*model type is distilbert"):
        train(JaxTrainer(), tmp_path, save_encoder(tmp_path / "encoder"))
    for asked, to_set in (({"num_processes": 2}, "num_processes to 1"), ({"profile": True}, "profile to false"), ({"deterministic": True}, "deterministic to false")):  # fmt: skip
        with pytest.raises(RecipeError, match=rf"(?s)RECIPE_003.*set execution\.{to_set}, or"):
            train(JaxTrainer(), tmp_path, tmp_path, execution=EXECUTION.model_copy(update=asked))
    values = {"base": {"path": "x"}, "learning_rate": 0.1, "backend": "jax"}
    for lacking in ({"lora": {}}, {"engine": "trl"}, {"dtype": "float16"}):
        with pytest.raises(ValueError, match=rf"backend jax has less to choose; set {next(iter(lacking))} to"):
            TrainingSection.model_validate(values | lacking)
