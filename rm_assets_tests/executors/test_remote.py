"""What every executor that is not this machine is handed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line
from rm_assets.core.recipe import SshExecutor
from rm_assets.executors import output, remote
from rm_assets.executors.output import TaskOutput
from rm_assets.executors.remote import Order, run_remote
from rm_assets.storage.home import home_of
from rm_assets.storage.store import Store


class Done:
    """A task that has said nothing and ended well."""

    def lines(self) -> Iterator[str]:
        yield from ()

    def status(self) -> int:
        return 0

    def end(self) -> None: ...


def test_work_has_one_name_in_each_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it an engine finds what a dead run has left working, and nothing of another store."""
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache"))
    orders: list[Order] = []

    @contextmanager
    def start(executor: Any, order: Order) -> Iterator[Done]:
        orders.append(order)
        yield Done()

    monkeypatch.setattr(remote, "_engine", lambda kind: start)
    executor = SshExecutor(kind="ssh", host="gpu")
    for store, digest in (("one", "a" * 64), ("one", "a" * 64), ("two", "a" * 64), ("one", "b" * 64)):
        request = {"asset": "implicit_pairs", "digest": digest}
        url = (tmp_path / store).as_uri()
        run_remote(executor, "benchmarks", request, Store(home_of(url)), lambda event: None, timeout_seconds=None)
    first, again, elsewhere, other = (order.name for order in orders)
    assert first == again and len({first, elsewhere, other}) == 3
    assert first.startswith("rm-benchmarks-aaaaaaaaaaaaaaaa-") and len(first) <= 40


class Lost(Done):
    """A task whose connection broke."""

    def status(self) -> int:
        raise ExecutorError("EXECUTOR_003", "the connection broke")


def test_a_task_that_is_lost_leaves_no_clock_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would not end before the time limit of a task that is no more."""
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache"))

    @contextmanager
    def start(executor: Any, order: Order) -> Iterator[Lost]:
        yield Lost()

    monkeypatch.setattr(remote, "_engine", lambda kind: start)
    store, request = Store(home_of((tmp_path / "store").as_uri())), {"asset": "prompts", "digest": "a" * 64}
    with pytest.raises(ExecutorError, match="the connection broke"):
        run_remote(
            SshExecutor(kind="ssh", host="gpu"), "ingest", request, store, lambda event: None, timeout_seconds=60
        )
    clocks = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for clock in clocks:
        clock.join(5)
    assert not [clock for clock in clocks if clock.is_alive()]


def test_time_stands_still_once_where_it_is_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a task that waits, and then by its executor, whose machine was taken away meanwhile."""
    now = [0.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])

    def lines() -> Iterator[str]:
        yield event_line(event="waiting")
        now[0] = 1000.0
        yield event_line(event="waiting")
        yield event_line(event="working")

    task = TaskOutput(lambda event: None, 100, lambda: None)
    task.follow(lines())
    now[0] = 1050.0
    threading.Event().wait(0.2)  # a limit that is over is over at once
    assert not task.ended(lambda: 0).timed_out
