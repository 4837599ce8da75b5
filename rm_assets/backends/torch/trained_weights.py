"""Trained weights and the optimizer's moments as safetensors, whole on disk however many processes hold them."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Weights = dict[str, torch.nn.Parameter]


def save_weights(weights: Weights, folder: Path) -> None:
    """Writes the weights; every process has to call it, the first one writes."""
    _save({name: weight.detach() for name, weight in weights.items()}, folder / WEIGHTS)


def load_weights(weights: Weights, folder: Path) -> None:
    """The inverse of `save_weights`, on any number of processes."""
    tensors = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_spread_like(tensors[name], weight))


def save_optimizer(optimizer: Any, weights: Weights, folder: Path) -> None:
    """Writes AdamW's state under the names of the weights; every process has to call it."""
    state = {
        f"{name}/{moment}": optimizer.state[weight][moment]
        for name, weight in weights.items()
        for moment in MOMENTS
        if weight in optimizer.state
    }
    _save(state, folder / OPTIMIZER)


def load_optimizer(optimizer: Any, weights: Weights, folder: Path) -> None:
    """The inverse of `save_optimizer`."""
    tensors = load_file(folder / OPTIMIZER)
    for name, weight in weights.items():
        parts = {moment: tensors[f"{name}/{moment}"] for moment in MOMENTS if f"{name}/{moment}" in tensors}
        if parts:
            optimizer.state[weight] = {
                moment: part.to(weight.device) if moment == "step" else _spread_like(part, weight)
                for moment, part in parts.items()
            }


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor gathered from all processes; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    gathered = {name: whole(tensor).contiguous() for name, tensor in tensors.items()}
    if not dist.is_initialized() or dist.get_rank() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(gathered, file)


def _spread_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The share of a whole tensor that this process holds of `like`."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device)
