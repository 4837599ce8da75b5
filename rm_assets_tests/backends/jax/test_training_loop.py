"""A training in JAX goes on where it stopped, keeps its best weights, and compiles for a fixed set of shapes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rm_assets.backends.jax import packed_rows, training_loop
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.jax.training_files import read_state, write_state
from rm_assets.backends.jax.training_step import num_compilations
from rm_assets.backends.training_progress import Misfit, Sums
from rm_assets.core.protocols import Trainer
from rm_assets.core.records import conversation
from rm_assets_tests.backends.jax.conftest import EXECUTION, TRAINERS, rewards_of, train
from rm_assets_tests.fakes import ListReporter, StopAfter, save_causal, save_classifier, toy_pairs

torch.set_num_threads(1)


def test_a_tie_counts_half_and_places_without_a_pair_count_nothing() -> None:
    sums, rewards = Sums(), jnp.array([[1.0, 0.0], [3.0, 3.0], [0.0, 5.0]])
    training_loop._add(sums, jnp.array([1.0, 2.0, 9.0]), rewards, np.array([0.5, 0.25]))
    assert sums == Sums(weight=0.75, loss=1.0, num_pairs=2, num_right=1.5, margin=1.0)


@pytest.mark.slow
def test_activations_that_are_recomputed_change_nothing_and_take_less_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_classifier(tmp_path / "base", num_hidden_layers=6)
    compute: Any = training_loop.add_gradients
    losses, memory = list[list[float]](), list[int]()

    def measured(*arguments: Any) -> Any:
        memory.append(compute.lower(*arguments).compile().memory_analysis().temp_size_in_bytes)
        return compute(*arguments)

    monkeypatch.setattr(training_loop, "add_gradients", measured)
    for setting in ("never", "always"):
        execution = EXECUTION.model_copy(update={"gradient_checkpointing": setting})
        result = train(JaxTrainer(), tmp_path / setting, base, max_optimizer_steps=2, execution=execution)
        losses.append([step["loss"] for step in result.history])
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert memory[-1] < 0.7 * memory[0]


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


def failing_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, which finds no memory at this of its calls, counted from 1, in XLA's words."""
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        return real(*arguments)

    return call


def test_a_step_without_memory_is_computed_again_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, reporter = save_causal(tmp_path / "base", "llama"), ListReporter()
    execution = EXECUTION.model_copy(update={"training_token_budget": 512})
    options: dict[str, Any] = {"num_epochs": 2, "execution": execution, "pairs_per_step": 40, "learning_rate": 1e-3}
    whole = train(JaxTrainer(), tmp_path / "whole", base, **options)
    monkeypatch.setattr(training_loop, "add_gradients", failing_at(2, training_loop.add_gradients))
    halved = train(JaxTrainer(), tmp_path / "halved", base, reporter=reporter, **options)
    assert [e["loss"] for e in halved.history] == pytest.approx([e["loss"] for e in whole.history], abs=1e-5)
    assert halved.facts == {"token_budget_halved_to": 256} and whole.facts == {}
    assert halved.num_pair_tokens == whole.num_pair_tokens  # the first attempt counts for nothing
    assert "the token budget is halved to 256, since the device has no memory left: RESOURCE_EXHAUSTED" in str(
        reporter.lines
    )


def test_validation_without_memory_is_computed_again_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, reporter = save_causal(tmp_path / "base", "llama"), ListReporter()
    options: dict[str, Any] = {"num_epochs": 1, "execution": EXECUTION.model_copy(update={"token_budget": 512})}
    whole = train(JaxTrainer(), tmp_path / "whole", base, **options)
    monkeypatch.setattr(training_loop, "losses_and_rewards", failing_at(1, training_loop.losses_and_rewards))
    halved = train(JaxTrainer(), tmp_path / "halved", base, reporter=reporter, **options)
    assert halved.facts == {"validation_token_budget_halved_to": 256} and whole.facts == {}
    assert halved.validation_accuracy == whole.validation_accuracy
    assert "the validation token budget is halved to 256, since the device has no memory" in str(reporter.lines)


class FilesOfBest(ListReporter):
    """Notes after each step which best weights are on disk."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work, self.found = work, list[set[str]]()

    def metrics(self, step: int, values: Any) -> None:
        self.found.append({file.name for file in self.work.glob("best-*")})


@pytest.mark.parametrize("trainer", TRAINERS)
def test_best_weights_make_room_for_better_ones(trainer: Trainer, tmp_path: Path) -> None:
    """However many looks there are between two states."""
    base, reporter = save_causal(tmp_path / "base", "llama"), FilesOfBest(tmp_path / "work")
    execution = EXECUTION.model_copy(update={"save_every_steps": 1000})
    options: dict[str, Any] = {"num_epochs": 2, "learning_rate": 1e-3, "validation": {"every_steps": 1}}
    train(trainer, tmp_path, base, execution=execution, reporter=reporter, **options)
    assert {len(names) for names in reporter.found} == {1} and len(set.union(*reporter.found)) > 2


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
