"""Tasks on another machine over OpenSSH.

The environment that a task is given travels on standard input, so that no list of processes shows it. The same pipe is what the
task lives by: when this process ends, ssh ends, the pipe closes there, and the task ends its process group.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import SshExecutor
from rm_assets.executors.remote import Order

OPTIONS = (
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=20",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ServerAliveCountMax=4",
)
"""No terminal, no question that nobody answers; a dead connection is known after a minute."""
FAILED_CONNECTION = 255


class SshTask:
    """The ssh process, which lives as long as the task."""

    def __init__(self, process: subprocess.Popen[str], host: str) -> None:
        self._process, self._host = process, host
        self._is_ended = False

    def lines(self) -> Iterator[str]:
        """As in RemoteTask."""
        assert self._process.stdout is not None
        yield from self._process.stdout

    def status(self) -> int:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_003 if the connection failed."""
        status = self._process.wait()
        if status == FAILED_CONNECTION and not self._is_ended:
            raise ExecutorError(
                "EXECUTOR_003", f"the connection to {self._host} failed or broke",
                why="ssh ended with status 255; the lines above are its words",
                fix=f"try `ssh {self._host} true`; then run again",
            )  # fmt: skip
        return status - 256 if status > 128 else status

    def end(self) -> None:
        """As in RemoteTask."""
        self._is_ended = True
        self._process.kill()


@contextmanager
def start_over_ssh(executor: SshExecutor, order: Order) -> Iterator[SshTask]:
    """As remote.Start. Raises: ExecutorError EXECUTOR_002 without ssh, EXECUTOR_003 for a variable that is not set."""
    if shutil.which("ssh") is None:
        raise ExecutorError("EXECUTOR_002", "the command ssh is not there", fix="install OpenSSH's client")
    missing = [name for name in executor.environment if name not in os.environ]
    if missing:
        raise ExecutorError(
            "EXECUTOR_003", f"the variable {missing[0]} is not set", why="execution gives it to the task on the other machine",
            fix=f"set {missing[0]}, or remove it from `environment`",
        )  # fmt: skip
    command = f"exec {shlex.join([executor.python, '-m', 'rm_assets.tasks.remote', order.task, order.request])}"
    process = subprocess.Popen(
        ["ssh", *OPTIONS, executor.host, command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps({name: os.environ[name] for name in executor.environment}) + "\n")
        process.stdin.flush()
        yield SshTask(process, executor.host)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
