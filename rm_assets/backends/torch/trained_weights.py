"""Trained weights and the optimizer's moments as safetensors, whole on disk however many processes hold them.

One tensor at a time is whole on a device. A process reads of a file only the share that it holds.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, Shard

from rm_assets.backends.training_progress import Misfit

WEIGHTS, OPTIMIZER = "weights.safetensors", "optimizer.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Weights = dict[str, torch.nn.Parameter]


def save_weights(weights: Weights, file: Path) -> None:
    """Writes the weights; every process has to call it, the first one writes."""
    _save(((name, weight.detach()) for name, weight in weights.items()), file)


def load_weights(weights: Weights, file: Path) -> None:
    """The inverse of `save_weights`, on any number of processes.

    Raises: Misfit, before a weight is changed.
    """
    with _opened(file, _shapes(weights)) as saved, torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(_share(saved, name, weight))


def save_optimizer(optimizer: Any, weights: Weights, file: Path) -> None:
    """Writes AdamW's state under the names of the weights; every process has to call it."""
    _save(_moments(optimizer, weights), file)


def load_optimizer(optimizer: Any, weights: Weights, file: Path) -> None:
    """The inverse of `save_optimizer`.

    Raises: Misfit, before the optimizer is changed.
    """
    with _opened(file, _moment_shapes(weights)) as saved:
        for name, weight in weights.items():
            step, *averages = (f"{name}/{moment}" for moment in MOMENTS)
            parts = [
                saved.get_tensor(step).to(weight.device, copy=True),
                *(_share(saved, key, weight) for key in averages),
            ]
            optimizer.state[weight] = dict(zip(MOMENTS, parts, strict=True))


def check(weights: Weights, weights_file: Path, optimizer_file: Path) -> None:
    """Raises Misfit if one of the files lacks a tensor, has another one, or one of another shape; loads nothing."""
    for file, shapes in ((weights_file, _shapes(weights)), (optimizer_file, _moment_shapes(weights))):
        with _opened(file, shapes):
            pass


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor gathered from all processes; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _moments(optimizer: Any, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in weights.items():
        # AdamW begins a weight that never had a gradient at zeros, so every weight has its moments on disk.
        state = optimizer.state.get(weight) or {"step": torch.zeros(())}
        for moment in MOMENTS:
            yield f"{name}/{moment}", state[moment] if moment in state else torch.zeros_like(weight)


def _save(tensors: Iterable[tuple[str, torch.Tensor]], file: Path) -> None:
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    gathered = {}
    for name, tensor in tensors:
        full = whole(tensor)
        if is_first:
            gathered[name] = full.detach().cpu().contiguous()
    if is_first:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}")
        save_file(gathered, temporary)
        temporary.replace(file)


def _shapes(weights: Weights) -> dict[str, list[int]]:
    return {name: list(weight.shape) for name, weight in weights.items()}


def _moment_shapes(weights: Weights) -> dict[str, list[int]]:
    shapes = _shapes(weights)
    return {f"{name}/{m}": [] if m == "step" else shape for name, shape in shapes.items() for m in MOMENTS}


@contextmanager
def _opened(file: Path, shapes: Mapping[str, list[int]]) -> Iterator[Any]:
    """A file of tensors of exactly these names and shapes."""
    try:
        opened: Any = safe_open(file, framework="pt")
    except (FileNotFoundError, SafetensorError) as error:
        raise Misfit(f"{file.name} cannot be read: {error}") from error
    with opened as saved:
        found = {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118 - no mapping
        differing = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        if differing:
            raise Misfit(f"{file.name} and the model differ in {', '.join(differing[:3])}")
        yield saved


def _share(saved: Any, name: str, like: torch.Tensor) -> torch.Tensor:
    """What this process holds of a saved tensor, spread as `like` is; a copy, which does not keep the file in use."""
    tensor: torch.Tensor = saved.get_tensor(name)
    if not isinstance(like, DTensor):
        return tensor.to(like.device, copy=True)
    mesh = like.device_mesh
    assert like.placements == (Shard(0),), "weights are cut along their first dimension"
    first = mesh.get_local_rank() * -(-len(tensor) // mesh.size())
    # The file is mapped into memory, so only these rows are read.
    local = tensor[first : first + len(like.to_local())].to(like.device, copy=True)
    return DTensor.from_local(
        local, mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )  # fmt: skip
