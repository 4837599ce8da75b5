"""How much memory a device has for a model, and whether activations have to be recomputed for it to fit."""

import torch
from transformers import PreTrainedModel

from rm_assets.backends.machine import available_memory
from rm_assets.backends.room import NO_LIMIT, Room, gb, shape_of
from rm_assets.backends.token_budget import release_cached
from rm_assets.core.planning.arithmetic import training_memory
from rm_assets.core.protocols import Reporter

RESERVE = 0.9
"""Share of the free memory that the estimate may fill: kernels and the allocator need some too."""


def room_on(device: torch.device, num_processes: int = 1) -> Room:
    """What the device has for a model. On a CPU, all processes take it from the same memory; Apple only recommends a limit."""

    def free(given_back: bool) -> int:
        if given_back:
            release_cached()
        return free_memory(device)

    return Room(device.type, free, device.type != "mps", num_processes if device.type == "cuda" else 1)


def recomputes_activations(
    model: PreTrainedModel, setting: str, *, tokens_per_forward: int, activation_bytes: int, device: torch.device,
    reporter: Reporter,
) -> bool:  # fmt: skip
    """Gradient checkpointing by the recipe's word, or, for `auto`, where the estimate asks for it.

    A model whose shape is unknown keeps its activations.
    """
    shape = shape_of(model.config)
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
            f"activations are recomputed: keeping them would take an estimated {gb(kept)} of {gb(free)} free, "
            f"recomputing {gb(recomputed)}"
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
    return NO_LIMIT if available is None else available
