"""Whether a model's weights, and what a training keeps of each, fit into a device's free memory. Imports no framework."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from rm_assets.core.errors import ModelError
from rm_assets.core.planning.arithmetic import BYTES, training_memory
from rm_assets.core.planning.model_shape import ModelShape, num_adapted_parameters, shape_from_config
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import Dtype, TrainingSection

NO_LIMIT = 2**63


@dataclass(frozen=True)
class Room:
    """What one device has. `free` gives bytes, and with True after all that nothing holds any more was given back.

    `num_parts` devices share weights, gradients and moments between them. What is no limit is only said, not refused.
    """

    device: str
    free: Callable[[bool], int]
    is_limit: bool = True
    num_parts: int = 1


def require_room_to_train(config: PretrainedConfig, settings: TrainingSection, room: Room, reporter: Reporter) -> None:
    """Refuses a training whose weights, gradients and moments alone are more than what is free.

    Activations are not counted: how many there are at a time can be lowered. Nothing is refused of an unknown shape.
    Raises: ModelError MODEL_010.
    """
    shape = shape_of(config)
    if shape is None:
        return
    adapted = None
    if settings.lora:
        adapted = num_adapted_parameters(shape, rank=settings.lora.rank, target_modules=settings.lora.target_modules)
    least = training_memory(
        shape, tokens_per_forward=0, activation_bytes=2 if settings.lora and settings.dtype == "bfloat16" else 4,
        gradient_checkpointing=True, trainable_parameters=adapted,
    ).sharded(room.num_parts)  # fmt: skip
    _require(
        room, f"training {settings.base.location}", least.total, reporter,
        why=f"weights {gb(least.weights)}, gradients {gb(least.gradients)}, AdamW's moments {gb(least.optimizer)}; "
        "activations come on top",
        fix="set training.lora, take a smaller base, divide it over more devices where there are any, or train where more "
        "is free",
    )  # fmt: skip


def require_room_for_weights(
    config: PretrainedConfig, location: str, dtype: Dtype, room: Room, reporter: Reporter, *, is_policy: bool = False
) -> None:
    """Refuses to load a model whose weights alone are more than what is free. Raises: ModelError MODEL_010."""
    shape = shape_of(config)
    if shape is not None:
        number = shape.num_policy_parameters if is_policy else shape.num_parameters
        _require(
            room, location, number * BYTES[dtype] // room.num_parts, reporter,
            why=f"{number:,} weights in {dtype}, all else comes on top",
            fix="take a smaller model or a dtype of two bytes, or run where more is free",
        )  # fmt: skip


def _require(room: Room, what: str, least: int, reporter: Reporter, *, why: str, fix: str) -> None:
    if least <= room.free(False) or least <= (free := room.free(True)):
        return
    said = f"{what} takes at least {gb(least)} of memory, and {gb(free)} are free on {room.device}"
    if room.is_limit:
        raise ModelError("MODEL_010", said, why=why, fix=fix)
    reporter.log(f"warning: {said}")


def shape_of(config: PretrainedConfig) -> ModelShape | None:
    """None where no formula counts the parameters of this kind of model."""
    values: dict[str, Any] = config.to_dict()
    try:
        return shape_from_config(values)
    except ModelError:
        return None


def gb(num_bytes: int) -> str:
    """For people."""
    return f"{num_bytes / 1e9:.1f} GB"
