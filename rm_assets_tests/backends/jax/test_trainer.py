"""Training in JAX takes the native engine's steps, goes on where it stopped, and writes what transformers loads."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rm_assets.backends.jax import checkpoints, devices, packed_rows, training_files
from rm_assets.backends.jax.architecture import read_architecture
from rm_assets.backends.jax.checkpoints import load_parameters
from rm_assets.backends.jax.devices import make_mesh
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.jax.training_files import read_state, write_state
from rm_assets.backends.jax.training_step import num_compilations
from rm_assets.backends.tokenization import load_config, load_renderer
from rm_assets.backends.torch import native_engine
from rm_assets.backends.torch.trainer import TorchTrainer
from rm_assets.backends.training_progress import Misfit
from rm_assets.core.errors import ModelError, RecipeError
from rm_assets.core.protocols import Trainer, TrainingResult
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets.core.records import Pair, conversation
from rm_assets.tasks.scorers import load_scorer
from rm_assets_tests.backends.jax.conftest import SHAPES
from rm_assets_tests.fakes import ListReporter, in_float64, save_causal, save_classifier, save_encoder, toy_pairs

torch.set_num_threads(1)
TRAINERS: tuple[Trainer, ...] = (TorchTrainer(), JaxTrainer())
EXECUTION = ExecutionSection(device="cpu", token_budget=256, training_token_budget=256, save_every_steps=4)


def graded(pairs: list[Pair]) -> list[Pair]:
    """Pairs of unequal gold margins, up to four to a prompt."""
    return [
        replace(p, prompt_id=f"p{i // 4}", chosen_gold_reward=1 + i % 5 / 3, gold_margin=1 + i % 5 / 3)
        for i, p in enumerate(pairs)
    ]


def train(trainer: Trainer, folder: Path, base: Path, **changes: Any) -> TrainingResult:
    pairs = changes.pop("pairs", None) or toy_pairs(40)
    validation_pairs = changes.pop("validation_pairs", None) or toy_pairs(10, "validation")
    options: dict[str, Any] = {
        "execution": changes.pop("execution", EXECUTION), "seed": 1, "checkpoint": folder / "model", "work": folder / "work",
        "reporter": changes.pop("reporter", None) or ListReporter(),
    }  # fmt: skip
    values: dict[str, Any] = {
        "base": ModelRef(path=str(base)), "max_length": 100, "pairs_per_step": 8, "learning_rate": 0.01, "num_epochs": 6
    }  # fmt: skip
    section = TrainingSection.model_validate(values | changes)
    return trainer.train(graded(pairs), validation_pairs, settings=section, **options)


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both backends in float64."""
    load: Callable[..., Any] = native_engine.load_base_for_reward
    monkeypatch.setattr(
        native_engine, "load_base_for_reward", lambda *args, **options: in_float64(load(*args, **options))
    )
    monkeypatch.setattr(checkpoints, "MASTER", jnp.float64)
    with jax.enable_x64(True):
        yield


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


