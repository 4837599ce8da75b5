"""On what a task has worked, by the libraries that it has loaded."""

import sys
from typing import Any

import jax
import pytest

from rm_assets.backends.jax import devices
from rm_assets.core.recipe import ExecutionSection
from rm_assets.tasks.used_devices import peak_memory, used_devices


class Chip:
    def __init__(self, platform: str) -> None:
        self.platform, self.device_kind = platform, f"a {platform}"

    def memory_stats(self) -> dict[str, int]:
        return {"peak_bytes_in_use": 12}


def chips(number: int, platform: str = "tpu") -> list[Chip]:
    return [Chip(platform) for _ in range(number)]


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ({}, {"device": "a tpu", "num_devices": 8}),
        ({"jax_mesh": {"data": 2, "fsdp": 2}}, {"device": "a tpu", "num_devices": 4}),
        ({"device": "cpu"}, {"device": "cpu", "num_devices": 1}),
    ],
)
def test_jax_has_worked_on_the_devices_of_its_mesh(
    monkeypatch: pytest.MonkeyPatch, execution: dict[str, Any], said: dict[str, Any]
) -> None:
    monkeypatch.setattr(devices, "USED", set())
    monkeypatch.setattr(devices, "Mesh", lambda grid, axes: grid)
    monkeypatch.setattr(jax, "devices", lambda kind="tpu": chips(1 if kind == "cpu" else 8, kind))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    devices.make_mesh(ExecutionSection.model_validate(execution))
    assert used_devices(1) == said
    assert (peak_memory() == 12) == (said["device"] == "a tpu")


def test_a_task_without_jax_has_worked_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rm_assets.backends.jax.devices")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert used_devices(1) == {"device": "cpu", "num_devices": 1}
