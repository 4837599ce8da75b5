"""The whole graph with a Ray cluster of two nodes: every task a job of it, and a whole run a job of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from rm_assets_tests.processes import wait_for
from rm_assets_tests.ray_cluster import RayCluster, ray_cluster
from rm_assets_tests.test_dagster_commands import RECIPE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes, an instance of Dagster, and a store at a URL."""
    made = tmp_path_factory.mktemp("ray")
    for name in ("recipes", "dagster"):
        (made / name).mkdir()
    shutil.copy(ROOT / "dagster.yaml", made / "dagster")
    return made


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """Here and on the nodes."""
    return os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        "DAGSTER_HOME": str(folder / "dagster"), "RM_ASSETS_RECIPES": str(folder / "recipes"),
        "RM_ASSETS_HOME": (folder / "bucket").as_uri(), "RM_ASSETS_CACHE": str(folder / "here"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[RayCluster]:
    with ray_cluster((1, 1), {**environment, "RM_ASSETS_CACHE": str(folder / "there")}) as started:
        yield started


def jobs(cluster: RayCluster) -> dict[str, str]:
    """The status of each job of ours by its task, and of a run as "run"."""
    from ray.job_submission import JobSubmissionClient

    found = [job for job in JobSubmissionClient(cluster.address).list_jobs() if "-" in (job.submission_id or "")]
    return {job.submission_id.split("-")[1]: str(job.status.value) for job in found}


def test_every_task_of_a_recipe_is_a_job(cluster: RayCluster, environment: dict[str, str], folder: Path) -> None:
    executor = f"execution: {{executor: {{kind: ray, address: '{cluster.address}', workers: 2}}}}\n"
    (folder / "recipes" / "spread.yaml").write_text(RECIPE.format(num_prompts=24) + executor)
    run = subprocess.run(
        [BIN / "rm-assets", "run", "spread"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    tasks = ("ingest", "sample", "score", "pair", "train", "evaluate", "release")
    assert jobs(cluster) == dict.fromkeys(tasks, "SUCCEEDED")
    assert len(list((folder / "bucket").glob("files/hub_release/*/*/release/model.safetensors"))) == 1


def test_a_whole_run_is_a_job(cluster: RayCluster, environment: dict[str, str], folder: Path) -> None:
    """With the launcher as the documentation has it."""
    (folder / "recipes" / "tiny.yaml").write_text(RECIPE.format(num_prompts=28))
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "executors.md").read_text("utf-8"), re.DOTALL)
    (launcher,) = (block for block in blocks if "RayRunLauncher" in block)
    launcher = launcher.replace("http://head:8265", cluster.address)
    assert yaml.safe_load(launcher)["run_launcher"]["config"]["ray"]["address"] == cluster.address
    with open(folder / "dagster" / "dagster.yaml", "a") as instance_file:
        instance_file.write(launcher)
    subprocess.run(
        [
            BIN / "dagster", "job", "backfill", "-w", "workspace.yaml", "-j", "build_reward_model",
            "--partitions", "tiny", "--noprompt",
        ],
        cwd=ROOT, env=environment, check=True,
    )  # fmt: skip
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "tiny"}))
        wait_for(lambda: instance.get_run_by_id(run.run_id).is_finished, 400, "the run")  # type: ignore[union-attr]
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None and ended.status == dg.DagsterRunStatus.SUCCESS
    wait_for(lambda: jobs(cluster)["run"] == "SUCCEEDED", 60, "the end of the job")
