"""Where models run: the device that a recipe asks for, and the GPUs that PyTorch sees."""

from dataclasses import dataclass

import torch

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import SMALL_BATCHES


@dataclass(frozen=True)
class Gpu:
    """A GPU by its product name, with its memory in bytes, and whether it computes in bfloat16."""

    name: str
    total_bytes: int
    free_bytes: int
    has_bfloat16: bool


def gpus() -> list[Gpu]:
    """The GPUs that PyTorch sees: CUDA's (ROCm's go by that name, too), else that of Apple Silicon."""
    if torch.cuda.is_available():
        return [_cuda_gpu(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        return [Gpu("mps", total, total - torch.mps.driver_allocated_memory(), has_bfloat16=True)]
    return []


def _cuda_gpu(index: int) -> Gpu:
    free, total = torch.cuda.mem_get_info(index)
    properties = torch.cuda.get_device_properties(index)
    return Gpu(properties.name, total, free, has_bfloat16=properties.major >= 8)


def pick_device(name: str) -> torch.device:
    """The device that `execution.device` names; "auto" takes a GPU if there is one.

    Raises: RecipeError RECIPE_003 if the named device is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_present in present.items() if is_present)
    if not present[name]:
        raise RecipeError(
            "RECIPE_003",
            f"execution.device is '{name}', but PyTorch {torch.__version__} sees no such device here",
            fix="set execution.device to auto or cpu, or install a PyTorch built for the device",
        )
    return torch.device(name)


def takes_small_batches(device: torch.device) -> bool:
    """Whether a forward pass has few tokens unless the recipe says how many: a CPU is fastest near its caches, and an
    Apple GPU shares its memory with all else on the machine."""
    return device.type in SMALL_BATCHES


def device_name(device: torch.device, num_processes: int = 1) -> str:
    """What a person calls the device: the GPU's product name, else PyTorch's name; with the number of processes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if num_processes == 1 else f"{num_processes} x {name}"
