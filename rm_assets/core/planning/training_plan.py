"""The plan of a recipe's training: its pairs, steps, tokens, work, memory and, with a probe, seconds."""

import math
from dataclasses import dataclass
from typing import Any

from rm_assets.core.errors import PlanError
from rm_assets.core.planning.arithmetic import (
    BYTES,
    Probe,
    TrainingMemory,
    num_optimizer_steps,
    num_pairs_per_forward,
    num_warmup_steps,
    probed_seconds,
    training_flops,
    training_memory,
)
from rm_assets.core.planning.model_shape import num_adapted_parameters
from rm_assets.core.planning.recipe_counts import UNKNOWN, Count, Known, pairs_by_split, share_of
from rm_assets.core.recipe import Recipe, TrainingSection


@dataclass(frozen=True)
class TrainingPlan:
    """The training. `memory` is as the recipe sets it; the two others are with every activation kept, and recomputed.

    Memory is that of one device. `gradient_checkpointing` is what the engine makes of the recipe's word.
    """

    made: bool
    base: str
    num_parameters: int | None
    num_trained_parameters: int | None
    num_devices: int
    pairs: Count
    steps_per_epoch: Count
    optimizer_steps: Count
    warmup_steps: Count
    tokens: Count
    tokens_per_forward: int
    gradient_checkpointing: str
    flops: int | None
    memory_kept: TrainingMemory | None
    memory_recomputed: TrainingMemory | None
    seconds: float | None
    peak_bytes: int | None

    @property
    def memory(self) -> TrainingMemory | None:
        """What it takes at least: with `auto`, activations are recomputed where they would not fit."""
        return self.memory_kept if self.gradient_checkpointing == "never" else self.memory_recomputed

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "made": self.made, "base": self.base, "num_parameters": self.num_parameters,
            "num_trained_parameters": self.num_trained_parameters, "num_devices": self.num_devices,
            "num_pairs": self.pairs.as_json(), "num_steps_per_epoch": self.steps_per_epoch.as_json(),
            "num_optimizer_steps": self.optimizer_steps.as_json(), "num_warmup_steps": self.warmup_steps.as_json(),
            "num_tokens": self.tokens.as_json(), "num_tokens_per_forward": self.tokens_per_forward,
            "gradient_checkpointing": self.gradient_checkpointing, "flops": self.flops,
            "memory_bytes": self.memory and self.memory.as_json(),
            "memory_bytes_kept": self.memory_kept and self.memory_kept.as_json(),
            "memory_bytes_recomputed": self.memory_recomputed and self.memory_recomputed.as_json(),
            "seconds": self.seconds, "probe_peak_bytes": self.peak_bytes,
        }  # fmt: skip


def plan_training(recipe: Recipe, known: Known, probe: Probe | None) -> TrainingPlan:
    """Steps, tokens, work, memory and, with a probe, seconds."""
    settings = training_of(recipe)
    made = known.made.get("reward_model")
    drawn = share_of(pairs_by_split(recipe, known)["train"], settings.share_of_prompts)
    pairs = drawn.capped(settings.max_train_pairs).at_most()
    pairs = Count(made.counts["pairs_trained"], "made") if made else pairs
    per_epoch, steps = _steps(recipe, pairs)
    steps = Count(made.counts["optimizer_steps"], "made") if made else steps
    tokens = Count(made.counts["tokens"], "made") if made else _most_tokens(recipe, pairs, steps)
    shape = known.shapes.get(settings.base.location)
    tokens_per_forward, checkpointing = _tokens_per_forward(recipe, known), _gradient_checkpointing(recipe)
    flops, adapted, memory = None, None, dict[bool, TrainingMemory]()
    if shape:
        if settings.lora:
            adapted = num_adapted_parameters(
                shape, rank=settings.lora.rank, target_modules=settings.lora.target_modules
            )  # fmt: skip
        memory = {
            recomputed: training_memory(
                shape, tokens_per_forward=tokens_per_forward, activation_bytes=BYTES[settings.dtype],
                gradient_checkpointing=recomputed, trainable_parameters=adapted,
            ).sharded(_num_parts(recipe)) for recomputed in (False, True)
        }  # fmt: skip
        if tokens.value is not None:
            flops = training_flops(
                shape, num_tokens=tokens.value, row_length=settings.max_length,
                gradient_checkpointing=checkpointing != "never",
            )  # fmt: skip
    return TrainingPlan(
        made=made is not None, base=settings.base.location, num_parameters=shape.num_parameters if shape else None,
        num_trained_parameters=shape.num_parameters if shape and not settings.lora else adapted,
        num_devices=num_devices(recipe), pairs=pairs, steps_per_epoch=per_epoch, optimizer_steps=steps, tokens=tokens, flops=flops,
        warmup_steps=UNKNOWN if steps.value is None
        else Count(num_warmup_steps(steps.value, settings.warmup_ratio), steps.basis),
        tokens_per_forward=tokens_per_forward, gradient_checkpointing=checkpointing,
        memory_kept=memory.get(False), memory_recomputed=memory.get(True),
        seconds=probed_seconds(
            probe, steps.value, validation_steps(recipe, known, steps.value), gradient_checkpointing=checkpointing == "always"
        ) if probe and steps.value is not None else None,
        peak_bytes=probe.peak_bytes if probe else None,
    )  # fmt: skip


