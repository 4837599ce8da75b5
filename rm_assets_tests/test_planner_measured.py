"""The planner against real task processes, at sizes where the model's memory is most of it.

One setting by default; with RM_ASSETS_QUIET_MACHINE=1 the others as well, of two shapes, and what a probe says, which other work falsifies.
"""

import os
import sys

import pytest

from benchmarks.planner import RETURNED, measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it"),
]
MEMORY, TIME = 0.15, 1.5
"""The largest share by which memory may be off, and the largest factor between times."""
IS_QUIET = os.environ.get("RM_ASSETS_QUIET_MACHINE") == "1"
SETTINGS = {"qwen3": ["kept", "lora"], "llama": ["recomputed", "score"]}


@pytest.mark.parametrize(("shape", "settings"), SETTINGS.items() if IS_QUIET else [("qwen3", ["kept"])])
def test_the_planned_memory_is_what_a_task_takes(shape: str, settings: list[str]) -> None:
    ratios = {line["setting"]: line["ratio"] for line in measured([shape], settings, RETURNED)}
    assert all(abs(ratio - 1) <= MEMORY for ratio in ratios.values()), ratios


@pytest.mark.skipif(not IS_QUIET, reason="RM_ASSETS_QUIET_MACHINE=1 says that nothing else runs here")
@pytest.mark.parametrize("setting", ["probed", "probed-lora"])
def test_after_a_probe_time_and_memory_are_what_a_training_takes(setting: str) -> None:
    time, memory = measured(["llama-wide"], [setting], RETURNED)
    assert 1 / TIME <= time["ratio"] <= TIME, time
    assert abs(memory["ratio"] - 1) <= MEMORY, memory
