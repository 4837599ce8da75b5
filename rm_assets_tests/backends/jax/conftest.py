"""Tiny checkpoints of the three shapes that the JAX backend computes, and trainings from them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from rm_assets.backends.jax import checkpoints
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.torch import native_engine
from rm_assets.backends.torch.trainer import TorchTrainer
from rm_assets.core.protocols import Trainer, TrainingResult
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets.core.records import Pair
from rm_assets.tasks.scorers import load_scorer
from rm_assets_tests.fakes import ListReporter, in_float64, save_classifier, toy_pairs

TRAINERS: tuple[Trainer, ...] = (TorchTrainer(), JaxTrainer())
EXECUTION = ExecutionSection(device="cpu", token_budget=256, training_token_budget=256, save_every_steps=4)
SHAPES: dict[str, dict[str, Any]] = {
    # heads that are wider than their share of the hidden width
    "qwen3": {"kind": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2},
    # with waves that are kept, mixed and stretched
    "llama-3.1": {
        "kind": "llama",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
        },
    },
    "smollm2": {
        "kind": "llama", "hidden_size": 24, "num_attention_heads": 3, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    },
}  # fmt: skip


@pytest.fixture(scope="session", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of each shape."""
    return save_classifier(tmp_path_factory.mktemp("model"), **SHAPES[request.param])


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


def rewards_of(checkpoint: Path, backend: Any) -> list[float]:
    scorer = load_scorer(
        ModelRef(path=str(checkpoint)), backend, max_length=100, dtype="float32", execution=EXECUTION,
        reporter=ListReporter(),
    )  # fmt: skip
    return [score.reward for score in scorer.score(pair.chosen for pair in toy_pairs(8))]
