"""Tasks on another machine over OpenSSH.

The environment that a task is given travels on standard input, so that no list of processes shows it. The same pipe is what the
task lives by: when this process ends, ssh ends, the pipe closes there, and the task ends (tasks/remote.py).
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rm_assets.core.errors import ExecutorError
from rm_assets.core.events import event_line, parse_line
from rm_assets.core.recipe import SshExecutor
from rm_assets.executors.remote import Order, variables_of

OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ConnectTimeout=20",
    "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
)  # fmt: skip
"""No terminal, no question that nobody answers, no connection that stays; a dead one is known after a minute."""
ENDS = event_line(event="ends", status=0).partition(",")[0]
"""How the last line begins. A task that was killed may have left half a line before it."""
REFUSALS = {
    r"Can't open user config": ("its configuration file is not there", "correct `config` of the executor"),
    r"Could not resolve hostname": ("no machine of that name is known", "correct the host, or name it in ~/.ssh/config"),
    r"Connection refused|timed out|No route|unreachable": ("it does not answer", "see that it runs, with sshd, on the port of ~/.ssh/config"),
    r"Host key verification failed": (
        "its host key is not known here, or is another one than was known",
        "connect by hand once and compare the key with the one that its owner gives",
    ),
    r"Permission denied \(": ("it refuses this account or its key", "add the public key to ~/.ssh/authorized_keys there"),
    r"No module named '?rm_assets": (
        "rm_assets is not installed there, or in another version",
        "install the same version there, and name its Python in the executor",
    ),
    r"not found|No such file|[Pp]ermission denied": ("there is no such Python", "name the Python there in the executor: `python: /path/to/python`"),
}  # fmt: skip
"""Words of ssh, a shell or Python, what they mean, and what helps."""


class PipedTask:
    """A process here whose output is that of a task elsewhere, and which lives as long as the task."""

    def __init__(self, process: subprocess.Popen[str], place: str) -> None:
        self._process, self._place = process, place
        self._status: int | None = None
        self._is_ended = False

    def begin(self, variables: dict[str, str]) -> None:
        """Gives the task its variables, and waits until it has them. Raises: ExecutorError EXECUTOR_003 if it does not begin."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
            self._process.stdin.write(json.dumps(variables) + "\n")
            self._process.stdin.flush()
        words = list[str]()
        for line in self._output():
            event = parse_line(line)
            if event["event"] == "begins":
                return
            words.append(event.get("message", ""))
        said = "\n".join(words[-10:])
        known = (refusal for pattern, refusal in REFUSALS.items() if re.search(pattern, said))
        what, fix = next(known, ("the task did not begin", "run a command there by hand, as this did"))
        raise ExecutorError("EXECUTOR_003", f"{self._place}: {what}", why=said or "it said nothing", fix=fix)

    def lines(self) -> Iterator[str]:
        """As in RemoteTask."""
        for line in self._output():
            words, ends, status = line.partition(ENDS)
            if words:
                yield words
            if ends:
                self._status = parse_line(ends + status).get("status")  # none where the connection broke within it

    @property
    def is_cut_off(self) -> bool:
        """Whether its output has ended though the task has not, and nobody here has ended it."""
        return self._status is None and not self._is_ended

    def status(self) -> int:
        """As in RemoteTask. Raises: ExecutorError EXECUTOR_003 if the connection broke."""
        if self.is_cut_off:
            raise ExecutorError(
                "EXECUTOR_003",
                f"{self._place}: the connection broke",
                why="what it said last are the lines above; the task ends there as soon as its machine knows",
                fix="run again: it resumes from its committed shards or training state",
            )
        return -signal.SIGKILL if self._status is None else self._status

    def _output(self) -> Iterator[str]:
        assert self._process.stdout is not None
        # Unlike a generator over the file, this closes nothing where a reader leaves it.
        return iter(self._process.stdout.readline, "")

    def end(self) -> None:
        """As in RemoteTask."""
        self._is_ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


@contextmanager
def start_piped(command: Sequence[str], variables: dict[str, str], place: str) -> Iterator[PipedTask]:
    """Starts `command`, which runs `remote_command` at a place. Raises: ExecutorError EXECUTOR_003 if no task begins there."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    task = PipedTask(process, place)
    try:
        task.begin(variables)
        yield task
    finally:
        task.end()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def remote_command(python: str, order: Order) -> str:
    """What a shell there runs."""
    return f"exec {shlex.join([python, '-m', 'rm_assets.tasks.remote', order.task, order.request])}"


@contextmanager
def start_over_ssh(executor: SshExecutor, order: Order) -> Iterator[PipedTask]:
    """As remote.Start. Raises: ExecutorError EXECUTOR_002 without ssh, EXECUTOR_003 if no task begins there."""
    if shutil.which("ssh") is None:
        raise ExecutorError("EXECUTOR_002", "the command ssh is not there", fix="install OpenSSH's client")
    configuration = ["-F", str(Path(executor.config).expanduser())] if executor.config else []
    command = ["ssh", *OPTIONS, *configuration, "--", executor.host, remote_command(executor.python, order)]
    with start_piped(command, variables_of(executor.environment), executor.host) as task:
        yield task
