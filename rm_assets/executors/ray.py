"""Tasks on a Ray cluster, each as a job of Ray's Job API.

Ray shows a job's command and runtime environment in its dashboard, so a task is given neither variables nor secrets: they
come from the environment of the cluster's nodes.
"""

import asyncio
import contextlib
import os
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import RayExecutor
from rm_assets.executors.patience import Patience
from rm_assets.executors.remote import Order, status_of

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

SECONDS_TO_ANSWER = 15.0
SECONDS_BETWEEN_STREAMS = 1.0
SECONDS_OF_SILENCE = 300.0
"""A log that is silent for so long is opened again, since its connection may be dead."""
SECONDS_TO_END = 20.0
"""Ray ends a job within about 4 seconds: SIGTERM, and SIGKILL 3 seconds later."""
SPREAD = ("sample", "score")
"""Tasks whose shards go to workers, where there are several; the task itself then holds nothing and runs on the head."""
ENTRYPOINT = "trap : TERM; {command} </dev/null; status=$?; kill -- -$$; exit $status"
"""The shell that Ray starts leads a process group, of which Ray leaves behind what the task has started. Standard input would be a pipe of Ray's."""


class RayJob:
    """A job on the cluster, begun by this process or by one that has died since."""

    def __init__(self, client: "JobSubmissionClient", address: str, name: str) -> None:
        self._client, self._address, self._name = client, address, name
        self._patience, self._has_ended = Patience(), False

    def begin(self, say: Callable[[str], None]) -> None:
        """Waits until Ray has room for the job. It says so if that takes a while, since nothing else does."""
        patience = time.monotonic() + SECONDS_TO_ANSWER
        while self._info().status == "PENDING":
            if time.monotonic() > patience:
                say(f"waiting: the cluster has no room for the Ray job {self._name} yet")
                patience = float("inf")
            time.sleep(0.2)

    def lines(self) -> Iterator[str]:
        """As in RemoteTask. A stream that breaks off is taken up again where it was, and once more after the job's end."""
        from aiohttp import ClientError

        num_given, was_over = 0, False
        while True:
            is_whole = True
            try:
                for number, line in enumerate(self._log()):
                    if number >= num_given:
                        num_given += 1
                        yield line
            except (ClientError, OSError, RuntimeError):
                is_whole = False
            is_over = self._is_over()
            if is_over and (is_whole or was_over):
                return
            was_over = is_over
            time.sleep(SECONDS_BETWEEN_STREAMS)

    def _log(self) -> Iterator[str]:
        """The log's lines from the first one; it comes in pieces that may end within a line."""
        stream, rest = self._client.tail_job_logs(self._name), ""

        async def piece() -> str | None:
            async with asyncio.timeout(SECONDS_OF_SILENCE):
                return await anext(stream, None)

        with asyncio.Runner() as runner:
            while (text := runner.run(piece())) is not None:
                *lines, rest = (rest + text).split("\n")
                yield from lines
        if rest and self._is_over():
            yield rest

    def status(self) -> int:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_003 if Ray could not begin the job."""
        while not self._is_over():
            time.sleep(0.1)
        info = self._info()
        if info.driver_exit_code is not None:
            return status_of(int(info.driver_exit_code))
        if info.status == "STOPPED":
            return -SIGTERM
        if info.error_type == "JOB_SUPERVISOR_ACTOR_DIED":  # with its node, or for want of memory
            return -SIGKILL
        raise ExecutorError(
            "EXECUTOR_003", f"Ray could not run the job {self._name}", why=(info.message or "").strip()[:500],
            fix="compare `ray status` with cpus, gpus, memory_gb and resources of the executor",
        )  # fmt: skip

    def end(self) -> None:
        """As in RemoteTask. A job that Ray has not begun ends when it begins. Raises: ExecutorError EXECUTOR_005 if Ray does not stop it."""
        try:
            until = time.monotonic() + SECONDS_TO_END
            if not self._is_over():
                with _asked(self._address):
                    self._client.stop_job(self._name)
            while not self._is_over():
                if time.monotonic() > until:
                    if self._info().status == "RUNNING":
                        raise ExecutorError(
                            "EXECUTOR_003",
                            "Ray does not end it",
                            why=f"it works on {SECONDS_TO_END:.0f} s after it was to stop",
                        )
                    return
                time.sleep(0.1)
        except ExecutorError as error:
            raise ExecutorError(
                "EXECUTOR_005", f"the Ray job {self._name} could not be stopped", why=error.why,
                fix=f"it goes on where the cluster does, and the next run joins it; or `ray job stop {self._name} --address {self._address}`",
            ) from error  # fmt: skip

    def _info(self) -> "JobDetails":
        while True:
            try:
                with _asked(self._address):
                    info = self._client.get_job_info(self._name)
            except ExecutorError as error:
                self._patience.failed(error)
            else:
                self._patience.answered()
                return info
            self._patience.wait()

    def _is_over(self) -> bool:
        self._has_ended = self._has_ended or bool(self._info().status.is_terminal())
        return self._has_ended


@contextmanager
def start_on_ray(executor: RayExecutor, order: Order) -> Iterator[RayJob]:
    """As remote.Start. Raises: ExecutorError EXECUTOR_002 without ray, EXECUTOR_003 if the cluster does not answer or refuses."""
    # Ray's client lets these variables go before the address that it is given.
    address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or executor.address
    client = _connect(address)
    with _asked(address):
        name = _running_job(client, order) or _submit(client, executor, order)
    job = RayJob(client, address, name)
    try:
        job.begin(order.say)
        yield job
    finally:
        job.end()


@contextmanager
def _asked(address: str) -> Iterator[None]:
    """While Ray's client asks: what it raises when it is not answered, or refused, as an error of ours."""
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, RayError) as error:
        raise ExecutorError(
            "EXECUTOR_003", f"the Ray cluster at {address} does not answer, or refuses", why=f"{type(error).__name__}: {error}",
            fix=f"try `ray job list --address {address}`; then run again",
        ) from error  # fmt: skip


