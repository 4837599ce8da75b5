"""On what a task has worked, as its manifest says it."""

import sys
from typing import Any


def used_devices(num_devices: int) -> dict[str, Any]:
    """`device` and `num_devices`: the GPU by its product name, `mps`, an accelerator of JAX, else `cpu`.

    A GPU counts where this process has had memory on it; `num_devices` is how many of them a training has, of JAX those of its mesh.
    Asks only libraries that are loaded already.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"device": torch.cuda.get_device_name(), "num_devices": num_devices}
    if torch is not None and torch.backends.mps.is_available() and torch.mps.driver_allocated_memory():
        return {"device": "mps", "num_devices": 1}
    if used := _accelerators_of_jax():
        return {"device": used[0].device_kind, "num_devices": len(used)}
    return {"device": "cpu", "num_devices": 1}


def peak_memory() -> int | None:
    """Most bytes in use so far on one device, on a CPU resident ones; None where that is not known."""
    if used := _accelerators_of_jax():
        return (used[0].memory_stats() or {}).get("peak_bytes_in_use")
    from rm_assets.backends.torch import step_profile

    return step_profile.peak_memory() or None


def _accelerators_of_jax() -> list[Any]:
    jax: Any = sys.modules.get("rm_assets.backends.jax.devices")
    return [device for device in jax.USED if device.platform != "cpu"] if jax is not None else []
