"""Containers of the stand-ins: a process group of this machine, with an environment of its own and a log with times."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator


class Container:
    """A container that runs. With its first process all others end."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.log: list[tuple[float, bytes]] = []
        self._changed, self._is_over = threading.Condition(), False
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._threads = [threading.Thread(target=work) for work in (self._read, self._end_group)]
        for thread in self._threads:
            thread.start()

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """How it ended, once all it said is in the log: its exit status, or minus a signal's number."""
        for thread in self._threads:
            thread.join()
        return self._process.wait()

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """The log, with Unix times, as it grows."""
        num_given, is_over = 0, False
        while not is_over:
            with self._changed:
                if len(self.log) == num_given and not self._is_over:
                    self._changed.wait()
                new, is_over = self.log[num_given:], self._is_over
            num_given += len(new)
            yield from new

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self.log.append((time.time(), line))
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _end_group(self) -> None:
        self._process.wait()
        self.kill()