def _connect(address: str) -> "JobSubmissionClient":
    try:
        import aiohttp  # noqa: F401  (of ray[default], for the log)
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise ExecutorError(
            "EXECUTOR_002", "the package ray is not installed", fix="pip install 'rm-assets[ray]'"
        ) from None
    with _asked(address):
        if address.startswith("http"):  # Ray's client itself waits without limit
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"{address}/api/version", timeout=SECONDS_TO_ANSWER).close()
        return JobSubmissionClient(address)


def _running_job(client: "JobSubmissionClient", order: Order) -> str | None:
    """The job that does this work already."""
    found = next((job for job in _jobs(client, order) if not job.status.is_terminal()), None)
    if found is None:
        return None
    order.say(f"joins the Ray job {found.submission_id}, which does this already")
    return str(found.submission_id)


def _jobs(client: "JobSubmissionClient", order: Order) -> "list[JobDetails]":
    """All jobs of the order's name, which has a number from the second on."""
    return [job for job in client.list_jobs() if _number(order, job.submission_id or "")]


def _number(order: Order, name: str) -> int | None:
    """Which of the order's jobs has this name, None for a job of another order."""
    found = re.fullmatch(rf"{order.name}(?:-(\d+))?", name)
    return int(found[1] or 1) if found else None


def _submit(client: "JobSubmissionClient", executor: RayExecutor, order: Order) -> str:
    last = max((_number(order, job.submission_id or "") or 0 for job in _jobs(client, order)), default=0)
    name = f"{order.name}-{last + 1}" if last else order.name
    try:
        client.submit_job(
            entrypoint=ENTRYPOINT.format(command=shlex.join(order.command)),
            submission_id=name,
            **_held(executor, order.task),
        )
    except RuntimeError:
        if (joined := _running_job(client, order)) is None:  # which another run has begun in the meantime
            raise
        return joined
    order.say(f"is the Ray job {name}")
    return name


def _held(executor: RayExecutor, task: str) -> dict[str, Any]:
    """What the job itself reserves."""
    if executor.workers > 1 and task in SPREAD:
        return {}
    return {
        "entrypoint_num_cpus": executor.cpus,
        "entrypoint_num_gpus": executor.gpus,
        "entrypoint_memory": executor.memory_bytes,
        "entrypoint_resources": executor.resources or None,
    }
