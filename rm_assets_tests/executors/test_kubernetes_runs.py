"""Whole runs on Kubernetes, by Dagster's launcher as docs/deploying.md has it, on a stand-in of the cluster."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher

from rm_assets_tests.executors.conftest import REPOSITORY
from rm_assets_tests.executors.fake_kubernetes import FakeKubernetes, serving_kubernetes
from rm_assets_tests.processes import wait_for
from rm_assets_tests.test_dagster_commands import DAGSTER, RECIPE


def documented() -> dict[str, Any]:
    """The instance's lines that docs/deploying.md shows."""
    text = (REPOSITORY / "docs" / "deploying.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(run_launcher:.*?)```", text, re.S)
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def is_valid(config: dict[str, Any]) -> bool:
    return bool(process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config).success)


def test_the_documented_launcher_is_as_dagster_wants_it() -> None:
    config = documented()["run_launcher"]["config"]
    assert is_valid(config)
    assert not is_valid(config | {"image": "rm-assets"})
    assert not is_valid({key: value for key, value in config.items() if key != "instance_config_map"})


@pytest.fixture
def cluster(there: dict[str, str], tmp_path: Path) -> Iterator[FakeKubernetes]:
    image = there | {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "RM_ASSETS_HOME": (tmp_path / "bucket").as_uri(),
        "RM_ASSETS_RECIPES": str(tmp_path / "recipes"), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    with serving_kubernetes(image, {"rm-assets": []}) as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        yield server


@pytest.mark.slow
def test_a_run_is_a_job_that_builds_the_recipe(cluster: FakeKubernetes, tmp_path: Path) -> None:
    for name in ("recipes", "dagster"):
        (tmp_path / name).mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(RECIPE.format(num_prompts=24))
    instance_file = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text("utf-8")) | documented()
    instance_file["run_launcher"]["config"] |= {
        "load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig"),
    }  # fmt: skip
    (tmp_path / "dagster" / "dagster.yaml").write_text(yaml.safe_dump(instance_file))
    here = cluster.image | {"DAGSTER_HOME": str(tmp_path / "dagster"), "RM_ASSETS_CACHE": str(tmp_path / "cache_here")}
    tags = '{"dagster/partition": "tiny"}'
    subprocess.run(
        [DAGSTER, "job", "launch", "-m", "rm_assets.definitions", "-j", "build_reward_model", "--tags", tags],
        check=True, capture_output=True, cwd=REPOSITORY, env=os.environ | here,
    )  # fmt: skip
    (job,) = cluster.created
    assert job["metadata"]["labels"]["dagster/job"] == "build_reward_model"
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        wait_for(lambda: instance.get_runs()[0].is_finished, 240, "the end of the run")
        assert instance.get_runs()[0].status == dg.DagsterRunStatus.SUCCESS
    assert len(list((tmp_path / "bucket").glob("manifests/*/*.json"))) == 7
