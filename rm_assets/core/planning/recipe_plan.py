"""The plan of a recipe: its stages, its training in numbers, the devices it fits, and what is known to go wrong."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rm_assets.core.errors import PlanError
from rm_assets.core.planning import guidance
from rm_assets.core.planning.model_shape import num_adapted_parameters
from rm_assets.core.planning.plan import (
    Probe,
    TrainingMemory,
    forward_flops,
    num_optimizer_steps,
    num_pairs_per_forward,
    num_warmup_steps,
    probed_seconds,
    training_flops,
    training_memory,
)
from rm_assets.core.planning.prices import DevicePrice
from rm_assets.core.planning.recipe_counts import UNKNOWN, Count, Known, pairs_by_split, share_of
from rm_assets.core.planning.stage_plans import BYTES, StagePlan, plan_stages
from rm_assets.core.recipe import Recipe, SamplingSettings, TrainingSection
from rm_assets.core.shares import at_shares
from rm_assets.core.stages import model_at


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


@dataclass(frozen=True)
class DevicePlan:
    """Whether the training fits, and what it and those of a learning curve cost on as many of one device as it asks for.

    Hours and cost need a probe on that very device.
    """

    device: str
    usd_per_hour: float
    as_of: str
    source: str
    memory_gb: float | None
    fits: bool | None
    hours: float | None
    usd: float | None


@dataclass(frozen=True)
class RecipePlan:
    """The whole plan; `notes` say what could not be found out, and why. `curve` are the trainings of a learning curve by name."""

    recipe: str
    stages: list[StagePlan]
    training: TrainingPlan
    devices: list[DevicePlan]
    warnings: list[guidance.PlanWarning]
    notes: list[str]
    curve: dict[str, TrainingPlan] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "recipe": self.recipe,
            "stages": [stage.as_json() for stage in self.stages],
            "training": self.training.as_json(),
            "learning_curve": {name: training.as_json() for name, training in self.curve.items()},
            "devices": [asdict(device) for device in self.devices],
            "warnings": [asdict(warning) for warning in self.warnings],
            "notes": self.notes,
        }


def plan_recipe(
    recipe: Recipe, known: Known, *, prices: tuple[DevicePrice, ...], probe: Probe | None = None, notes: list[str]
) -> RecipePlan:
    """The plan of `recipe` with all that is known. A probe's seconds a step give hours and, by the prices, a cost."""
    training = plan_training(recipe, known, probe)
    curve = {
        model_at(share): plan_training(of, _known_at(known, model_at(share)), probe)
        for share, of in at_shares(recipe).items()
    }
    trainings = [training, *curve.values()]
    return RecipePlan(
        recipe=recipe.name,
        stages=plan_stages(recipe, known, [each.pairs for each in trainings]),
        training=training,
        devices=[_on_device(trainings, price, probe) for price in prices],
        warnings=recipe_warnings(recipe, known, training),
        notes=notes,
        curve=curve,
    )


def operations_left(recipe: Recipe, known: Known) -> int | None:
    """Floating-point operations of all that is not made, at most; None where a model's work cannot be told.

    Not in it is what a policy takes to read its prompts, whose lengths are not known.
    """
    trainings: list[tuple[Recipe, TrainingPlan]] = []
    if isinstance(recipe.training, TrainingSection):
        curve = at_shares(recipe).items()
        trainings = [
            (recipe, plan_training(recipe, known, None)),
            *((of, plan_training(of, _known_at(known, model_at(share)), None)) for share, of in curve),
        ]
    # An existing model is evaluated like any other, on no training pairs.
    pairs = [training.pairs for _, training in trainings] or [Count(0, "made")]
    stages = [stage for stage in plan_stages(recipe, known, pairs) if not stage.made]
    left = [stage.flops for stage in stages if stage.tokens is not None]  # no tokens: no model
    for of, training in trainings:
        if not training.made:
            left += [training.flops, _validation_flops(of, known, training)]
    known_left = [flops for flops in left if flops is not None]
    return sum(known_left) if len(known_left) == len(left) else None


def _validation_flops(recipe: Recipe, known: Known, training: TrainingPlan) -> int | None:
    """Of all looks at the validation pairs."""
    settings, steps = training_of(recipe), training.optimizer_steps.value
    shape, pairs = known.shapes.get(settings.base.location), pairs_by_split(recipe, known)["validation"].value
    if shape is None or steps is None or pairs is None:
        return None
    num_pairs = math.ceil(_validation_steps(recipe, known, steps) * settings.pairs_per_step)
    return forward_flops(shape, num_tokens=num_pairs * 2 * settings.max_length, row_length=settings.max_length)


def _known_at(known: Known, name: str) -> Known:
    """The same with the model of this name as the reward model, if it is made."""
    others = {asset: made for asset, made in known.made.items() if asset != "reward_model"}
    return replace(known, made=others | ({"reward_model": known.made[name]} if name in known.made else {}))


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
            probe, steps.value, _validation_steps(recipe, known, steps.value), gradient_checkpointing=checkpointing == "always"
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


def _validation_steps(recipe: Recipe, known: Known, num_steps: int) -> float:
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


def _on_device(trainings: Sequence[TrainingPlan], price: DevicePrice, probe: Probe | None) -> DevicePlan:
    training = trainings[0]
    need = training.memory.total if training.memory else None
    hours, seconds = None, [each.seconds for each in trainings if each.seconds is not None]
    if probe is not None and probe.device == price.device and len(seconds) == len(trainings):
        hours = sum(seconds) / 3600
    return DevicePlan(
        **price.model_dump(),
        fits=None if need is None or price.memory_gb is None else need <= price.memory_gb * 1e9,
        hours=hours,
        usd=None if hours is None else hours * price.usd_per_hour * training.num_devices,
    )


def recipe_warnings(recipe: Recipe, known: Known, training: TrainingPlan) -> list[guidance.PlanWarning]:
    """What is known to go wrong with these numbers."""
    settings, sampling = training_of(recipe), recipe.sampling
    facts = known.made["sampled_responses"].facts if "sampled_responses" in known.made else {}
    counts = known.made["reward_model"].counts if "reward_model" in known.made else {}
    over = counts["pairs_over_length"] / counts["pairs_in"] if counts.get("pairs_in") else None
    return [
        *(guidance.pair_warnings(training.pairs.value) if training.pairs.value is not None else []),
        *guidance.training_warnings(
            num_parameters=training.num_parameters, learning_rate=settings.learning_rate,
            num_epochs=settings.num_epochs, warmup_steps=training.warmup_steps.value,
            trains_all_weights=settings.lora is None,
        ),
        *guidance.length_warnings(
            max_length=settings.max_length,
            max_new_tokens=sampling.max_new_tokens if isinstance(sampling, SamplingSettings) else None,
            mean_response_tokens=facts.get("mean_response_tokens"), share_over_length=over,
        ),
    ]  # fmt: skip
