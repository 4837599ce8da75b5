"""Tasks somewhere else: what every executor does that is not this machine.

The request is written to the store's URL, and its place there is all that a task is told, whatever starts it; results come back
through the store. An engine (ssh.py, ray.py, kubernetes.py, vertex.py, vm.py) starts the task under a name that follows from its
digest, gives its output line by line, and ends it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Any, Protocol

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import RemoteExecutor
from rm_assets.executors.output import SIGNALS, OnEvent, TaskEnd, TaskOutput
from rm_assets.storage.remote import Remote
from rm_assets.storage.requests import send_request
from rm_assets.storage.store import Store

SECONDS_BEYOND_LIMIT = 3600


@dataclass(frozen=True)
class Order:
    """What an engine is asked to start: `python -m rm_assets.tasks.<task> <request>`, the request being a URL.

    `name` is the same for the same work for the same store (letters, digits and hyphens, at most 40): where it is being done already, since
    the process that asked for it first has died, an engine joins it. `say` tells people what happens before the task speaks.
    """

    task: str
    request: str
    name: str
    timeout_seconds: float | None
    say: Callable[[str], None]

    @property
    def command(self) -> list[str]:
        """What a container or a node with rm_assets runs for it."""
        return ["python", "-m", f"rm_assets.tasks.{self.task}", self.request]

    @property
    def engine_timeout_seconds(self) -> int | None:
        """The limit for an engine that has one of its own, which counts also what the task waits for."""
        return None if self.timeout_seconds is None else ceil(self.timeout_seconds) + SECONDS_BEYOND_LIMIT


def status_of(code: int) -> int:
    """The exit status that a shell or a container gives, with minus the number of a signal that ended the task."""
    return 128 - code if code - 128 in SIGNALS else code


class RemoteTask(Protocol):
    """A task that an engine has started."""

    def lines(self) -> Iterator[str]:
        """Its output as it comes, until it has ended. Raises: ExecutorError when the engine cannot be reached any more."""

    def status(self) -> int:
        """Its exit status once it has ended; minus the number of the signal that ended it, where the engine knows."""

    def end(self) -> None:
        """Ends it, and all that it started; also from another thread, again, or when it has ended by itself."""


VANISHING = {"vm", "kubernetes", "vertex"}
"""Kinds whose machines may be gone, disks and all, before a task is done: it saves what it commits at the store's URL."""
Start = Callable[[Any, Order], AbstractContextManager[RemoteTask]]
"""Starts a task as an executor of the engine's section describes; with the block ends whatever is left of it.

Raises: ExecutorError EXECUTOR_002 without the engine's package or command, EXECUTOR_003 if it cannot be reached or refuses.
"""


def run_remote(
    executor: RemoteExecutor, task: str, request: dict[str, Any], store: Store, on_event: OnEvent, *, timeout_seconds: float | None
) -> TaskEnd:  # fmt: skip
    """Runs a task where `executor` says, to its end. If the caller is interrupted, the task ends.

    Raises: ExecutorError EXECUTOR_001 if the store is a folder of this machine, EXECUTOR_002 to EXECUTOR_005 as the engine says.
    """
    remote = require_url(store, executor.kind)
    where = send_request(remote, request | {"saves_work": executor.kind in VANISHING, "keeps_figures": False})
    order = Order(
        task,
        where,
        f"rm-{task}-{request['digest'][:16]}-{sha256(where.encode()).hexdigest()[:6]}",
        timeout_seconds,
        say=lambda message: on_event({"event": "log", "message": message}),
    )
    with _engine(executor.kind)(executor, order) as started:
        output = TaskOutput(on_event, timeout_seconds, started.end)
        output.follow(started.lines())
        end = output.ended(started.status)
    remote.forget()  # what was there before the task says nothing of its result
    return end


def require_url(store: Store, kind: str) -> Remote:
    """Where the store lies for a task by an executor of this kind. Raises: ExecutorError EXECUTOR_001 if it is a folder of this machine."""
    if store.remote is None:
        raise ExecutorError(
            "EXECUTOR_001",
            f"a task is to run by {kind}, but the store is the folder {store.home}",
            why="what runs elsewhere reads its inputs from the store and writes its result there",
            fix="set RM_ASSETS_HOME to a URL that both can reach (s3://bucket/prefix; file:///mounted/folder for a shared disk), or let the task run here: {kind: local}",
        )
    return store.remote


def variables_of(names: Iterable[str]) -> dict[str, str]:
    """The variables of this environment that a task is given. Raises: ExecutorError EXECUTOR_003 for one that is not set."""
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ExecutorError(
            "EXECUTOR_003",
            f"the variable {missing[0]} is not set",
            why="execution gives it to the task",
            fix=f"set {missing[0]}, or remove it from `environment`",
        )
    return {name: os.environ[name] for name in names}


def _engine(kind: str) -> Start:
    """The engine of a kind, imported only now."""
    from rm_assets.executors.kubernetes import start_on_kubernetes
    from rm_assets.executors.ray import start_on_ray
    from rm_assets.executors.ssh import start_over_ssh
    from rm_assets.executors.vertex import start_on_vertex
    from rm_assets.executors.vm import start_on_vm

    engines: dict[str, Start] = {
        "kubernetes": start_on_kubernetes,
        "ray": start_on_ray,
        "ssh": start_over_ssh,
        "vertex": start_on_vertex,
        "vm": start_on_vm,
    }
    return engines[kind]
