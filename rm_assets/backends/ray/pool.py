"""Workers on the cluster that this process is a job of: work goes to whichever is free, and lost work to another.

A worker is an actor, so it holds its CPUs and GPUs, and its model, for as long as there is work. Where the cluster has no room for all of
them, those that are there begin; the rest begin when nodes join. For one that dies another is asked for.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from rm_assets.core.errors import ExecutorError, TaskError
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import RayExecutor

MOST_DEATHS = 8
"""Workers that may die one after another while none finishes anything."""
SECONDS_TO_BEGIN = 60.0
OURS = "rm-assets"


class Model(Protocol):
    """What a worker holds: a sampler or a scorer."""

    @property
    def identity(self) -> Mapping[str, str]:
        """As in Sampler and Scorer."""

    @property
    def num_tokens_forwarded(self) -> int:
        """Tokens computed so far."""


Held = TypeVar("Held", bound=Model)
Work = TypeVar("Work")
Done = TypeVar("Done")


class Worker(Generic[Held, Work, Done]):
    """One worker's process. It loads its model in `begin` and not before, so that what goes wrong is told as it is."""

    def __init__(
        self, load: Callable[[], Held], compute: Callable[[Held, Work], Done], device: Callable[[], str], num_threads: int | None
    ) -> None:  # fmt: skip
        # As run_process: read when the libraries load. Without num_threads Ray has set as many as the worker holds CPUs.
        os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="PASSIVE")
        if num_threads:
            os.environ["OMP_NUM_THREADS"] = str(num_threads)
        self._load, self._compute, self._device = load, compute, device

    def begin(self) -> tuple[dict[str, str], tuple[str, str]]:
        """What decides its results: the model's identity and our version; where it is, and on what device."""
        import ray

        self._model = self._load()
        place = f"process {os.getpid()} on node {ray.get_runtime_context().get_node_id()[:8]}"
        return {**self._model.identity, OURS: version(OURS)}, (place, self._device())

    def work(self, work: Work) -> tuple[Done, int]:
        """The work done, and the tokens that it took."""
        before = self._model.num_tokens_forwarded
        done = self._compute(self._model, work)
        return done, self._model.num_tokens_forwarded - before


