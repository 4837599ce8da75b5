"""Dagster's own commands, with nothing set but DAGSTER_HOME and where recipes and results lie."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parent.parent
DAGSTER = str(Path(sys.executable).parent / "dagster")
RECIPE = """
extends: embedded
prompts: {{source: {{kind: generator, num_prompts: {num_prompts}}}, split: {{train: 0.5, validation: 0, test: 0.5}}}}
sampling: {{num_responses: 2, max_new_tokens: 24}}
training: {{max_optimizer_steps: 2}}
gate: # two steps make no model that is worth a release
  match_rate_is_high: {{severity: warn}}
  confidence_is_calibrated: {{severity: warn}}
  length_is_not_the_reason: {{severity: warn}}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "recipes").mkdir()
    for name, num_prompts in (("tiny", 24), ("mine", 28)):
        (tmp_path / "recipes" / f"{name}.yaml").write_text(RECIPE.format(num_prompts=num_prompts))
    (tmp_path / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster")
    return os.environ | {
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "RM_ASSETS_HOME": str(tmp_path / "store"),
        "RM_ASSETS_RECIPES": str(tmp_path / "recipes"),
        "OMP_NUM_THREADS": "1",
    }


def dagster(*arguments: str, environment: dict[str, str]) -> str:
    result = subprocess.run(
        [DAGSTER, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_definitions_validate(environment: dict[str, str]) -> None:
    assert "rm_assets" in dagster("definitions", "validate", "-w", "workspace.yaml", environment=environment)


@pytest.mark.slow
def test_job_execute_and_asset_materialize_build_one_recipe(environment: dict[str, str], tmp_path: Path) -> None:
    module = ("-m", "rm_assets.definitions")
    dagster(
        "job",
        "execute",
        *module,
        "-j",
        "build_reward_model",
        "--tags",
        '{"dagster/partition": "tiny"}',
        environment=environment,
    )
    releases = list((tmp_path / "store" / "hub_release").glob("*/release/model.safetensors"))
    assert len(releases) == 1
    said = dagster("asset", "materialize", "--select", "*", *module, "--partition", "tiny", environment=environment)
    assert said.count("nothing to do") == 7 and " starts" not in said.split("ENGINE_EVENT")[-1]
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        records = instance.fetch_materializations(dg.AssetKey("sampled_responses"), limit=2).records
        computed = [
            r.asset_materialization.metadata["work/responses_sampled"].value for r in records if r.asset_materialization
        ]
    assert computed == [0, 48]


@pytest.mark.slow
def test_backfill_of_two_recipes_finishes_without_a_daemon(environment: dict[str, str], tmp_path: Path) -> None:
    dagster(
        "job",
        "backfill",
        "-w",
        "workspace.yaml",
        "-j",
        "build_reward_model",
        "--partitions",
        "tiny,mine",
        "--noprompt",
        environment=environment,
    )
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        runs = {run.tags["dagster/partition"]: run for run in instance.get_runs()}
        assert set(runs) == {"tiny", "mine"}
        from time import monotonic, sleep

        end = monotonic() + 240
        while monotonic() < end and not all(instance.get_run_by_id(r.run_id).is_finished for r in runs.values()):  # type: ignore[union-attr]
            sleep(1)
        assert {instance.get_run_by_id(r.run_id).status for r in runs.values()} == {dg.DagsterRunStatus.SUCCESS}  # type: ignore[union-attr]
    recipes = {
        json.loads(m.read_text())["recipe"] for m in (tmp_path / "store" / "hub_release").glob("*/manifest.json")
    }
    assert recipes == {"tiny", "mine"}


@pytest.mark.slow
def test_a_killed_run_does_not_block_the_next_one(environment: dict[str, str], tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "rm-assets", "run", "tiny"]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "task sample starts" in line:
            break
    first.kill()
    first.communicate()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    assert list((tmp_path / "store" / "hub_release").glob("*/manifest.json"))
