"""Whether a training fits into the device's memory, and whether activations have to be recomputed for it to fit."""

import torch
from transformers import PreTrainedModel

from rm_assets.backends.machine import available_memory
from rm_assets.core.errors import ModelError
from rm_assets.core.planning.model_shape import shape_from_config
from rm_assets.core.planning.plan import training_memory
from rm_assets.core.protocols import Reporter

RESERVE = 0.9
"""Share of the free memory that the estimate may fill: kernels and the allocator need some too."""


def recomputes_activations(
    model: PreTrainedModel, setting: str, *, tokens_per_forward: int, activation_bytes: int, device: torch.device,
    reporter: Reporter,
) -> bool:  # fmt: skip
    """Gradient checkpointing by the recipe's word, or, for `auto`, where the estimate asks for it.

    A model whose shape is unknown keeps its activations.
    """
    if setting != "auto" or not model.supports_gradient_checkpointing:
        return setting == "always"
    try:
        shape = shape_from_config(model.config.to_dict())
    except ModelError:
        return False
    num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    is_whole = all(weight.requires_grad for weight in model.parameters())
    kept, recomputed = (
        training_memory(
            shape, tokens_per_forward=tokens_per_forward, activation_bytes=activation_bytes,
            gradient_checkpointing=is_recomputed, trainable_parameters=None if is_whole else num_trained,
        )
        for is_recomputed in (False, True)
    )  # fmt: skip
    # The weights are on the device already.
    free, weights = free_memory(device), sum(weight.nbytes for weight in model.parameters())
    if kept.total - weights <= RESERVE * free:
        return False
    reporter.log(
        f"activations are recomputed: keeping them would take an estimated {(kept.total - weights) / 1e9:.1f} GB of "
        f"{free / 1e9:.1f} GB free, recomputing {(recomputed.total - weights) / 1e9:.1f} GB"
    )
    return True


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    available = available_memory()
    return 2**63 if available is None else available
