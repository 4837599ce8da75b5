"""Tasks as custom jobs of Vertex AI, one machine each. A job that runs already for the same work is joined.

What is secret has no place in a job, whose variables anybody sees who may look at it: the service account reaches the bucket.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from signal import SIGKILL
from typing import Any

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line
from rm_assets.core.recipe import VertexExecutor
from rm_assets.executors.remote import Order, status_of
from rm_assets.executors.vertex_api import VertexApi, no_machine

POLL_SECONDS = 10.0
"""Between two looks at a job and its log: Cloud Logging answers 60 questions a minute and project."""
LATE_SECONDS = 30.0
"""How long after the end of a job its last log entries may come."""
WAITING = {"JOB_STATE_QUEUED", "JOB_STATE_PENDING"}
WORKING = WAITING | {"JOB_STATE_RUNNING", "JOB_STATE_UPDATING", "JOB_STATE_PAUSED"}
LIVE = WORKING | {"JOB_STATE_CANCELLING"}
RESOURCE_EXHAUSTED = 8


def job_of(executor: VertexExecutor, order: Order) -> dict[str, Any]:
    """The CustomJob that does what is ordered."""
    machine: dict[str, Any] = {"machineType": executor.machine}
    if executor.accelerator:
        machine |= {"acceleratorType": executor.accelerator, "acceleratorCount": executor.num_accelerators}
    if executor.tpu_topology:
        machine["tpuTopology"] = executor.tpu_topology
    scheduling: dict[str, Any] = {"disableRetries": True, "strategy": "SPOT" if executor.spot else "STANDARD"}
    if order.engine_timeout_seconds is not None:
        scheduling["timeout"] = f"{order.engine_timeout_seconds}s"
    pool = {
        "machineSpec": machine,
        "replicaCount": "1",
        "diskSpec": {"bootDiskSizeGb": executor.disk_gb},
        "containerSpec": {"imageUri": executor.image, "command": order.command},
    }
    spec = {"workerPoolSpecs": [pool], "scheduling": scheduling}
    if executor.service_account:
        spec["serviceAccount"] = executor.service_account
    return {"displayName": order.name, "labels": {"rm-assets-task": order.task}, "jobSpec": spec}


class VertexTask:
    """A custom job. To submit without waiting is to make one; `states` watches it."""

    def __init__(self, api: VertexApi, job: dict[str, Any], executor: VertexExecutor, order: Order) -> None:
        self._api, self._job, self._executor, self._say = api, job, executor, order.say
        self._seen = set[str]()
        self._since = job["createTime"]

    def states(self) -> Iterator[str]:
        """Its state, now and every few seconds, until it has ended."""
        state = self._job["state"]
        while state in LIVE:
            yield state
            time.sleep(POLL_SECONDS)
            self._job = self._api.job(self._job["name"])
            if self._job["state"] != state:
                state = self._job["state"]
                self._say(f"custom job: {_words(state)}")

    def wait_for_machine(self) -> None:
        """Until it has a machine, or has ended."""
        for state in self.states():
            if state not in WAITING:
                break

    def lines(self) -> Iterator[str]:
        """As in RemoteTask; time stands still while the last of an ended job's log is waited for."""
        for _ in self.states():
            yield from self._new_lines()
        yield event_line(event="waiting")
        ended = time.monotonic()
        while time.monotonic() - ended < LATE_SECONDS:
            yield from self._new_lines()
            time.sleep(min(POLL_SECONDS, LATE_SECONDS))

    def status(self) -> int:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_004 if Vertex had no such machine left."""
        error = self._job.get("error", {})
        message = error.get("message", "")
        if error.get("code") == RESOURCE_EXHAUSTED or "Resources are insufficient" in message:
            raise no_machine(message)
        self._say_cost()
        if self._job["state"] == "JOB_STATE_SUCCEEDED":
            return 0
        if message:
            self._say(f"Vertex AI: {message}")
        if self._job["state"] != "JOB_STATE_FAILED" or "ran out of memory" in message:  # or cancelled, or too old
            return -SIGKILL
        found = re.search(r"non-zero status of (\d+)", message)
        return status_of(int(found[1]) if found else 1)

    def end(self) -> None:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_005 if Vertex does not do so."""
        try:
            if self._api.job(self._job["name"])["state"] in WORKING:
                self._api.cancel(self._job["name"])
        except ExecutorError as error:
            raise ExecutorError(
                "EXECUTOR_005", f"the custom job {self._job['name']} could not be cancelled", why=error.what,
                fix=f"`gcloud ai custom-jobs cancel {self._job['name']}`",
            ) from error  # fmt: skip

    def _new_lines(self) -> Iterator[str]:
        """What is new in its log. Entries may come late and in another order, so the last minute is read again."""
        for entry in self._api.log(self._job["name"].rsplit("/", 1)[1], self._since):
            if entry["insertId"] not in self._seen:
                self._seen.add(entry["insertId"])
                self._since = max(self._since, entry["timestamp"])
                yield entry.get("textPayload") or str(entry.get("jsonPayload", {}).get("message", ""))

    def _say_cost(self) -> None:
        """What it has taken, by the clock of its machine; the bill may round up."""
        if "startTime" in self._job and "endTime" in self._job:
            began, ended = (datetime.fromisoformat(self._job[key]) for key in ("startTime", "endTime"))
            hours = (ended - began).total_seconds() / 3600
            price = self._executor.usd_per_hour
            cost = "" if price is None else f", about ${hours * price:.2f} by the recipe's price"
            self._say(f"{self._executor.machine} for {hours * 3600:.0f} s{cost}")


@contextmanager
def start_on_vertex(executor: VertexExecutor, order: Order) -> Iterator[VertexTask]:
    """As remote.Start. Raises: besides, ExecutorError EXECUTOR_004 at a quota."""
    with VertexApi(executor.project, executor.region) as api:
        running = [job for job in api.jobs(order.name) if job["state"] in WORKING]
        job = running[0] if running else api.create(job_of(executor, order))
        order.say(f"{'joins the' if running else 'the'} custom job {job['name']}")
        task = VertexTask(api, job, executor, order)
        try:
            task.wait_for_machine()
            yield task
        except BaseException:
            task.end()
            raise


def _words(state: str) -> str:
    return state.removeprefix("JOB_STATE_").lower().replace("_", " ")