class StopAfter(ListReporter):
    """Ends a training in the middle."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def metrics(self, step: int, values: Any) -> None:
        if step > self.step:
            raise KeyboardInterrupt
        super().metrics(step, values)


def test_a_training_goes_on_where_it_was_stopped_and_leaves_the_same_checkpoint(tmp_path: Path) -> None:
    """From a causal language model, whose head is drawn; transformers loads what was trained, bit by bit."""
    base, before = save_causal(tmp_path / "base", "llama"), num_compilations()
    whole = train(JaxTrainer(), tmp_path / "whole", base, num_epochs=3)
    compiled = num_compilations()
    assert max(number - before[name] for name, number in compiled.items()) <= 1
    with pytest.raises(KeyboardInterrupt):
        train(JaxTrainer(), tmp_path / "cut", base, num_epochs=3, reporter=StopAfter(10))
    again = ListReporter()
    resumed = train(JaxTrainer(), tmp_path / "cut", base, num_epochs=3, reporter=again)
    assert num_compilations() == compiled
    assert "resuming after optimizer step 8 of 15" in again.lines and again.steps[0][0] == 9
    timings = ("tokens_per_second", "eta_seconds")
    plain = [[{k: v for k, v in e.items() if k not in timings} for e in r.history] for r in (whole, resumed)]
    assert plain[0] == plain[1] and whole.final_loss < whole.history[0]["loss"]
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.batch_comparison["largest_difference"] < 1e-5 < whole.batch_comparison["spread"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole" / "model")
    saved = load_file(files[0])
    assert all(torch.equal(weight, saved[name]) for name, weight in model.state_dict().items())
    assert model.config.id2label == {0: "reward"} and model.config.problem_type == "regression"
    found, expected = (rewards_of(tmp_path / "whole" / "model", backend) for backend in ("jax", "torch"))
    assert found == pytest.approx(expected, abs=1e-5)


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


def test_a_resumed_training_remembers_its_best_weights(tmp_path: Path) -> None:
    base = save_causal(tmp_path / "base", "llama")
    options: dict[str, Any] = {"num_epochs": 3, "validation": {"every_steps": 3, "metric": "accuracy"}}
    whole = train(JaxTrainer(), tmp_path / "whole", base, **options)
    with pytest.raises(KeyboardInterrupt):
        train(JaxTrainer(), tmp_path / "cut", base, reporter=StopAfter(10), **options)
    resumed = train(JaxTrainer(), tmp_path / "cut", base, **options)
    looks = [[entry.get("validation_accuracy") for entry in result.history] for result in (whole, resumed)]
    assert looks[0] == looks[1] and whole.validation_accuracy == resumed.validation_accuracy == max(
        filter(None, looks[0])
    )
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_pairs_of_any_length_compile_a_few_times(tmp_path: Path) -> None:
    base, before = save_causal(tmp_path / "base", "llama"), num_compilations()
    pairs = [
        replace(pair, chosen=conversation(f"make {i} pies", None, "good " * (1 + 7 * i % 180)))
        for i, pair in enumerate(toy_pairs(120))
    ]  # fmt: skip
    execution = EXECUTION.model_copy(update={"training_token_budget": 512, "token_budget": 512})
    options: dict[str, Any] = {"pairs": pairs, "pairs_per_step": 10, "max_length": 200, "num_epochs": 3}
    train(JaxTrainer(), tmp_path, base, execution=execution, **options)
    # 1 or 2 rows of 256 tokens, one of 512
    assert packed_rows.most_shapes(400, 512) == 3
    compiled = {name: number - before[name] for name, number in num_compilations().items()}
    assert 1 < compiled["add_gradients"] <= 3 and compiled["update"] <= 1


def test_more_compilations_than_shapes_end_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_rows, "most_shapes", lambda longest, budget: -1)
    with pytest.raises(AssertionError, match="was compiled 0 times"):
        train(JaxTrainer(), tmp_path, save_causal(tmp_path / "base", "llama"))


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


def rewards_of(checkpoint: Path, backend: Any) -> list[float]:
    scorer = load_scorer(
        ModelRef(path=str(checkpoint)), backend, max_length=100, dtype="float32", execution=EXECUTION,
        reporter=ListReporter(),
    )  # fmt: skip
    return [score.reward for score in scorer.score(pair.chosen for pair in toy_pairs(8))]


def test_a_damaged_state_is_not_gone_on_from(tmp_path: Path) -> None:
    like = {"weight": jnp.zeros((2, 3)), "count": jnp.zeros((), jnp.int32)}
    write_state(like, tmp_path / "state")
    assert jax.tree.structure(read_state(like, tmp_path / "state")) == jax.tree.structure(like)
    for other, said in (({**like, "weight": jnp.zeros((3, 2))}, "'weight'"), ({"count": like["count"]}, "'weight'")):
        with pytest.raises(Misfit, match=said):
            read_state(other, tmp_path / "state")
    (tmp_path / "state").write_bytes(b"no tensors")
    with pytest.raises(Misfit, match="cannot be read"):
        read_state(like, tmp_path / "state")


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
    for name, value in {"num_processes": 2, "profile": True, "deterministic": True}.items():
        with pytest.raises(RecipeError, match=rf"RECIPE_003.*{name} is {value}"):
            train(JaxTrainer(), tmp_path, tmp_path, execution=EXECUTION.model_copy(update={name: value}))
    values = {"base": {"path": "x"}, "learning_rate": 0.1, "backend": "jax"}
    for lacking in ({"lora": {}}, {"engine": "trl"}, {"dtype": "float16"}):
        with pytest.raises(ValueError, match=rf"backend jax has less to choose; set {next(iter(lacking))} to"):
            TrainingSection.model_validate(values | lacking)
