"""Time, memory, and what an optimizer is handed, seen from outside: the same way for product and peer."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook


@dataclass(frozen=True)
class Cost:
    """Seconds of process-CPU time (all threads of the process) and of wall time."""

    cpu: float
    wall: float

    def per(self, amount: float) -> "Cost":
        """The cost of one of `amount` units."""
        return Cost(self.cpu / amount, self.wall / amount)


class Stopwatch:
    """Started when it is made; it waits for a GPU's work at both ends."""

    def __init__(self) -> None:
        _synchronize()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def cost(self) -> Cost:
        """What has been spent since."""
        _synchronize()
        return Cost(time.process_time() - self._cpu, time.perf_counter() - self._wall)


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def median_ratio(peer: Sequence[float], product: Sequence[float]) -> float:
    """The median over rounds of how many times as much the peer took."""
    return statistics.median(one / other for one, other in zip(peer, product, strict=True))


def peak_bytes() -> int:
    """The most memory this process has had, on the GPU if it uses one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Stepped(Exception):
    """Thrown through a training loop when its first optimizer step is done, which is all that is wanted of it."""


def first_step(train: Callable[[], Any], gradients: Path | None = None) -> Cost:
    """Runs `train` until its first optimizer step is done: the cost from its first forward pass on.

    Loading of data and model is not in it; gathering the step's batches is not either, of both sides. The gradients go
    to `gradients`, in the order of the optimizer's groups.
    """
    watch: Stopwatch | None = None
    cost: Cost | None = None

    def on_forward(module: torch.nn.Module, inputs: Any) -> None:
        nonlocal watch
        start.remove()
        watch = Stopwatch()

    def on_stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal cost
        assert watch is not None
        cost = watch.cost()
        if gradients is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            save_file({f"{i:06}": _gradient(weight) for i, weight in enumerate(weights)}, gradients)
        raise _Stepped

    start = register_module_forward_pre_hook(on_forward)
    end = register_optimizer_step_post_hook(on_stepped)
    try:
        train()
    except _Stepped:
        pass
    finally:
        start.remove()
        end.remove()
    if cost is None:
        raise RuntimeError("the training ended without an optimizer step")
    return cost


def _gradient(weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.detach().contiguous()


def gradient_difference(first: Path, second: Path) -> float:
    """L2 norm of the difference of two sets of gradients, over the norm of the second."""
    difference = total = 0.0
    with safe_open(first, "pt") as ours, safe_open(second, "pt") as theirs:
        if list(ours.keys()) != list(theirs.keys()):
            raise ValueError(f"{first.name} and {second.name} hold gradients of different weights")
        for name in ours.keys():  # noqa: SIM118 - the file is no mapping
            one, other = ours.get_tensor(name).double(), theirs.get_tensor(name).double()
            difference += float((one - other).square().sum())
            total += float(other.square().sum())
    return float((difference / total) ** 0.5)
