"""Whether a model's work fits into the device's memory, and whether activations have to be recomputed for it to fit."""

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from rm_assets.backends.machine import available_memory
from rm_assets.backends.torch.token_budget import release_cached
from rm_assets.core.errors import ModelError
from rm_assets.core.planning.model_shape import ModelShape, num_adapted_parameters, shape_from_config
from rm_assets.core.planning.plan import training_memory
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import TrainingSection

RESERVE = 0.9
"""Share of the free memory that the estimate may fill: kernels and the allocator need some too."""


def require_room_to_train(
    config: PretrainedConfig, settings: TrainingSection, *, num_processes: int, device: torch.device, reporter: Reporter
) -> None:
    """Refuses a training whose weights, gradients and moments alone are more than what is free.

    Activations are not counted: how many there are at a time can be lowered. Nothing is refused of an unknown shape.
    Raises: ModelError MODEL_010.
    """
    shape = _shape_of(config)
    if shape is None:
        return
    adapted = None
    if settings.lora:
        adapted = num_adapted_parameters(shape, rank=settings.lora.rank, target_modules=settings.lora.target_modules)
    least = training_memory(
        shape, tokens_per_forward=0, activation_bytes=2 if settings.lora and settings.dtype == "bfloat16" else 4,
        gradient_checkpointing=True, trainable_parameters=adapted,
    )  # fmt: skip
    # On a CPU, all processes take it from the same memory.
    least = least.sharded(num_processes if device.type == "cuda" else 1)
    _require_room(
        f"training {settings.base.location}", least.total, device, reporter,
        why=f"weights {_gb(least.weights)}, gradients {_gb(least.gradients)}, AdamW's moments {_gb(least.optimizer)}; "
        "activations come on top",
        fix="set training.lora, take a smaller base, raise execution.num_processes where there are more GPUs, or train "
        "where more is free",
    )  # fmt: skip


def require_room_for_weights(
    config: PretrainedConfig,
    location: str,
    dtype: torch.dtype,
    device: torch.device,
    reporter: Reporter,
    *,
    is_policy: bool = False,
) -> None:
    """Refuses to load a model whose weights alone are more than what is free. Raises: ModelError MODEL_010."""
    shape = _shape_of(config)
    if shape is not None:
        number = shape.num_policy_parameters if is_policy else shape.num_parameters
        _require_room(
            location, number * dtype.itemsize, device, reporter, why=f"{number:,} weights in {dtype}, all else comes on top",
            fix="take a smaller model or a dtype of two bytes, or run where more is free",
        )  # fmt: skip


def _require_room(what: str, least: int, device: torch.device, reporter: Reporter, *, why: str, fix: str) -> None:
    if least <= free_memory(device):
        return
    release_cached()
    free = free_memory(device)
    said = f"{what} takes at least {_gb(least)} of memory, and {_gb(free)} are free on {device.type}"
    if least <= free:
        return
    if device.type == "mps":  # what is recommended there is no limit
        reporter.log(f"warning: {said}")
        return
    raise ModelError("MODEL_010", said, why=why, fix=fix)


def recomputes_activations(
    model: PreTrainedModel, setting: str, *, tokens_per_forward: int, activation_bytes: int, device: torch.device,
    reporter: Reporter,
) -> bool:  # fmt: skip
    """Gradient checkpointing by the recipe's word, or, for `auto`, where the estimate asks for it.

    A model whose shape is unknown keeps its activations.
    """
    shape = _shape_of(model.config)
    if shape is None or not model.supports_gradient_checkpointing:
        return setting == "always"
    num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    is_whole = all(weight.requires_grad for weight in model.parameters())
    # The weights are on the device already.
    free, weights = free_memory(device), sum(weight.nbytes for weight in model.parameters())
    kept, recomputed = (
        training_memory(
            shape, tokens_per_forward=tokens_per_forward, activation_bytes=activation_bytes,
            gradient_checkpointing=is_recomputed, trainable_parameters=None if is_whole else num_trained,
        ).total - weights
        for is_recomputed in (False, True)
    )  # fmt: skip
    recomputes = setting == "always" or (setting == "auto" and kept > RESERVE * free)
    if recomputes and setting == "auto":
        reporter.log(
            f"activations are recomputed: keeping them would take an estimated {_gb(kept)} of {_gb(free)} free, "
            f"recomputing {_gb(recomputed)}"
        )
    if (recomputed if recomputes else kept) > free:
        reporter.log(
            "warning: the estimate is more than what is free; if it does not fit, the token budget is halved once"
        )
    return recomputes


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on the device; what PyTorch holds for itself can be taken again."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    available = available_memory()
    return 2**63 if available is None else available


def _shape_of(config: PretrainedConfig) -> ModelShape | None:
    """None where no formula counts the parameters of this kind of model."""
    values: dict[str, Any] = config.to_dict()
    try:
        return shape_from_config(values)
    except ModelError:
        return None


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
