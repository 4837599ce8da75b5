"""Tasks on a stand-in of a Kubernetes cluster: what the contract does not say."""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rm_assets.core.errors import ExecutorError, TaskError
from rm_assets.core.recipe import KubernetesExecutor
from rm_assets.executors import patience
from rm_assets.executors.kubernetes import KubernetesTask, start_on_kubernetes
from rm_assets.executors.kubernetes_log import LogPosition
from rm_assets.executors.remote import Order
from rm_assets.resources.compute import Compute, Made
from rm_assets_tests.executors.conftest import REPOSITORY
from rm_assets_tests.executors.fake_kubernetes import TOKEN, FakeKubernetes, status
from rm_assets_tests.processes import wait_for
from rm_assets_tests.tasks.conftest import TOY, Bench

COUNT = "import time\nfor n in range(40):\n    print(f'line {n} ' + 'x' * 50, flush=True)\n    time.sleep(0.02)\nprint('end', end='')"
COUNTED = [*(f"line {n} " + "x" * 50 for n in range(40)), "end"]


@pytest.fixture
def cluster(kubernetes_cluster: FakeKubernetes) -> FakeKubernetes:
    return kubernetes_cluster


class Ran:
    """What a task said, and how it ended."""

    def __init__(self, code: str, while_it_runs: Callable[[KubernetesTask], None] = lambda task: None, **section: Any):
        self.said: list[str] = []
        executor = KubernetesExecutor(kind="kubernetes", image="i", **section)
        order = Order("script", code, "rm-script-0123456789abcdef", None, self.said.append)
        with start_on_kubernetes(executor, order) as task:
            while_it_runs(task)
            self.lines = list(task.lines())
            self.status = task.status()


def refusal(code: str = "", **section: Any) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        Ran(code, **section)
    return caught.value


def test_why_a_pod_waits_is_said_once(cluster: FakeKubernetes) -> None:
    cluster.wrong.unschedulable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    room = threading.Timer(1.0, lambda: setattr(cluster.wrong, "unschedulable", ""))
    room.start()
    ran = Ran("print('here')")
    assert (ran.lines, ran.status) == (["here"], 0)
    reason = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert ran.said.count(f"waiting for its pod: Unschedulable: {reason}") == 1
    assert ran.said.count(f"FailedScheduling: {reason}") == 1
    assert ran.said.index("Pulling: Pulling image") > ran.said.index(f"FailedScheduling: {reason}")


def test_an_image_that_cannot_be_pulled_is_an_error_at_once_and_leaves_no_job(cluster: FakeKubernetes) -> None:
    cluster.wrong.unpullable = "no such manifest"
    error = refusal()
    assert error.code == "EXECUTOR_003" and "ImagePullBackOff" in error.what and "image i is there" in error.fix
    wait_for(lambda: not cluster.jobs, 10)


def test_a_secret_that_is_not_there_is_an_error_at_once(cluster: FakeKubernetes) -> None:
    error = refusal(secret="of-another-namespace")
    assert (error.code, error.why) == ("EXECUTOR_003", "secret not found") and "Secret of `secret`" in error.fix


@pytest.mark.parametrize("are_clean", [False, True], ids=["broken", "as if ended"])
def test_a_log_that_breaks_off_loses_and_doubles_nothing(cluster: FakeKubernetes, are_clean: bool) -> None:
    cluster.wrong.cuts, cluster.wrong.cuts_are_clean = [10, 200, 89 * 3, 95], are_clean
    ran = Ran(COUNT)
    assert (ran.lines, ran.status) == (COUNTED, 0)
    assert cluster.since[0] is None and cluster.since[-1] is not None and len(cluster.since) >= 5


def test_a_log_that_is_lost_with_its_node_does_not_hide_how_the_task_ended(cluster: FakeKubernetes) -> None:
    cluster.wrong.refusals["get pods/log"] = status(500, "no route to host")
    ran = Ran("raise SystemExit(3)")
    assert (ran.lines, ran.status) == ([], 3)


