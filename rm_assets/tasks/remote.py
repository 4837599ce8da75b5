"""`python -m rm_assets.tasks.remote TASK REQUEST`: runs a task for an executor on another machine, at the far end of a pipe.

The first line of standard input is a JSON object, the variables that the task is given. Then nothing comes: the end of the input
says that the executor is gone, and the task ends with all that it has started. The exit status is the task's,
128 and the number of the signal where one ended it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

from rm_assets.core.events import event_line


def _first_line() -> bytes:
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes(line)


def _end_group(task: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(task.pid, signal.SIGKILL)


def _end_with_executor(task: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _end_group(task)


def _run(name: str, request: str) -> int:
    variables = os.environ | json.loads(_first_line() or b"{}")
    print(event_line(event="begins"), flush=True)
    task = subprocess.Popen(
        [sys.executable, "-m", f"rm_assets.tasks.{name}", request],
        stdin=subprocess.PIPE,  # closes when this process is killed, by which the task knows
        env=variables,
        start_new_session=True,
    )
    threading.Thread(target=_end_with_executor, args=[task], daemon=True).start()
    status = task.wait()
    _end_group(task)  # processes that it leaves behind would hold the output open
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(_run(*sys.argv[1:]))