def training_of(recipe: Recipe) -> TrainingSection:
    """How the recipe trains. Raises: PlanError PLAN_001 if it takes an existing reward model."""
    if isinstance(recipe.training, TrainingSection):
        return recipe.training
    raise PlanError(
        "PLAN_001", f"'{recipe.name}' takes an existing reward model, so there is no training to plan",
        fix="run it: its responses and gold rewards cost what those of any recipe do, and training nothing",
    )  # fmt: skip


def num_devices(recipe: Recipe) -> int:
    """Devices of the training: one for each process, of which engine trl has one, or those of JAX's mesh."""
    training, execution = training_of(recipe), recipe.execution
    if training.backend == "jax":
        return execution.jax_mesh.data * execution.jax_mesh.fsdp if execution.jax_mesh else 1
    return 1 if training.engine == "trl" else execution.num_processes


def _num_parts(recipe: Recipe) -> int:
    """Devices that hold one copy of weights, gradients and moments between them."""
    mesh = recipe.execution.jax_mesh
    return mesh.fsdp if training_of(recipe).backend == "jax" and mesh else num_devices(recipe)


def _gradient_checkpointing(recipe: Recipe) -> str:
    """Engine trl recomputes by the recipe's word alone."""
    setting = recipe.execution.gradient_checkpointing
    return "never" if training_of(recipe).engine == "trl" and setting == "auto" else setting


def _tokens_per_forward(recipe: Recipe, known: Known) -> int:
    """At most: a pair is never cut, a step has no more pairs, and engine trl pads all sides of its pairs to the longest."""
    settings, execution = training_of(recipe), recipe.execution
    if settings.engine == "trl":
        return 2 * num_pairs_per_forward(settings.pairs_per_step, execution.pairs_per_forward) * settings.max_length
    budget = execution.forward_tokens("training", on_cpu="train" in known.small_batches)
    return min(max(budget, 2 * settings.max_length), settings.pairs_per_step * 2 * settings.max_length)


def validation_steps(recipe: Recipe, known: Known, num_steps: int) -> float:
    """All looks at the validation pairs, in steps of as many pairs: those while it trains, and the last one."""
    settings = training_of(recipe)
    pairs = pairs_by_split(recipe, known)["validation"].value or 0
    looks = 1 + (math.ceil(num_steps / settings.validation.every_steps) if settings.validation else 0)
    return looks * pairs / settings.pairs_per_step


def _steps(recipe: Recipe, pairs: Count) -> tuple[Count, Count]:
    """Optimizer steps of an epoch and in all."""
    settings = training_of(recipe)
    if pairs.value is None:
        most = settings.max_optimizer_steps
        return UNKNOWN, UNKNOWN if most is None else Count(most, "at_most")
    per_epoch = num_optimizer_steps(pairs.value, settings.pairs_per_step, 1)
    steps = num_optimizer_steps(pairs.value, settings.pairs_per_step, settings.num_epochs)
    if settings.max_optimizer_steps is not None:
        steps = min(steps, settings.max_optimizer_steps)
    return Count(per_epoch, pairs.basis), Count(steps, pairs.basis)


def _most_tokens(recipe: Recipe, pairs: Count, steps: Count) -> Count:
    """Two sides of `max_length` for every pair that is seen."""
    settings = training_of(recipe)
    if steps.value is None:
        return UNKNOWN
    seen = steps.value * settings.pairs_per_step
    if pairs.value is not None:
        seen = min(seen, math.ceil(pairs.value * settings.num_epochs))
    return Count(seen * 2 * settings.max_length, steps.basis).at_most()