def test_a_second_that_is_read_again_gives_only_what_is_new() -> None:
    position = LogPosition()
    log = [
        b"2026-01-01T00:00:01.5Z a\n2026-01-01T00:00:02.1Z b\n2026-01-01T00:00:02.1Z b\nno stamp\n2026-01-01T00:00:02.3Z cu"
    ]
    assert list(position.unseen(log, False)) == ["a", "b", "b", "no stamp"] and position.since == "2026-01-01T00:00:02Z"
    again = [
        b"2026-01-01T00:00:02.1Z b\n2026-01-01T00:00:02.1Z b\nno sta",
        b"mp\n2026-01-01T00:00:02.3Z cut\n2026-01-01T00:00:02.4Z \n",
    ]
    assert list(position.unseen(again, False)) == ["cut", ""]
    assert list(position.unseen([*again, b"2026-01-01T00:00:04Z \xff"], True)) == ["\ufffd"]


def test_a_task_that_the_cluster_kills_for_its_memory_is_said_to_be(cluster: FakeKubernetes) -> None:
    def kill(task: KubernetesTask) -> None:
        cluster.pods[0].kill("OOMKilled")

    ran = Ran("import time; time.sleep(60)", kill)
    assert ran.status == -9 and ran.said[-1] == "the pod was ended: OOMKilled"


