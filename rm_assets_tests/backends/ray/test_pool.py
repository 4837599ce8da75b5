"""Workers of a real cluster of two nodes: shards are computed once each, whoever dies, and as one process would."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ray_shards import Runs, recipe
from rm_assets.backends.ray.pool import MOST_DEATHS
from rm_assets.resources.compute import Compute
from rm_assets_tests.backends.ray.planted_workers import NUM_PIECES
from rm_assets_tests.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.slow
NUM_PROMPTS, SHARD_PROMPTS = 900, 16
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RayCluster]:
    there = {"RM_ASSETS_CACHE": str(folder / "there"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    with ray_cluster((1, 1), there) as started:
        yield started


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_CACHE", str(folder / "here"))


def test_with_a_worker_killed_midway_nothing_is_lost_or_done_twice(cluster: RayCluster, folder: Path) -> None:
    on_ray = list(Runs(cluster, folder, NUM_PROMPTS, SHARD_PROMPTS).run(2, is_killed=True))
    by_one_process = Compute(home=str(folder / "home"))
    chosen = recipe(folder, {"kind": "local"}, NUM_PROMPTS, SHARD_PROMPTS)
    by_one_process.make_asset(chosen, "prompts", say=str, debug=str)
    for line in on_ray:
        print(line)
        assert (line["prompts"], line["rows_per_prompt"]) == (NUM_PROMPTS, [1])
        assert line["rows_in_shards"] == line["distinct_rows_in_shards"] == NUM_PROMPTS
        assert line["shards"] == -(-NUM_PROMPTS // SHARD_PROMPTS)
        assert line["workers_said"].endswith(", 1 died")
        # Two at most at a time; one where the first died before the second had begun.
        assert line["made_on"] in (["ray", "cpu", 1], ["ray", "cpu", 2])
        made = by_one_process.make_asset(chosen, line["asset"], say=str, debug=str)
        assert made.manifest.data_version == line["data_version"]


def begin(cluster: RayCluster, case: str, folder: Path) -> subprocess.Popen[str]:
    """A driver with a pool of planted workers."""
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "rm_assets_tests.backends.ray.planted_workers", case, str(folder)],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env={**os.environ, "RAY_ADDRESS": cluster.gcs, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def outcome(words: list[str]) -> str:
    """The last words but for Ray's."""
    return next(line for line in reversed(words) if line.startswith(("done", "refused")))


def said(cluster: RayCluster, case: str, folder: Path) -> list[str]:
    with begin(cluster, case, folder) as driver:
        words = driver.communicate(timeout=120)[0].splitlines()
    assert driver.returncode == 0
    return words


def test_a_worker_on_a_node_that_joins_takes_its_share(cluster: RayCluster, tmp_path: Path) -> None:
    with begin(cluster, "joining", tmp_path / "joining") as driver:
        assert driver.stdout is not None
        lines = iter(driver.stdout.readline, "")
        assert next(line for line in lines if line.startswith("worker 2 begins"))  # of three: the cluster has two CPUs
        cluster.join(1)
        assert next(line for line in lines if line.startswith("worker 3 begins"))
        (tmp_path / "joining" / "joined").touch()
        rest = list(lines)
    doubled = [(number, 2 * number) for number in range(NUM_PIECES)]
    assert rest[-3:] == [
        f"done {doubled} {NUM_PIECES} True\n", "3 workers began, 0 died\n", "worked on {'device': 'toy', 'num_devices': 3}\n"
    ]  # fmt: skip


def test_workers_that_die_again_and_again_are_given_up(cluster: RayCluster, tmp_path: Path) -> None:
    words = said(cluster, "deadly", tmp_path / "deadly")
    assert outcome(words) == "refused TASK_001 TaskError"
    assert sum(line.startswith("a worker died") for line in words) == MOST_DEATHS - 1


def test_what_a_model_refuses_arrives_as_it_is(cluster: RayCluster, tmp_path: Path) -> None:
    assert outcome(said(cluster, "broken", tmp_path / "broken")) == "refused MODEL_006 ModelError"


def test_workers_that_compute_differently_are_refused(cluster: RayCluster, tmp_path: Path) -> None:
    assert outcome(said(cluster, "unlike", tmp_path / "unlike")) == "refused EXECUTOR_003 ExecutorError"


def test_a_cluster_without_room_for_any_worker_is_said(cluster: RayCluster, tmp_path: Path) -> None:
    with begin(cluster, "no room", tmp_path / "no room") as driver:
        assert driver.stdout is not None
        assert next(line for line in driver.stdout if line.startswith("waiting: no worker has begun"))
        driver.kill()
