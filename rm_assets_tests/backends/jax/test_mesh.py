"""Several devices compute what one does, and each holds its share of the weights. They are virtual: parts of this processor."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

WITHIN = 1e-6
SHARES = {"1x1": 1.0, "4x1": 1.0, "1x4": 0.25, "2x2": 0.5, "2x2-1x4": 0.25}
"""Of weights and moments that are on a device, but for the vectors, which are on each."""


@pytest.mark.slow
def test_a_mesh_trains_and_scores_as_one_device_does(tmp_path: Path) -> None:
    """The last one goes on, on another mesh, from the state of a training that was stopped."""
    found = on_four_devices(tmp_path, *SHARES)
    one = found["1x1"]
    assert len(one["losses"]) == 15 and one["losses"][0] > 1.1 * one["losses"][-1]
    weights = {name: load_file(tmp_path / name / "model" / "model.safetensors") for name in found}
    for name, values in found.items():
        assert values["losses"] == pytest.approx(one["losses"], rel=0, abs=WITHIN)
        assert values["rewards"] == pytest.approx(one["rewards"], rel=0, abs=WITHIN)
        assert all((weights[name][key] - weight).abs().max() < WITHIN for key, weight in weights["1x1"].items())
        assert SHARES[name] <= values["share"] < SHARES[name] + 0.05


def on_four_devices(folder: Path, *meshes: str) -> dict[str, Any]:
    flags = "--xla_force_host_platform_device_count=4"
    command = [sys.executable, "-m", "rm_assets_tests.backends.jax.on_four_devices", str(folder), *meshes]
    done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
