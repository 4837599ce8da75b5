"""The plan of a recipe: its stages, its training in numbers, the devices it fits, and what is known to go wrong."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rm_assets.core.planning import guidance
from rm_assets.core.planning.arithmetic import Probe, forward_flops
from rm_assets.core.planning.prices import DevicePrice
from rm_assets.core.planning.recipe_counts import Count, Known, pairs_by_split
from rm_assets.core.planning.stage_plans import StagePlan, plan_stages
from rm_assets.core.planning.training_plan import TrainingPlan, plan_training, training_of, validation_steps
from rm_assets.core.recipe import Recipe, SamplingSettings, TrainingSection
from rm_assets.core.shares import at_shares
from rm_assets.core.stages import model_at


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
    num_pairs = math.ceil(validation_steps(recipe, known, steps) * settings.pairs_per_step)
    return forward_flops(shape, num_tokens=num_pairs * 2 * settings.max_length, row_length=settings.max_length)


def _known_at(known: Known, name: str) -> Known:
    """The same with the model of this name as the reward model, if it is made."""
    others = {asset: made for asset, made in known.made.items() if asset != "reward_model"}
    return replace(known, made=others | ({"reward_model": known.made[name]} if name in known.made else {}))


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
