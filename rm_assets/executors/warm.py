"""A process that has imported the libraries which tasks are slow to import, and forks a task whenever it is asked for one.

PyTorch and transformers take seconds to import, on a small machine longer than many a task works. The server imports nothing of
rm_assets that a task uses, so that a task runs the code that is there when it starts. It ends when the process that
started it does. Only on Linux, where a fork is safe with these libraries, and not beside an NVIDIA driver, whose state does not
survive one; elsewhere, with RM_ASSETS_FORK_TASKS=off, and until the server is ready, tasks start as processes of their own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TextIO

PRELOADED = (
    "numpy", "pydantic", "pyarrow.parquet", "torch", "safetensors.torch", "accelerate", "transformers.modeling_utils",
    "transformers.generation.utils", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "scipy.stats", "matplotlib.figure",
)  # fmt: skip
READ_BY_IMPORTS = (
    "ACCELERATE_", "CUDA_", "GOMP_", "HF_", "HOME", "HUGGINGFACE_", "KMP_", "LC_", "LD_", "MALLOC_", "MKL_", "MPL", "OMP_", "OPENBLAS_", "PATH",
    "PYTHON", "PYTORCH_", "SAFETENSORS_", "TMPDIR", "TORCH", "TRANSFORMERS_", "USE_", "XDG_",
)  # fmt: skip
"""How the names of environment variables begin that Python or a library reads when it starts or is imported."""
MAX_REQUEST = 1 << 20


class WarmTask:
    """A task that the server has forked, with what the executor needs of subprocess.Popen."""

    def __init__(self, pid: int, stdin: TextIO, stdout: TextIO, status: socket.socket) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._socket, self._lock = status, threading.Lock()
        self._status: int | None = None

    def wait(self) -> int:
        """The exit status, minus the signal's number, once the task has ended."""
        with self._lock:
            if self._status is None:
                said = self._socket.recv(32)
                self._status = int(said) if said else -signal.SIGKILL  # nobody is left to say it
                self._socket.close()
            return self._status


class WarmServer:
    """The server as the process sees it that has started it."""

    def __init__(self, preloaded: Sequence[str] = PRELOADED) -> None:
        self._owner, self._environment, self._ready = os.getpid(), _read_by_imports(), False
        self._control, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *preloaded],
                stdin=its_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # Read by OpenMP when it is loaded; see tasks/session.py.
                env=dict(os.environ) | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")},
            )

    @property
    def is_ready(self) -> bool:
        """Whether it has imported all, for a process whose environment is as it was."""
        if os.getpid() != self._owner or _read_by_imports() != self._environment:
            return False
        if not self._ready:
            with contextlib.suppress(BlockingIOError):
                self._ready = bool(self._control.recv(1, socket.MSG_DONTWAIT))
        return self._ready

    def start(self, task: str, request: Path) -> WarmTask | None:
        """The task `rm_assets.tasks.<task>` in a process group of its own; None if the server cannot."""
        message = {"task": task, "request": str(request), "folder": os.getcwd(), "environment": dict(os.environ)}
        stdin_of_task, stdin = os.pipe()
        stdout, stdout_of_task = os.pipe()
        status, status_of_task = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given, pid = [stdin_of_task, stdout_of_task, status_of_task.detach()], b""
        # The executor closes them with the task; what is not a task by now, or was interrupted here, has no parent.
        kept = os.fdopen(stdin, "w", encoding="utf-8"), os.fdopen(stdout, encoding="utf-8", errors="replace"), status
        try:
            with contextlib.suppress(OSError):  # it has died, or this environment is larger than a message may be
                socket.send_fds(self._control, [json.dumps(message).encode()], given)
                pid = status.recv(32)
        finally:
            for each in given:
                os.close(each)
            if not pid.isdigit():  # nothing, or how a task ended that did not come to say its number
                for end in kept:
                    end.close()
        return WarmTask(int(pid), *kept) if pid.isdigit() else None

    def close(self) -> None:
        """Ends the server; its tasks go on."""
        self._control.close()
        self._process.kill()
        self._process.wait()


@cache
def keep_warm() -> WarmServer | None:
    """The server of this process, started with the first call; None where there is to be none."""
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists() or os.environ.get("RM_ASSETS_FORK_TASKS") == "off":
        return None
    return WarmServer()


def start_warm(task: str, request: Path) -> WarmTask | None:
    """The task, forked from the server; None if there is none, or it is not ready."""
    server = keep_warm() if keep_warm.cache_info().currsize else None
    return server.start(task, request) if server is not None and server.is_ready else None


def _read_by_imports() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_BY_IMPORTS)}


def _serve() -> NoReturn:
    """Imports what its arguments name, then forks until its starter is gone."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # a task's waiter would hold this end open, and who asks would wait for it
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # the task that needs it says so
            importlib.import_module(name)
    gc.freeze()  # so that no task's collector touches, and thereby copies, what they share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        control.send(b"1")
        while True:
            message, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 3)
            if not message:
                break
            if os.fork() == 0:
                control.close()
                _fork_task(json.loads(message), *fds)
            for each in fds:
                os.close(each)
    finally:  # also by an error, and in a fork whose asker is gone: what was imported is not taken apart, which may hang
        os._exit(0)


def _fork_task(asked: dict[str, Any], stdin: int, stdout: int, status: int) -> NoReturn:
    """Forks the task, waits for it and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel = socket.socket(fileno=status)
    pid = os.fork()
    if pid:
        os.close(stdin)
        os.close(stdout)
        _, ended = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # nobody waits for it
            channel.send(str(os.waitstatus_to_exitcode(ended)).encode())
        os._exit(0)
    os.setsid()
    for new, old in ((stdin, 0), (stdout, 1), (stdout, 2)):
        os.dup2(new, old)
    os.close(stdin)
    os.close(stdout)
    with channel:
        channel.send(str(os.getpid()).encode())
    _run(**asked)


def _run(task: str, request: str, folder: str, environment: dict[str, str]) -> NoReturn:
    """Does what `python -m rm_assets.tasks.<task> <request>` does, and does without taking apart all that was imported."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = [request]
    status: Any = 0
    try:
        runpy.run_module(f"rm_assets.tasks.{task}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    # Broad, since whatever it is, the process is to end with its traceback.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