class WorkerPool(AbstractContextManager["WorkerPool[Held, Work, Done]"], Generic[Held, Work, Done]):
    """Up to `executor.workers` workers, each holding what the executor says; ended with the block.

    `load`, `compute` and `device`, which names what a worker's model is on, are called in the workers, and have to be importable there.
    `worked_on` gets `device` and `num_devices`: the most workers that there were at a time, or the GPUs that they shared. Raises: ExecutorError EXECUTOR_003 if
    the models of two workers are not of the same identity, as on a CPU and a GPU: their results would not be alike.
    """

    def __init__(
        self, executor: RayExecutor, load: Callable[[], Held], compute: Callable[[Held, Work], Done],
        device: Callable[[], str], *, num_threads: int | None, reporter: Reporter, worked_on: dict[str, Any],
    ) -> None:  # fmt: skip
        import ray

        if not ray.is_initialized():
            ray.init(address="auto")
        self._ray, self._reporter = ray, reporter
        lost = ray.exceptions
        self._deaths = (lost.RayActorError, lost.NodeDiedError, lost.ObjectLostError, lost.OutOfMemoryError)
        self._make = ray.remote(Worker).options(
            num_cpus=executor.cpus, num_gpus=executor.gpus, resources=executor.resources or None,
            memory=executor.memory_bytes,
        )  # fmt: skip
        self._arguments = (load, compute, device, num_threads)
        self._calls = dict[Any, tuple[Any, Any]]()  # what is under way: its worker and work, no work while it begins
        self._free, self._lost = deque[Any](), deque[Any]()
        self._num_deaths = self._num_deaths_in_a_row = self._num_begun = self._num_alive = 0
        self._worked_on, self._share_of_device = worked_on, min(executor.gpus or 1, 1)
        self._kind: dict[str, str] | None = None
        self.num_tokens_forwarded = 0
        self.facts = dict[str, int]()
        """None: what a worker had to do, such as to halve its token budget, is in its own log."""
        for _ in range(executor.workers):
            self._ask_for_worker()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in [*self._free, *(worker for worker, _ in self._calls.values())]:
            self._ray.kill(worker)
        if kind is None:
            self._reporter.log(f"{self._num_begun} workers began, {self._num_deaths} died")

    @property
    def identity(self) -> Mapping[str, str]:
        """That of every worker's model; waits for the first."""
        while self._kind is None:
            self._next()
        return {name: value for name, value in self._kind.items() if name != OURS}

    def each(self, work: Iterable[Work]) -> Iterator[tuple[Work, Done]]:
        """Each piece of work with what came of it, as it comes. So much of `work` is asked for as there are free workers."""
        waiting = iter(work)
        while True:
            while self._free:
                piece = self._lost.popleft() if self._lost else next(waiting, None)
                if piece is None:
                    break
                worker = self._free.popleft()
                self._calls[worker.work.remote(piece)] = (worker, piece)
            if not self._lost and all(piece is None for _, piece in self._calls.values()) and self._free:
                return
            yield from self._next()

    def _next(self) -> Iterator[tuple[Work, Done]]:
        """Waits for one call: a worker that has begun, or died, or done its work, which is given."""
        if not self._num_begun and not self._ray.wait(list(self._calls), timeout=SECONDS_TO_BEGIN)[0]:
            self._reporter.log(
                "waiting: no worker has begun; the cluster has no room for one, or its model is being loaded"
            )
        (call, *_), _ = self._ray.wait(list(self._calls))
        worker, piece = self._calls.pop(call)
        try:
            answer, more = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._deaths as error:
            self._ray.kill(worker)  # where only its answer is lost
            self._died(piece, error)
            return iter(())
        self._free.append(worker)
        if piece is None:
            self._begun(answer, *more)
            return iter(())
        self._num_deaths_in_a_row = 0
        self.num_tokens_forwarded += more
        return iter([(piece, answer)])

    def _ask_for_worker(self) -> None:
        worker: Any = self._make.remote(*self._arguments)
        self._calls[worker.begin.remote()] = (worker, None)

    def _begun(self, kind: dict[str, str], place: str, device: str) -> None:
        self._num_begun, self._num_alive = self._num_begun + 1, self._num_alive + 1
        num_devices = math.ceil(self._num_alive * self._share_of_device)
        self._worked_on.update(device=device, num_devices=max(num_devices, self._worked_on.get("num_devices", 0)))
        self._reporter.log(f"worker {self._num_begun} begins: {place}")
        others = self._kind or {**kind, OURS: version(OURS)}
        if kind != others:
            raise ExecutorError(
                "EXECUTOR_003", f"the worker in {place} would not compute as the others do",
                why=f"it has {kind}, they have {others}",
                fix="give all nodes the same packages, and ask for `gpus` or `resources` that only nodes of one kind have",
            )  # fmt: skip
        self._kind = kind

    def _died(self, piece: Work | None, error: Exception) -> None:
        self._num_deaths, self._num_deaths_in_a_row = self._num_deaths + 1, self._num_deaths_in_a_row + 1
        why = str(error).strip().splitlines()[0]
        if self._num_deaths_in_a_row >= MOST_DEATHS:
            raise TaskError(
                "TASK_001", f"{MOST_DEATHS} workers died one after another", why=why,
                fix="give each more memory_gb, or lower execution.token_budget; then run again, it resumes",
            )  # fmt: skip
        self._reporter.log(f"a worker died, another is asked for: {why}")
        if piece is not None:
            self._num_alive -= 1
            self._lost.append(piece)
        self._ask_for_worker()
