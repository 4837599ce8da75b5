"""Safetensors files written and read tensor by tensor, so that weights larger than the host's memory pass through it.

The format: the length of a JSON header as 8 bytes, the header (type, shape and place of each tensor), the tensors' bytes.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

TYPES = {"float64": "F64", "float32": "F32", "int32": "I32"}
Index = tuple[slice, ...]
"""The part of an array that a device holds."""


@jax.jit
def _layer(stacked: jax.Array, number: Any) -> jax.Array:
    layer: jax.Array = stacked[number]
    return layer


@dataclass(frozen=True)
class Tensor:
    """An array on devices, or one layer of it."""

    array: jax.Array
    layer: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, without that of the layers where it is one of them."""
        return self.array.shape if self.layer is None else self.array.shape[1:]

    @property
    def type(self) -> str:
        """What the format calls the type of its numbers."""
        return TYPES[str(self.array.dtype)]

    @property
    def num_bytes(self) -> int:
        """What it takes in a file."""
        return int(np.prod(self.shape)) * self.array.dtype.itemsize

    def on_host(self) -> "np.ndarray[Any, Any]":
        """Gathered from the devices."""
        return np.asarray(self.array if self.layer is None else _layer(self.array, self.layer))


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Writes the tensors, of which the host holds one at a time; a reader never sees half a file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.num_bytes
        header[name] = {"dtype": tensor.type, "shape": tensor.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    temporary = file.with_name(f".{file.name}")
    with open(temporary, "wb") as out:
        out.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors.values():
            out.write(np.ascontiguousarray(tensor.on_host()).data)
    temporary.replace(file)


def read_onto(
    sharding: Sharding, shape: tuple[int, ...], read: Callable[[Index], "np.ndarray[Any, Any]"]
) -> jax.Array:  # fmt: skip
    """An array so held by the devices; the host reads the part of one device at a time."""
    places: Any = sharding.addressable_devices_indices_map(shape)
    parts = [jax.device_put(read(index), device).block_until_ready() for device, index in places.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)
