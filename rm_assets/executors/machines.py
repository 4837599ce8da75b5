"""What the commands that make machines have in common: how they are called, what they refuse, and that each machine is deleted.

A machine's name says for what and by whom it was made: <name of the order>-<host>-<process>-<number>.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import VmExecutor

NAME = re.compile(r"rm-[a-z]+-[0-9a-f]{16}-[0-9a-f]{6}-(?P<host>[a-z0-9]+)-(?P<pid>\d+)-\d+")
GONE = re.compile(r"not found|does not exist|No existing cluster", re.IGNORECASE)
NO_STOCK = re.compile(
    r"ZONE_RESOURCE_POOL_EXHAUSTED|enough resources|stockout|insufficient ?capacity|Failed to acquire resources|Failed to provision",
    re.IGNORECASE,
)
SECONDS_BETWEEN_TRIES = 5.0
NUM_TRIES = 4


class Provider(Protocol):
    """A command that makes machines of one kind."""

    def create(self, name: str, executor: VmExecutor) -> None:
        """Makes a machine that deletes itself in time. Raises: ExecutorError EXECUTOR_002 to EXECUTOR_004."""

    def prepare(self, name: str, executor: VmExecutor) -> None:
        """Waits for it, copies the files and runs `setup`, unless `create` did. Raises: ExecutorError EXECUTOR_003."""

    def command(self, name: str, remote: str) -> list[str]:
        """What runs a shell's command there, with standard input and output from here."""

    def deletion(self, name: str) -> list[str]:
        """What deletes it, asking nobody."""

    def machines(self) -> "list[Found]":
        """Machines that were made for tasks and are still there."""


@dataclass(frozen=True)
class Found:
    """A machine that is there."""

    name: str
    created: str
    is_running: bool
    provider: Provider

    @property
    def driver(self) -> str:
        """Who made it: `HOST-PROCESS`."""
        found = NAME.fullmatch(self.name)
        return f"{found['host']}-{found['pid']}" if found else "unknown"

    @property
    def is_left_over(self) -> bool:
        """Whether the process that made it was one of this machine, and has ended."""
        found = NAME.fullmatch(self.name)
        if not found or found["host"] != _host():
            return False
        try:
            os.kill(int(found["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # of another user
            return False
        return False


def name_of(order_name: str, number: int) -> str:
    """The name of the machine that this process makes for an order as its `number`-th. Letters, digits, hyphens; at most 63."""
    return f"{order_name}-{_host()}-{os.getpid()}-{number}"


def _host() -> str:
    """This machine, of a container the container, in 12 letters; names of hosts often begin alike, so the last six are of the whole."""
    whole = socket.gethostname()
    with contextlib.suppress(OSError):  # where processes have the numbers that names of machines tell of
        whole += os.readlink("/proc/self/ns/pid")
    return re.sub(r"[^a-z0-9]", "", socket.gethostname().lower())[:6] + sha256(whole.encode()).hexdigest()[:6]


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; if this is interrupted, it ends. Raises: ExecutorError EXECUTOR_002 if there is none."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise ExecutorError(
            "EXECUTOR_002", f"the command {command[0]} is not there", fix="install it and log in"
        ) from None
    try:
        out, err = process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def require(done: subprocess.CompletedProcess[str], what: str) -> str:
    """What a command said on standard output. Raises: ExecutorError EXECUTOR_003 if it failed."""
    if done.returncode != 0:
        fix = "run the command by hand; nothing is lost"
        raise ExecutorError("EXECUTOR_003", f"{what} failed", why=_words(done), fix=fix)
    return done.stdout


def require_machine(done: subprocess.CompletedProcess[str], machine: str) -> None:
    """Raises: ExecutorError EXECUTOR_004 if there was no stock or quota for a machine, EXECUTOR_003 if it was not made for another reason."""
    words = _words(done)
    if done.returncode != 0 and re.search(r"quota", words, re.IGNORECASE):
        fix = "ask for more, or for another machine or region"
        raise ExecutorError("EXECUTOR_004", f"no {machine}: the quota is used up", why=words, fix=fix)
    if done.returncode != 0 and NO_STOCK.search(words):
        fix = "ask for another zone or machine, let it wait in the queue (flex_start), or run again later"
        raise ExecutorError("EXECUTOR_004", f"no {machine}: none is in stock", why=words, fix=fix)
    require(done, f"making {machine}")


def _words(done: subprocess.CompletedProcess[str]) -> str:
    """The last of what a command said."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return "\n".join(lines[-10:])


def delete(provider: Provider, name: str, *, is_known: bool = True, refusal: ExecutorError | None = None) -> None:
    """Deletes a machine, if it is there. Where its creation was interrupted and it is not `known` yet, it is looked for longer.

    `refusal` is why it was not made as it should be. Raises: ExecutorError EXECUTOR_005 if it may still be there.
    """
    command = provider.deletion(name)
    for number in range(NUM_TRIES):
        if number:
            time.sleep(SECONDS_BETWEEN_TRIES)
        done = call(command)
        is_gone = done.returncode != 0 and bool(GONE.search(done.stderr + done.stdout))
        if done.returncode == 0 or (is_gone and (is_known or number == NUM_TRIES - 1)):
            return
    if refusal:  # what keeps one from being made, such as a missing login, may keep it from being deleted
        raise ExecutorError(
            "EXECUTOR_005",
            f"{refusal.what}, and whether the machine {name} is there could not be found out",
            why=refusal.why,
            fix=f"{refusal.fix}; then look with `rm-assets machines`",
        )
    raise ExecutorError(
        "EXECUTOR_005",
        f"the machine {name} could not be deleted",
        why=_words(done),
        fix=f"it costs money until it deletes itself; type: {' '.join(command)}",
    )
