"""Cost grows with the work in time alone: twenty times the pairs take twenty times as long and the same memory."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.growth import in_fresh_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it"),
]
FEW, MANY = 1_000, 20_000


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """What pairing and training cost with few and with many pairs."""
    found = {}
    for num_pairs in (FEW, MANY):
        folder: Path = tmp_path_factory.mktemp(str(num_pairs))
        in_fresh_process("write", num_pairs, folder)
        for stage in ("pair", "train"):
            found[stage, num_pairs] = in_fresh_process(stage, num_pairs, folder)
    return found


@pytest.mark.parametrize("stage", ["pair", "train"])
def test_peak_memory_does_not_grow_with_the_number_of_pairs(
    stage: str, costs: dict[tuple[str, int], dict[str, Any]]
) -> None:
    few, many = (costs[stage, n]["peak_above_baseline_mb"] for n in (FEW, MANY))
    assert many <= 1.2 * few, f"{few} MB became {many} MB"


@pytest.mark.parametrize("stage", ["pair", "train"])
def test_a_pair_costs_no_more_time_among_many(stage: str, costs: dict[tuple[str, int], dict[str, Any]]) -> None:
    few, many = (costs[stage, n]["cpu_seconds"] / costs[stage, n]["num_pairs"] for n in (FEW, MANY))
    assert many <= 1.5 * few, f"{few * 1e6:.0f} microseconds a pair became {many * 1e6:.0f}"
