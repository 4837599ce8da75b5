"""Tasks on Kubernetes, as Jobs, through the official client.

The Job has the order's name, so there is one Job for the same work: one that runs is joined, one that has ended is replaced.
What is secret is in a Secret of the cluster, which the Job names.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL
from typing import Any

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import KubernetesExecutor
from rm_assets.executors.kubernetes_api import Cluster, LogBroken
from rm_assets.executors.kubernetes_job import CONTAINER, job_of
from rm_assets.executors.kubernetes_log import LogPosition
from rm_assets.executors.remote import Order, status_of

POLL_SECONDS = 1.0
ENDED = {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}
NO_IMAGE = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
NO_CONTAINER = NO_IMAGE | {"CreateContainerConfigError", "CreateContainerError"}
"""Why a container waits that no waiting starts."""
TRIES_AFTER_END = 10
"""How often the log of an ended task is asked for: it may be lost with its node."""


class KubernetesTask:
    """A Job and its pod."""

    def __init__(self, cluster: Cluster, job: Any, order: Order) -> None:
        self._cluster, self._job, self._say = cluster, job, order.say
        self._pod: Any = None
        self._position = LogPosition()

    def wait_for_pod(self) -> None:
        """Until its container has started or nothing is left to wait for; says why it has not.

        Raises: ExecutorError EXECUTOR_003 if the cluster cannot make the container.
        """
        said = set()
        while not self._has_begun():
            objects = [one for one in (self._job, self._pod) if one]
            reason, message = _waiting(self._pod) if self._pod else ("", "")
            state = [f"waiting for its pod: {reason}{message and ': '}{message}"] if reason else []
            for line in [*self._cluster.events(objects), *state]:
                if line not in said:
                    said.add(line)
                    self._say(line)
            if reason in NO_CONTAINER:
                raise _no_container(reason, message, self._pod.spec.containers[0].image)
            time.sleep(POLL_SECONDS)

    def lines(self) -> Iterator[str]:
        """As in RemoteTask. A log that breaks off is opened again where it broke; it is whole once it was read after the end."""
        is_over, num_lost = self._pod is None, 0
        while not is_over:
            is_over = self._is_over()
            try:
                chunks = self._cluster.log(self._pod, CONTAINER, self._position.since)
                yield from self._position.unseen(chunks, is_over)
            except LogBroken:
                num_lost += is_over
                is_over = num_lost == TRIES_AFTER_END
            if not is_over:
                time.sleep(POLL_SECONDS)

    def status(self) -> int:
        """As in RemoteTask."""
        ended = _terminated(self._pod)
        if words := list(_last_words(self._pod, ended)):
            self._say(f"the pod was ended: {'; '.join(words)}")
        if ended is None:  # evicted, or its node is gone, or deleted
            return -SIGKILL
        return status_of(int(ended.exit_code))

    def end(self) -> None:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_005 if the cluster does not do so."""
        try:
            self._cluster.delete(self._job)
        except ExecutorError as error:
            name, namespace = self._job.metadata.name, self._job.metadata.namespace
            raise ExecutorError(
                "EXECUTOR_005", f"the Job {name} could not be deleted", why=error.what,
                fix=f"`kubectl delete job {name} --namespace {namespace}`",
            ) from error  # fmt: skip

    def _has_begun(self) -> bool:
        """Whether its container has started, or will never."""
        is_over = self._is_over()
        return is_over or bool((state := _state(self._pod)) and state.running)

    def _is_over(self) -> bool:
        """Whether nothing runs any more."""
        job = self._cluster.job(self._job.metadata.name)
        is_gone = job is None or job.metadata.uid != self._job.metadata.uid
        self._pod = self._cluster.pod(self._job) or self._pod  # after the Job, which ends after its pod
        return is_gone or _has_ended(job) or _terminated(self._pod) is not None


@contextmanager
def start_on_kubernetes(executor: KubernetesExecutor, order: Order) -> Iterator[KubernetesTask]:
    """As remote.Start; a Job that has ended by itself is left to be looked at."""
    with Cluster(executor) as cluster:
        task = KubernetesTask(cluster, _job(cluster, executor, order), order)
        try:
            task.wait_for_pod()
            yield task
        except BaseException:
            task.end()
            raise


def _job(cluster: Cluster, executor: KubernetesExecutor, order: Order) -> Any:
    """The Job of the order that runs, or a new one."""
    name, has_said = order.name, False
    while True:
        job = cluster.job(name)
        if job is None and (created := cluster.create(job_of(executor, order))):
            order.say(f"Job {name} in namespace {executor.namespace}")
            return created
        if job is not None and job.metadata.deletion_timestamp is None:
            if not _has_ended(job):
                order.say(f"joins the Job {name}, which runs already")
                return job
            cluster.delete(job)
        elif job is not None and not has_said:
            has_said = True
            order.say(f"waiting until the earlier Job {name} is deleted")
        time.sleep(POLL_SECONDS)


def _has_ended(job: Any) -> bool:
    return any(c.type in ENDED and c.status == "True" for c in job.status.conditions or ())


def _state(pod: Any) -> Any:
    """The state of the pod's container, None before there is one."""
    statuses = pod and pod.status.container_statuses
    return statuses[0].state if statuses else None


def _terminated(pod: Any) -> Any:
    state = _state(pod)
    return state and state.terminated


def _last_words(pod: Any, ended: Any) -> Iterator[str]:
    """Why the cluster ended a pod, where it did so: memory, preemption, eviction, deadline."""
    causes = [c for c in pod.status.conditions or () if c.type == "DisruptionTarget"] + [pod.status] if pod else []
    if ended is not None and ended.reason not in {"Completed", "Error"}:
        causes.append(ended)
    for cause in causes:
        if words := [word for word in (cause.reason, cause.message) if word]:
            yield ": ".join(words)


def _waiting(pod: Any) -> tuple[str, str]:
    """Why a container has not started, as a word and in words."""
    if (state := _state(pod)) and state.waiting:
        return state.waiting.reason or "Waiting", state.waiting.message or ""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return condition.reason or "Unschedulable", condition.message or ""
    return pod.status.phase or "Pending", ""


def _no_container(reason: str, message: str, image: str) -> ExecutorError:
    fix = "check that the Secret of `secret` is there"
    if reason in NO_IMAGE:
        fix = f"check that the image {image} is there, and that the service account may pull it"
    return ExecutorError("EXECUTOR_003", f"Kubernetes cannot start the container: {reason}", why=message, fix=fix)
