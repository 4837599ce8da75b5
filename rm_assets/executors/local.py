"""Tasks as processes on this machine, each in its own process group."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

from rm_assets.executors.output import OnEvent, TaskEnd, TaskOutput
from rm_assets.executors.warm import WarmTask, start_warm


def run_local(task: str, request: Path, on_event: OnEvent, *, timeout_seconds: float | None = None) -> TaskEnd:
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
    output = TaskOutput(on_event, timeout_seconds, partial(_end_group, process))
    # Processes that a task leaves behind would hold its output open, and this reader with it.
    watcher = threading.Thread(target=_end_group_after, args=[process], daemon=True)
    try:
        watcher.start()
        assert process.stdout is not None
        output.follow(process.stdout)
        return output.ended(process.wait)
    finally:
        _end_group(process)
        watcher.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


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
