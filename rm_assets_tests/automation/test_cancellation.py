"""A run that is cancelled in the web UI ends with all its processes, and the next one goes on where it was."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rm_assets_tests.automation.deployment import SELECTOR, Deployment
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.processes import wait_for
from rm_assets_tests.tasks.conftest import TOY, Bench

LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p)
    { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename } }"

pytestmark = pytest.mark.slow


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A webserver with its code location; no daemon."""
    bench = Bench(tmp_path)
    bench.write_toy(40)
    save_causal(bench.folder / "recipes" / "base")
    bench.recipe(execution={**TOY["execution"], "save_every_steps": 5}, training={**TOY["training"], "num_epochs": 500})
    made = Deployment(tmp_path)
    try:
        made.start("code")
        made.start("webserver")
        yield made
    finally:
        made.end_all()


def launch(deployment: Deployment) -> str:
    execution = {"mode": "default", "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "toy"}]}}
    selector = {**SELECTOR, "pipelineName": "build_reward_model"}
    said = deployment.asked(LAUNCH, p={"selector": selector, "runConfigData": {}, **execution})["launchRun"]
    assert said["__typename"] == "LaunchRunSuccess", said
    return str(said["run"]["runId"])


def resumed(deployment: Deployment, instance: dg.DagsterInstance) -> str:
    """A new run, as soon as it trains on."""
    run_id = launch(deployment)
    wait_for(lambda: any("resuming after" in e.user_message for e in instance.all_logs(run_id)), 120)
    assert sum("nothing to do, made before" in entry.user_message for entry in instance.all_logs(run_id)) == 4
    return run_id


def test_a_cancelled_run_ends_with_all_its_processes_and_the_next_resumes(deployment: Deployment) -> None:
    def cancel(run_id: str) -> None:
        assert deployment.tasks() and deployment.workers()
        assert deployment.asked(TERMINATE, run=run_id)
        wait_for(lambda: instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED, 90)  # type: ignore[union-attr]
        wait_for(lambda: deployment.processes().keys() <= {server.pid for server in deployment.servers.values()}, 30)

    with deployment.instance() as instance:
        first = launch(deployment)
        wait_for(lambda: list((deployment.folder / "home").glob("reward_model/*/work/checkpoint-*/*")), 120)
        cancel(first)
        second = resumed(deployment, instance)
        deployment.kill("code")  # its run goes on, and nobody else can interrupt it
        deployment.start("code")
        cancel(second)
        resumed(deployment, instance)