@pytest.mark.slow
def test_what_a_killed_pod_had_committed_is_there_for_the_next_which_has_another_disk(
    cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache_here"))
    bench, bucket = Bench(tmp_path), tmp_path / "bucket"
    bench.write_toy()
    code = (
        "import pathlib, time\nshard = task.store.home / 'shards' / 'x' / 'y' / 'a.parquet'\n"
        f"if shard.exists():\n    pathlib.Path({str(tmp_path / 'resumed')!r}).touch()\n"
        "else:\n    shard.parent.mkdir(parents=True)\n    shard.write_text('a')\n    time.sleep(300)\n"
    )
    section = {"kind": "kubernetes", "image": "i", "spot": True}
    recipe = bench.recipe(description=code, execution={**TOY["execution"], "executor": section})

    def make(disk: str) -> Made:
        cluster.image["RM_ASSETS_CACHE"] = str(tmp_path / disk)
        return Compute(home=bucket.as_uri()).make_asset(
            recipe, "prompts", say=bench.said.append, debug=bench.said.append
        )

    def kill_once_it_is_saved() -> None:
        wait_for(lambda: list(bucket.glob("work/prompts/*/*.json")), 60)
        cluster.pods[0].kill("Evicted")

    killer = threading.Thread(target=kill_once_it_is_saved)
    killer.start()
    with pytest.raises(TaskError, match="TASK_001"):
        make("disk of the first")
    killer.join()
    made = make("disk of the second")
    assert made.manifest.counts["prompts"] == 12 and (tmp_path / "resumed").exists()
    assert "prompts: the pod was ended: Evicted" in bench.said and not list(bucket.glob("work/prompts/*/*.json"))


def test_a_job_that_somebody_deletes_is_a_killed_task(cluster: FakeKubernetes) -> None:
    def delete(task: KubernetesTask) -> None:
        (job,) = cluster.jobs.values()
        where = f"/apis/batch/v1/namespaces/default/jobs/{job['metadata']['name']}"
        body = {"preconditions": {"uid": job["metadata"]["uid"]}}
        assert cluster.answer("DELETE", where, {}, body, f"Bearer {TOKEN}")[0] == 200

    assert Ran("import time; time.sleep(60)", delete).status == -9


@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_status_is_that_of_the_container(cluster: FakeKubernetes, code: int) -> None:
    assert Ran(f"raise SystemExit({code})").status == code


def test_a_job_that_has_ended_is_replaced(cluster: FakeKubernetes) -> None:
    assert [Ran("print('one')").lines, Ran("print('one')").lines] == [["one"], ["one"]]
    assert len(cluster.created) == 2 and len(cluster.jobs) == 1


def test_the_name_of_the_secret_is_in_the_job_and_no_value(
    cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RM_ASSETS_SECRET", "a-value-to-look-for")
    ran = Ran("import os; print(os.environ['RM_ASSETS_SECRET'][::-1])", secret="rm-assets")
    assert ran.lines == ["rof-kool-ot-eulav-a"]
    assert '"rm-assets"' in json.dumps(cluster.created) and "a-value-to-look-for" not in json.dumps(cluster.created)


def test_no_more_is_asked_than_the_role_allows(cluster: FakeKubernetes) -> None:
    role = yaml.safe_load((REPOSITORY / "deploy" / "kubernetes-role.yaml").read_text())
    kubernetes_validate.validate(role, "1.37", strict=True)
    allowed = {
        f"{verb} {resource}" for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    Ran("print()")
    Ran("print()", lambda task: task.end())
    assert set(cluster.asked) == allowed


def test_a_server_that_is_busy_for_a_while_is_asked_again(
    cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.05)

    def be_busy(task: KubernetesTask) -> None:
        for what in ("list pods", "get pods/log"):
            cluster.wrong.refusals[what] = status(503, "the server is upgraded")
        threading.Timer(1.0, cluster.wrong.refusals.clear).start()

    ran = Ran(COUNT, be_busy)
    assert (ran.lines, ran.status) == (COUNTED, 0)


@pytest.mark.parametrize(
    ("refused", "answer", "code", "words"),
    [
        ("create jobs", status(403, 'User "tester" cannot create resource "jobs"'), "EXECUTOR_003", "cannot create"),
        ("create jobs", status(403, "exceeded quota: count/jobs.batch"), "EXECUTOR_004", "count/jobs.batch"),
        ("create jobs", status(404, 'namespaces "default" not found'), "EXECUTOR_003", 'namespaces "default"'),
        ("get jobs", status(401, "Unauthorized"), "EXECUTOR_003", "Unauthorized"),
        ("get jobs", status(503, "down"), "EXECUTOR_003", "down"),
        ("get pods/log", status(403, "cannot get pods/log"), "EXECUTOR_003", "pods/log"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_said_in_its_words(
    cluster: FakeKubernetes, refused: str, answer: Any, code: str, words: str
) -> None:
    cluster.wrong.refusals[refused] = answer
    error = refusal()
    assert error.code == code and words in error.why
    wait_for(lambda: not cluster.jobs, 10)


def test_a_server_that_is_not_there_is_not_waited_for(cluster: FakeKubernetes) -> None:
    cluster.http.server_close()
    began = time.monotonic()
    error = refusal()
    assert error.code == "EXECUTOR_003" and "does not answer" in error.what and time.monotonic() - began < 20


def test_a_job_that_cannot_be_deleted_is_named_with_the_command(cluster: FakeKubernetes) -> None:
    cluster.wrong.refusals = {"delete jobs": status(403, "may not delete")}
    cluster.wrong.unpullable = "no such manifest"
    error = refusal()
    assert error.code == "EXECUTOR_005"
    assert error.fix == f"`kubectl delete job {next(iter(cluster.jobs))} --namespace default`"


def test_a_context_that_is_not_there_is_an_error(cluster: FakeKubernetes) -> None:
    error = refusal(context="elsewhere")
    assert error.code == "EXECUTOR_003" and "elsewhere" in error.why


def test_in_a_cluster_its_own_account_is_used_and_no_kubeconfig(
    cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    assert "Service token file does not exist" in refusal().why and cluster.asked == []


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    error = refusal()
    assert error.code == "EXECUTOR_002" and error.fix == "pip install 'rm-assets[kubernetes]'"
