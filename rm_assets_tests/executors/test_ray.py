"""What the executor `ray` does beyond the contract."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import RayExecutor
from rm_assets.executors import patience
from rm_assets.executors import ray as executor_ray
from rm_assets.executors.ray import RayJob, start_on_ray
from rm_assets.executors.remote import Order
from rm_assets_tests.executors.conftest import CLUSTER_SECRET
from rm_assets_tests.processes import free_port
from rm_assets_tests.ray_cluster import RayCluster


def order(name: str) -> Order:
    return Order("ingest", "file:///nowhere/request.json", name, None, say=str)


def section(address: str, **more: object) -> RayExecutor:
    return RayExecutor.model_validate({"kind": "ray", "address": address, **more})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    with pytest.raises(ExecutorError) as caught, start_on_ray(section("http://127.0.0.1:1"), order("a")):
        pass
    assert caught.value.code == "EXECUTOR_002" and "rm-assets[ray]" in caught.value.fix


def test_an_address_where_nothing_listens_is_refused() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    address = f"http://127.0.0.1:{free_port()}"
    with (
        pytest.raises(ExecutorError, match="does not answer") as caught,
        start_on_ray(section(address), order("a")),
    ):
        pass
    assert caught.value.code == "EXECUTOR_003"


def test_the_address_of_the_environment_goes_before_that_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    asked = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", asked)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # whose answer would be waited for
        other = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ExecutorError, match=asked), start_on_ray(section(other), order("a")):
            pass


def test_an_address_that_says_nothing_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    assert executor_ray.SECONDS_TO_ANSWER <= 20
    monkeypatch.setattr(executor_ray, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ExecutorError, match="does not answer"), start_on_ray(section(address), order("a")):
            pass


def test_what_a_task_holds_is_held_by_its_workers_where_there_are_several() -> None:
    many = section("http://head:8265", cpus=2, gpus=1, memory_gb=1.5, resources={"TPU": 4}, workers=3)
    held = {
        "entrypoint_num_cpus": 2, "entrypoint_num_gpus": 1, "entrypoint_memory": 1_500_000_000,
        "entrypoint_resources": {"TPU": 4},
    }  # fmt: skip
    assert executor_ray._held(many, "train") == held
    assert executor_ray._held(many, "sample") == executor_ray._held(many, "score") == {}
    assert executor_ray._held(many.model_copy(update={"workers": 1}), "sample") == held


class Pieces:
    """Stands for a log that comes in pieces and whose stream breaks off once, before the job has ended."""

    def __init__(self, *streams: list[str]) -> None:
        self._streams = iter(streams)
        self._left = len(streams)

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        self._left -= 1
        for piece in next(self._streams):
            yield piece

    def get_job_info(self, name: str) -> "Pieces":
        return self

    @property
    def status(self) -> "Pieces":
        return self

    def is_terminal(self) -> bool:
        return self._left == 0


def test_lines_are_whole_and_come_once_though_the_stream_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_ray, "SECONDS_BETWEEN_STREAMS", 0.0)
    client = Pieces(["one\ntw", "o\n", "thr"], ["one\n", "two\nthree", "\n\n", "five"])
    assert list(RayJob(client, "http://head", "a").lines()) == ["one", "two", "three", "", "five"]  # type: ignore[arg-type]


class Silent(Pieces):
    """Whose first stream stands still, as over a connection that died without a word."""

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        is_first = self._left == 2
        async for piece in super().tail_job_logs(name):
            yield piece
        if is_first:
            await asyncio.sleep(60)


def test_a_stream_that_says_nothing_any_more_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_ray, "SECONDS_BETWEEN_STREAMS", 0.0)
    monkeypatch.setattr(executor_ray, "SECONDS_OF_SILENCE", 0.2)
    began, client = time.monotonic(), Silent(["one\n"], ["one\n", "two\n"])
    assert list(RayJob(client, "http://head", "a").lines()) == ["one", "two"]  # type: ignore[arg-type]
    assert time.monotonic() - began < 20


class Unreachable:
    """A cluster that answers, is not reached for so many questions, and answers again; its job runs until it is stopped."""

    def __init__(self, num_lost: int) -> None:
        self._lost = iter([False, *[True] * num_lost])
        self.is_stopped = False

    def get_job_info(self, name: str) -> "Unreachable":
        if next(self._lost, False):
            raise ConnectionError("Network is unreachable")
        return self

    def stop_job(self, name: str) -> None:
        self.is_stopped = True

    @property
    def status(self) -> "Unreachable":
        return self

    def is_terminal(self) -> bool:
        return self.is_stopped


def test_a_cluster_that_is_not_reached_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    client = Unreachable(num_lost=3)
    job = RayJob(client, "http://head", "a")  # type: ignore[arg-type]
    job.begin(print)
    job.begin(print)
    job.end()
    assert client.is_stopped


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 1), (137, -9), (143, -15), (163, 163), (255, 255)])
def test_only_what_a_signal_makes_of_an_exit_status_is_called_killed(code: int, status: int) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    info = SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: True), driver_exit_code=code)
    client = SimpleNamespace(get_job_info=lambda name: info)
    assert RayJob(client, "http://head", "a").status() == status  # type: ignore[arg-type]


def test_a_job_that_cannot_be_stopped_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.1)
    job = RayJob(Unreachable(num_lost=1_000), "http://head", "a")  # type: ignore[arg-type]
    job.begin(print)
    with pytest.raises(ExecutorError) as caught:
        job.end()
    assert caught.value.code == "EXECUTOR_005" and "ray job stop a --address http://head" in caught.value.fix


class Jobs:
    """A cluster with jobs that have ended, some of which somebody has deleted."""

    def __init__(self, *names: str) -> None:
        self.submitted: list[str] = []
        status = SimpleNamespace(is_terminal=lambda: True)
        self._jobs = [SimpleNamespace(submission_id=name, status=status) for name in names]

    def list_jobs(self) -> list[SimpleNamespace]:
        return self._jobs

    def submit_job(self, *, submission_id: str, **options: object) -> None:
        self.submitted.append(submission_id)


@pytest.mark.parametrize(("before", "next_one"), [([], "a"), (["a", "b-7"], "a-2"), (["a-2", None], "a-3")])
def test_a_job_has_a_name_that_none_of_its_order_has(before: list[str], next_one: str) -> None:
    client = Jobs(*before)
    executor_ray._submit(client, section("http://head:8265"), order("a"))  # type: ignore[arg-type]
    assert client.submitted == [next_one]


@pytest.mark.slow
def test_a_running_job_is_joined_and_the_next_of_its_name_has_a_number(cluster: RayCluster, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "request")  # the task waits until somebody writes its request
    said = list[str]()
    waits = Order("ingest", str(tmp_path / "request"), f"rm-{time.time_ns()}", None, said.append)
    with start_on_ray(section(cluster.address), waits), start_on_ray(section(cluster.address), waits) as job:
        job.end()
        assert job.status() == -15
    with start_on_ray(section(cluster.address), waits):
        pass
    assert said == [
        f"is the Ray job {waits.name}",
        f"joins the Ray job {waits.name}, which does this already",
        f"is the Ray job {waits.name}-2",
    ]


@pytest.mark.slow
def test_no_secret_of_the_nodes_is_shown_by_the_job(cluster: RayCluster) -> None:
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(cluster.address)
    with start_on_ray(section(cluster.address), order(name := f"rm-{time.time_ns()}")) as job:
        assert list(job.lines())
    assert CLUSTER_SECRET not in json.dumps(client.get_job_info(name).model_dump(mode="json"))


class Stubborn:
    """A cluster whose job is in a state and stays there, though it is asked to end it."""

    def __init__(self, status: str) -> None:
        self.status, self.is_asked = Status(status), False

    def get_job_info(self, name: str) -> "Stubborn":
        return self

    def stop_job(self, name: str) -> None:
        self.is_asked = True


class Status(str):
    """As Ray's, which has not ended."""

    def is_terminal(self) -> bool:
        return False


def test_a_job_that_works_on_though_it_was_to_stop_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'rm-assets[ray]'")
    monkeypatch.setattr(executor_ray, "SECONDS_TO_END", 0.3)
    running, waiting = Stubborn("RUNNING"), Stubborn("PENDING")
    with pytest.raises(ExecutorError, match="could not be stopped") as caught:
        RayJob(running, "http://head", "a").end()  # type: ignore[arg-type]
    assert caught.value.code == "EXECUTOR_005" and "it works on" in caught.value.why
    RayJob(waiting, "http://head", "a").end()  # type: ignore[arg-type]
    assert running.is_asked and waiting.is_asked
