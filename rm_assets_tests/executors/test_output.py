"""What ends a task whose time is over."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line
from rm_assets.executors import output
from rm_assets.executors.output import TaskEnd, TaskOutput, unfinished
from rm_assets.executors.remote import status_of


def test_a_task_that_could_not_be_ended_is_ended_as_soon_as_its_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_TRIES", 0.01)
    is_over, tries, heard = threading.Event(), list[int](), list[dict[str, Any]]()

    def end() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ExecutorError("EXECUTOR_005", "the Job a could not be deleted", why="no answer", fix="delete it")
        is_over.set()

    def lines() -> Iterator[str]:
        yield "works"
        assert is_over.wait(30)

    task = TaskOutput(heard.append, 0.01, end)
    task.follow(lines())
    assert task.ended(lambda: -9) == TaskEnd(-9, timed_out=True, tail="works")
    assert len(tries) == 3
    said = [event["message"] for event in heard if event["event"] == "log"]
    assert len(said) == 2 and "could not be deleted" in said[0]


def test_nobody_tries_to_end_what_has_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_TRIES", 30.0)
    was_tried = threading.Event()

    def end() -> None:
        was_tried.set()
        raise ExecutorError("EXECUTOR_005", "the Job a could not be deleted", why="no answer", fix="delete it")

    def lines() -> Iterator[str]:
        assert was_tried.wait(30)
        yield "ended by itself"

    threads = threading.active_count()
    task = TaskOutput(lambda event: None, 0.01, end)
    task.follow(lines())
    assert task.ended(lambda: 0).timed_out
    (timer,) = [each for each in threading.enumerate() if isinstance(each, threading.Timer)] or [None]
    if timer is not None:
        timer.join(5)
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("code", "status"), [(0, 0), (1, 1), (127, 127), (137, -9), (143, -15), (168, 168), (255, 255)]
)
def test_the_status_of_a_shell_is_that_of_a_signal_only_where_there_is_one(code: int, status: int) -> None:
    assert status_of(code) == status


@pytest.mark.parametrize("fails", ["the engine", "who hears of it"])
def test_what_else_goes_wrong_does_not_leave_a_task_working(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SECONDS_BETWEEN_TRIES", 0.01)
    is_over, tries = threading.Event(), list[int]()

    def end() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("no JSON") if fails == "the engine" else ExecutorError("EXECUTOR_005", "a", fix="b")
        is_over.set()

    def hear(event: dict[str, Any]) -> None:
        if fails == "who hears of it" and event["event"] == "log":
            raise RuntimeError("not wanted any more")

    def lines() -> Iterator[str]:
        assert is_over.wait(10)
        yield "the end"

    task = TaskOutput(hear, 0.01, end)
    task.follow(lines())
    assert task.ended(lambda: -9).timed_out and len(tries) == 3


def test_a_task_that_says_twice_that_it_works_is_not_ended_before_its_time() -> None:
    ended = threading.Event()

    def lines() -> Iterator[str]:
        yield event_line(event="working")
        yield event_line(event="waiting")
        assert not ended.wait(0.5)

    task = TaskOutput(lambda event: None, 0.2, ended.set)
    task.follow(lines())
    assert not task.ended(lambda: 0).timed_out


@pytest.mark.parametrize(
    ("status", "name"), [(-15, "SIGTERM"), (-64, "SIGRTMAX"), (-40, "signal 40"), (-127, "signal 127")]
)
def test_a_signal_without_a_name_is_said_by_its_number(status: int, name: str) -> None:
    error = unfinished("train", TaskEnd(status, timed_out=False, tail=""), "reward_model", None)
    assert error.code == "TASK_001" and f"was killed ({name})" in error.what
