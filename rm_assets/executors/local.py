"""Tasks as processes on this machine, each in its own process group."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_assets.core.events import parse_line
from rm_assets.executors.warm import WarmTask, start_warm

TAIL_LINES = 30


@dataclass(frozen=True)
class TaskEnd:
    """How a task process ended: exit status (minus the signal's number), whether it ran out of time, its last words."""

    status: int
    timed_out: bool
    tail: str


def run_local(
    task: str, request: Path, on_event: Callable[[dict[str, Any]], None], *, timeout_seconds: float | None = None
) -> TaskEnd:
    """Runs `python -m rm_assets.tasks.<task> <request>` to its end, forked from a warm process where there is one.

    Every event goes to `on_event` when it happens; other output is an event "output". If the caller is interrupted, or this
    process dies, the task's whole process group ends.
    """
    process = start_warm(task, request) or subprocess.Popen(
        [sys.executable, "-m", f"rm_assets.tasks.{task}", str(request)],
        stdin=subprocess.PIPE,  # closes when this process dies, by which the task knows
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    limit = _TimeLimit(timeout_seconds, process)
    # Processes that a task leaves behind would hold its output open, and this reader with it.
    watcher = threading.Thread(target=_end_group_after, args=[process], daemon=True)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        limit.run()
        watcher.start()
        assert process.stdout is not None
        for line in process.stdout:
            event = parse_line(line)
            if event["event"] == "output":
                tail.append(event["message"])
            if event["event"] == "waiting":
                limit.pause()
            elif event["event"] == "working":
                limit.run()
            else:
                on_event(event)
        status = process.wait()
    finally:
        limit.pause()
        _end_group(process)
        watcher.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
    return TaskEnd(status, limit.is_over, "\n".join(tail))


class _TimeLimit:
    """Ends a task after some seconds (None: never) in which it worked; while it waits for another process, time stands still."""

    def __init__(self, seconds: float | None, process: subprocess.Popen[str] | WarmTask) -> None:
        self._left, self._process = seconds, process
        self._timer: threading.Timer | None = None
        self.is_over = False

    def run(self) -> None:
        """Time goes on."""
        if self._left is not None:
            self._since = time.monotonic()
            self._timer = threading.Timer(self._left, self._end)
            self._timer.start()

    def pause(self) -> None:
        """Time stands still."""
        if self._left is not None and self._timer is not None:
            self._timer.cancel()
            self._left -= time.monotonic() - self._since

    def _end(self) -> None:
        self.is_over = True
        _end_group(self._process)


def start_fault(timeout_seconds: float = 10.0) -> str | None:
    """Why a task's process does not start here, or None if it does: one begins, loads the frame of all tasks, and ends."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "import rm_assets.tasks.session"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return None if ended.returncode == 0 else f"exit status {ended.returncode}: {last[0]}"


def _end_group_after(process: subprocess.Popen[str] | WarmTask) -> None:
    process.wait()
    _end_group(process)


def _end_group(process: subprocess.Popen[str] | WarmTask) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
