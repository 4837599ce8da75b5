"""On what a task has worked, as its manifest says it."""

import sys
from typing import Any


def used_devices(num_devices: int) -> dict[str, Any]:
    """`device` and `num_devices`: the GPU by its product name, `mps`, an accelerator of JAX, else `cpu`.

    A GPU counts where this process has had memory on it; `num_devices` is how many of them a training has, of JAX all that are seen.
    Asks only libraries that are loaded already.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"device": torch.cuda.get_device_name(), "num_devices": num_devices}
    if torch is not None and torch.backends.mps.is_available() and torch.mps.driver_allocated_memory():
        return {"device": "mps", "num_devices": 1}
    jax: Any = sys.modules.get("jax")
    if jax is not None and jax.default_backend() != "cpu":
        return {"device": jax.devices()[0].device_kind, "num_devices": jax.device_count()}
    return {"device": "cpu", "num_devices": 1}
