"""Tasks as custom jobs on a stand-in of Vertex AI, and the jobs themselves held to Google's description of its API."""

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line
from rm_assets.core.recipe import VertexExecutor
from rm_assets.executors import vertex
from rm_assets.executors.output import TaskOutput
from rm_assets.executors.remote import Order
from rm_assets.executors.vertex import VertexTask, job_of, start_on_vertex
from rm_assets_tests.executors.fake_vertex import FakeVertex, refusal
from rm_assets_tests.processes import wait_for

NAME = "rm-script-0123456789abcdef"
SECTION = {
    "kind": "vertex",
    "project": "research",
    "region": "europe-west4",
    "image": "europe-docker.pkg.dev/r/i@sha256:1",
}
EVERYTHING: dict[str, Any] = {
    "machine": "g2-standard-24", "accelerator": "NVIDIA_L4", "num_accelerators": 2, "disk_gb": 200, "spot": True,
    "service_account": "trainer@research.iam.gserviceaccount.com", "usd_per_hour": 2.0,
}  # fmt: skip
SECTIONS = {"least": {}, "gpus": EVERYTHING, "tpu": {"machine": "ct5lp-hightpu-4t", "tpu_topology": "2x2"}}


@pytest.fixture
def cloud(vertex_cloud: FakeVertex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeVertex:
    for name, value in vertex_cloud.environment(tmp_path / "key.json").items():
        monkeypatch.setenv(name, value)
    return vertex_cloud


class Ran:
    """What a task said, and how it ended."""

    def __init__(self, code: str, while_it_runs: Callable[[VertexTask], None] = lambda task: None, **section: Any):
        self.said: list[str] = []
        executor = VertexExecutor.model_validate(SECTION | section)
        with start_on_vertex(executor, Order("script", code, NAME, None, self.said.append)) as task:
            while_it_runs(task)
            self.lines = [line for line in task.lines() if line != event_line(event="waiting")]
            self.status = task.status()


def error_of(code: str = "print()", **section: Any) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        Ran(code, **section)
    return caught.value


def job(timeout_seconds: float | None = None, **section: Any) -> dict[str, Any]:
    executor = VertexExecutor.model_validate(SECTION | section)
    return job_of(executor, Order("train", "gs://b/r.json", "rm-train-0123456789abcdef", timeout_seconds, print))


def unknown(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str = "") -> list[str]:
    """What a schema of a discovery document does not know in `value`, or knows as of another type."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if schema["type"] == "object" and "properties" in schema:
        inner = schema["properties"]
        found = [f"{where}.{key}" for key in value if key not in inner or inner[key].get("readOnly")]
        known = [key for key in value if key in inner]
        return found + [bad for key in known for bad in unknown(value[key], inner[key], schemas, f"{where}.{key}")]
    if schema["type"] == "array":
        return [bad for one in value for bad in unknown(one, schema["items"], schemas, f"{where}[]")]
    types = {"string": str, "integer": int, "boolean": bool, "object": dict}
    is_known = isinstance(value, types[schema["type"]]) and value in schema.get("enum", [value])
    return [] if is_known else [where]


@pytest.mark.skipif(
    importlib.util.find_spec("googleapiclient") is None,
    reason="needs google-api-python-client, which holds the description of the API",
)
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_job_is_as_google_describes_its_api(section: dict[str, Any]) -> None:
    found = importlib.util.find_spec("googleapiclient")
    assert found and found.submodule_search_locations
    file = Path(found.submodule_search_locations[0]) / "discovery_cache" / "documents" / "aiplatform.v1.json"
    schemas = json.loads(file.read_text("utf-8"))["schemas"]
    schema = schemas["GoogleCloudAiplatformV1CustomJob"]
    made = job(600, **section)
    assert unknown(made, schema, schemas) == []
    made["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]["accelerators"] = 1
    made["jobSpec"]["scheduling"]["strategy"] = "CHEAP"
    made["state"] = "JOB_STATE_RUNNING"
    assert unknown(made, schema, schemas) == [
        ".state", ".jobSpec.workerPoolSpecs[].machineSpec.accelerators", ".jobSpec.scheduling.strategy",
    ]  # fmt: skip


def test_everything_that_is_asked_for_is_in_the_job() -> None:
    assert job(600.5, **EVERYTHING) == {
        "displayName": "rm-train-0123456789abcdef",
        "labels": {"rm-assets-task": "train"},
        "jobSpec": {
            "serviceAccount": "trainer@research.iam.gserviceaccount.com",
            "scheduling": {"disableRetries": True, "strategy": "SPOT", "timeout": "4201s"},
            "workerPoolSpecs": [{
                "machineSpec": {"machineType": "g2-standard-24", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2},
                "replicaCount": "1",
                "diskSpec": {"bootDiskSizeGb": 200},
                "containerSpec": {
                    "imageUri": "europe-docker.pkg.dev/r/i@sha256:1",
                    "command": ["python", "-m", "rm_assets.tasks.train", "gs://b/r.json"],
                },
            }],
        },
    }  # fmt: skip


def test_a_job_is_submitted_watched_and_its_cost_said(cloud: FakeVertex) -> None:
    cloud.page_size = 7
    ran = Ran("for n in range(30): print('line', n)\nprint('end', end='')", usd_per_hour=7200.0)
    assert (ran.lines, ran.status) == ([*(f"line {n}" for n in range(30)), "end"], 0)
    name = cloud.jobs[0].json["name"]
    assert ran.said[:3] == [f"the custom job {name}", "custom job: running", "custom job: succeeded"]
    assert ran.said[3].startswith("n1-standard-8 for ") and "about $" in ran.said[3]


def test_entries_that_come_late_are_given_once(cloud: FakeVertex) -> None:
    cloud.wrong.log_delay = 0.5
    ran = Ran("import time\nfor n in range(20):\n    print(n, flush=True)\n    time.sleep(0.05)")
    assert ran.lines == [str(n) for n in range(20)]


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_the_exit_status_is_read_from_the_jobs_words(cloud: FakeVertex, code: str, status: int) -> None:
    ran = Ran(code)
    assert ran.status == status and any("workerpool0-0 exited" in line for line in ran.said)


@pytest.mark.parametrize(
    ("state", "message", "status"),
    [
        ("FAILED", "The replica workerpool0-0 exited with a non-zero status of 255. Termination reason: Error.", 255),
        ("FAILED", "The replica workerpool0-0 ran out of memory and exited with a non-zero status of 1.", -9),
        ("FAILED", "Internal error occurred for the current attempt", 1),
        ("EXPIRED", "", -9),
    ],
)
def test_other_ends_are_told_by_googles_words(state: str, message: str, status: int) -> None:
    ended = {"createTime": "", "state": f"JOB_STATE_{state}", "error": {"code": 3, "message": message}}
    order = Order("script", "", NAME, None, print)
    task = VertexTask(None, ended, VertexExecutor.model_validate(SECTION), order)  # type: ignore[arg-type]
    assert task.status() == status


def test_a_cancelled_job_ends_its_process(cloud: FakeVertex) -> None:
    ran = Ran("import time; time.sleep(60)", lambda task: task.end())
    assert ran.status == -9 and cloud.jobs[0].json["state"] == "JOB_STATE_CANCELLED"
    ran = Ran("print()", lambda task: list(task.states()) and task.end())
    assert ran.status == 0  # and a job that has ended is not asked to end
    assert cloud.asked.count("cancel") == 1


def test_a_failing_listener_cancels_the_job(cloud: FakeVertex) -> None:
    def fail(task: VertexTask) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ran("import time; time.sleep(60)", fail)
    wait_for(lambda: cloud.jobs[0].json["state"] == "JOB_STATE_CANCELLED", 10)


@pytest.mark.slow
def test_a_job_whose_driver_died_is_joined_and_one_that_ended_is_not(cloud: FakeVertex) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(2)\nprint('done')"
    driver = (
        "import sys\nfrom rm_assets.executors import vertex\nfrom rm_assets_tests.executors.test_vertex import Ran\n"
        "vertex.POLL_SECONDS = 0.1\n"
        "Ran(sys.argv[1], lambda task: print('runs', flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", driver, code], stdout=subprocess.PIPE) as killed:
        assert killed.stdout and killed.stdout.readline() == b"runs\n"
        killed.kill()
    joined = Ran(code)
    assert joined.lines == ["begun", "done"] and joined.said[0].startswith("joins the custom job")
    assert len(cloud.jobs) == 1 and not Ran("print()").said[0].startswith("joins") and len(cloud.jobs) == 2


def test_no_machine_and_no_quota_are_said_as_such(cloud: FakeVertex) -> None:
    cloud.wrong.no_machine = "Resources are insufficient in region: europe-west4."
    error = error_of()
    assert error.code == "EXECUTOR_004" and "insufficient" in error.why
    cloud.wrong.refusals["create"] = refusal(429, "quota metrics exceed: custom_model_training_nvidia_l4_gpus")
    error = error_of()
    assert error.code == "EXECUTOR_004" and "nvidia_l4" in error.why


@pytest.mark.parametrize("asked", ["list", "create", "log"])
def test_what_google_refuses_is_said_in_its_words(cloud: FakeVertex, asked: str) -> None:
    cloud.wrong.refusals[asked] = refusal(403, "Permission 'aiplatform.customJobs' denied")
    error = error_of()
    assert error.code == "EXECUTOR_003" and error.why == "Permission 'aiplatform.customJobs' denied"


def test_a_question_too_many_is_asked_again(cloud: FakeVertex) -> None:
    def be_busy(task: VertexTask) -> None:
        cloud.wrong.refusals["log"] = refusal(429, "Read requests per minute")
        threading.Timer(0.5, cloud.wrong.refusals.clear).start()

    ran = Ran("print('here')", be_busy)
    assert ran.lines == ["here"] and cloud.asked.count("log") > 5


def test_a_job_that_cannot_be_cancelled_is_named_with_the_command(cloud: FakeVertex) -> None:
    def fail(task: VertexTask) -> None:
        cloud.wrong.refusals["cancel"] = refusal(403, "may not cancel")
        raise KeyboardInterrupt

    with pytest.raises(ExecutorError) as caught:
        Ran("import time; time.sleep(60)", fail)
    assert caught.value.code == "EXECUTOR_005"
    assert caught.value.fix == f"`gcloud ai custom-jobs cancel {cloud.jobs[0].json['name']}`"


def test_without_credentials_package_or_server_it_is_said(cloud: FakeVertex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "http://127.0.0.1:1")
    began = time.monotonic()
    assert "does not answer" in error_of().what and time.monotonic() - began < 20
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    assert "/nowhere/key.json" in error_of().why
    monkeypatch.setitem(sys.modules, "google.auth", None)
    assert (error_of().code, error_of().fix) == ("EXECUTOR_002", "pip install 'rm-assets[vertex]'")


def test_the_log_of_an_ended_job_takes_none_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(vertex, "LATE_SECONDS", 1.0)
    ended = {"name": "jobs/1", "createTime": "2026-01-01T00:00:00Z", "state": "JOB_STATE_FAILED"}
    order = Order("script", "", NAME, None, say=str)
    task = VertexTask(SimpleNamespace(log=lambda *asked: []), ended, VertexExecutor.model_validate(SECTION), order)  # type: ignore[arg-type]
    output = TaskOutput(lambda event: None, 0.5, lambda: None)
    output.follow(task.lines())
    end = output.ended(task.status)
    assert (end.status, end.timed_out) == (1, False)
