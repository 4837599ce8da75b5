"""On which devices JAX computes, and what of an array each of them holds.

The devices are a mesh with two axes, also where there is one device. Both axes divide the rows of a forward pass; the
second divides each weight, its gradient and its moments too (fully sharded data parallelism).
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rm_assets.backends.machine import available_memory
from rm_assets.backends.room import NO_LIMIT, Room
from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import ExecutionSection, JaxMesh

AXES = DATA, FSDP = ("data", "fsdp")
P: Any = PartitionSpec  # JAX has no types for these two
constrain: Any = jax.lax.with_sharding_constraint
LAYERS = "layers"
"""Where a tree of weights, gradients or moments holds those of the layers, stacked."""
USED: set[jax.Device] = set()
"""The devices of all meshes that this process has made."""


def make_mesh(execution: ExecutionSection) -> Mesh:
    """The devices that `execution.device` and `execution.jax_mesh` name.

    "auto" takes what JAX finds first, which is a TPU or GPU where there is one. Without a mesh that is one device on a
    CPU, and of other devices all that this process sees, along `fsdp`.
    Raises: RecipeError RECIPE_003 if they are not there.
    """
    found = _devices(execution.device)
    wanted = execution.jax_mesh or JaxMesh(fsdp=1 if found[0].platform == "cpu" else len(found))
    size = wanted.data * wanted.fsdp
    if size > len(found):
        raise RecipeError(
            "RECIPE_003",
            f"execution.jax_mesh asks for {wanted.data} x {wanted.fsdp} devices, but JAX sees {len(found)}: {found[0].device_kind}",
            fix="lower data or fsdp, or remove jax_mesh",
        )
    USED.update(found[:size])
    # jax.make_mesh has axes of another kind, which leave no sharding to the compiler.
    return Mesh(np.array(found[:size]).reshape(wanted.data, wanted.fsdp), AXES)


def _devices(name: str) -> list[jax.Device]:
    if name == "auto":
        return jax.devices()
    try:
        return jax.devices(name)
    except RuntimeError as error:
        raise RecipeError(
            "RECIPE_003",
            f"execution.device is '{name}', but JAX {jax.__version__} sees no such device here",
            fix="set execution.device to auto or cpu, or install a JAX built for the device",
        ) from error


def platform(mesh: Mesh) -> str:
    """cpu, gpu or tpu."""
    return str(mesh.devices.flat[0].platform)


def name_of(mesh: Mesh) -> str:
    """What a person calls the devices, with their number."""
    kind = str(mesh.devices.flat[0].device_kind)
    return kind if mesh.size == 1 else f"{mesh.shape[DATA]} x {mesh.shape[FSDP]} {kind}"


def room_on(mesh: Mesh) -> Room:
    """What one device has for its part of a model; devices of a CPU are all in the memory of this machine."""
    device = mesh.devices.flat[0]

    def free(given_back: bool) -> int:
        if device.platform == "cpu":
            known = available_memory()
            return NO_LIMIT if known is None else known
        stats = device.memory_stats() or {}
        return int(stats["bytes_limit"] - stats["bytes_in_use"]) if "bytes_limit" in stats else NO_LIMIT

    return Room(name_of(mesh), free, num_parts=1 if device.platform == "cpu" else int(mesh.shape[FSDP]))


def by_rows(mesh: Mesh) -> NamedSharding:
    """Each device holds a part of the rows."""
    return NamedSharding(mesh, P(AXES))


def shardings(mesh: Mesh, tree: Any) -> Any:
    """How weights, gradients or moments lie on the mesh, as a tree like the given one."""
    return jax.tree.map_with_path(lambda path, leaf: _sharding(mesh, jax.tree_util.keystr(path), leaf.shape), tree)


def sharded(mesh: Mesh, tree: Any) -> Any:
    """Inside of what is compiled: the tree so held on the mesh, and nowhere as a whole."""
    return constrain(tree, shardings(mesh, tree))


def _sharding(mesh: Mesh, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """A matrix is divided along its first dimension that divides evenly, vectors and numbers are on every device."""
    first, num_parts = (1 if f"['{LAYERS}']" in path else 0), mesh.shape[FSDP]
    axis = next((axis for axis in range(first, len(shape)) if shape[axis] % num_parts == 0), None)
    # What is in one part is called whole: XLA gives it back so, and would compile again for another name.
    if num_parts == 1 or len(shape) - first == 1 or axis is None:
        return NamedSharding(mesh, P())
    return NamedSharding(mesh, P(*[None] * axis, FSDP))
