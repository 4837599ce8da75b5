"""What a task says, and how it ends, wherever it runs."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rm_assets.core.errors import ExecutorError, TaskError
from rm_assets.core.events import parse_line

TAIL_LINES = 30
SECONDS_BETWEEN_TRIES = 15.0
OnEvent = Callable[[dict[str, Any]], None]
SIGNALS = frozenset(map(int, signal.Signals))
"""Numbers that have a name."""


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended: exit status (minus the signal's number), whether it ran out of time, its last words."""

    status: int
    timed_out: bool
    tail: str


def unfinished(task: str, end: TaskEnd, result: str, timeout_seconds: float | None) -> TaskError:
    """Why a task that ended did not give its result."""
    if end.timed_out:
        return TaskError(
            "TASK_003",
            f"task {task} was ended after {timeout_seconds} s",
            fix="raise execution.timeout_seconds or task_timeout_seconds; committed shards and training state are kept",
        )
    if end.status < 0:
        name = signal.Signals(-end.status).name if -end.status in SIGNALS else f"signal {-end.status}"
        why = "out of memory, or somebody ended it" if name == "SIGKILL" else f"the process got {name}"
        return TaskError(
            "TASK_001",
            f"task {task} was killed ({name}) before {result} was there",
            why=why,
            fix="run again: it resumes from its committed shards or training state",
        )
    return TaskError(
        "TASK_002",
        f"task {task} failed with exit status {end.status}",
        why=f"its last words were:\n{end.tail}",
        fix="if this is no fault of the machine, report it with these lines",
    )


class TaskOutput:
    """Passes on a task's events as they come, and ends a task that works for longer than it may."""

    def __init__(self, on_event: OnEvent, timeout_seconds: float | None, end: Callable[[], None]) -> None:
        self._on_event, self._limit = on_event, _TimeLimit(timeout_seconds, self._end)
        self._end_task = end
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def follow(self, lines: Iterable[str]) -> None:
        """Every event goes to `on_event` when it happens; other output is an event "output". Time stands still while it waits."""
        self._limit.run()
        try:
            for line in lines:
                event = parse_line(line)
                if event["event"] == "output":
                    self._tail.append(event["message"])
                if event["event"] == "waiting":
                    self._limit.pause()
                elif event["event"] == "working":
                    self._limit.run()
                else:
                    self._on_event(event)
        except BaseException:
            self._limit.pause()
            raise

    def _end(self) -> bool:
        """Whether the task could be ended; what is elsewhere may not answer just now."""
        try:
            self._end_task()
        # Broad, since this is a thread of its own: whatever ended it, nobody would end the task.
        except Exception as error:  # noqa: BLE001
            said = str(error) if isinstance(error, ExecutorError) else repr(error)
            with suppress(Exception):  # what `on_event` raises wants the task's end, which is tried anyway
                self._on_event(
                    {"event": "log", "message": f"the task's time is over, it is tried again to end it: {said}"}
                )
            return False
        return True

    def ended(self, status: Callable[[], int]) -> TaskEnd:
        """The end of the task, once it has ended; whatever `status` raises."""
        try:
            code = status()
        finally:
            self._limit.pause()
        return TaskEnd(code, self._limit.is_over, "\n".join(self._tail))


class _TimeLimit:
    """Calls `end` after some seconds (None: never) in which a task worked, until that is true; while it waits for another, time stands still."""

    def __init__(self, seconds: float | None, end: Callable[[], bool]) -> None:
        self._left, self._end_task = seconds, end
        self._timer: threading.Timer | None = None
        self._stands_still = threading.Event()
        self.is_over = False

    def run(self) -> None:
        """Time goes on, if it does not."""
        if self._left is not None and self._timer is None:
            self._since = time.monotonic()
            self._stands_still.clear()
            self._timer = threading.Timer(self._left, self._end)
            self._timer.start()

    def pause(self) -> None:
        """Time stands still."""
        if self._left is not None and self._timer is not None:
            self._timer.cancel()
            self._stands_still.set()
            self._timer = None
            self._left -= time.monotonic() - self._since

    def _end(self) -> None:
        self.is_over = True
        while not self._end_task() and not self._stands_still.wait(SECONDS_BETWEEN_TRIES):
            pass
