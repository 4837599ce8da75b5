"""Each subject lives in a process of its own and works only when it is told to, so subjects can take turns in one run.

A process has its own clock of CPU time and its own peak memory, and nothing of one subject warms or burdens another.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from benchmarks.measure import peak_bytes

PRELOADED = ["benchmarks.training", "benchmarks.scoring", "benchmarks.sampling"]


class Worker:
    """A subject in another process. `make` is called there; its result has a method `run`."""

    def __init__(self, make: Callable[..., Any], *args: Any, device: str, num_threads: int) -> None:
        # CUDA does not survive a fork; on a CPU, forking a process that has imported everything saves a minute.
        context: Any = multiprocessing.get_context("spawn" if device == "cuda" else "forkserver")
        if device != "cuda":
            context.set_forkserver_preload(PRELOADED)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args, device, num_threads), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, **options: Any) -> Any:
        """What the subject's `run` gives. Raises: RuntimeError with the traceback of what it raised."""
        return self._ask("run", options)

    def peak_bytes(self) -> int:
        """The most memory the subject has had beyond what its imports take."""
        return int(self._ask("peak", {}))

    def _ask(self, what: str, options: dict[str, Any]) -> Any:
        self._connection.send((what, options))
        is_right, answer = self._connection.recv()
        if not is_right:
            raise RuntimeError(f"a subject failed:\n{answer}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.terminate()


class Workers:
    """The subjects of one comparison, by name; in a `with`, so that their processes end with it."""

    def __init__(self, made: Mapping[str, tuple[Any, ...]], *, device: str, num_threads: int) -> None:
        self._workers = {
            name: Worker(*call, device=device, num_threads=num_threads) for name, call in made.items()
        }  # fmt: skip

    def __enter__(self) -> dict[str, Worker]:
        return self._workers

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.close()


def alternate(
    workers: Mapping[str, Worker], rounds: int, options: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, list[Any]]:
    """The results of each subject, round by round; each round another subject goes first. `options` are for each."""
    results: dict[str, list[Any]] = {name: [] for name in workers}
    names = list(workers)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(workers[name].run(round_number=number, **(options or {}).get(name, {})))
    return results


def _serve(
    connection: Connection, make: Callable[..., Any], args: tuple[Any, ...], device: str, num_threads: int
) -> None:
    torch.set_num_threads(num_threads)
    before = 0 if device == "cuda" else peak_bytes()
    subject = None
    while True:
        try:
            what, options = connection.recv()
        except EOFError:
            return
        try:
            if subject is None:
                subject = make(*args)
            connection.send((True, peak_bytes() - before if what == "peak" else subject.run(**options)))
        except Exception:  # noqa: BLE001 - whatever it was, the other process raises it
            connection.send((False, traceback.format_exc()))
