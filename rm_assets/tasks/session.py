"""The frame of every task: reads the request, holds the lease, reports while it works, and writes the manifest last of all.

A task speaks to its executor in lines on standard output (core/events.py). It ends with exit status 0 only if its manifest is committed. Where its standard
input is a pipe, that comes from the parent: when it closes, the parent is gone and the task ends too.
"""

import errno
import os
import platform
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from rm_assets.core.errors import DataError, RmAssetsError, TaskError
from rm_assets.core.events import event_line
from rm_assets.core.planning.training_plan import num_devices
from rm_assets.core.recipe import Recipe, TrainingSection
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.files import full_or_denied
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import home_of
from rm_assets.storage.hub_datasets import commits_read, go_on_at
from rm_assets.storage.metrics_log import METRICS_LOG, MetricsLog
from rm_assets.storage.requests import read_request
from rm_assets.storage.store import Manifest, Store
from rm_assets.tasks.event_files import EventFiles
from rm_assets.tasks.saved_work import SavedWork, saving
from rm_assets.tasks.statistics import write_statistics
from rm_assets.tasks.used_devices import used_devices

NO_MEMORY = re.compile(
    r"MemoryError|[Cc]an(?:'t|not) allocate memory|[Oo]ut of memory|failed to map segment(?!.*not permitted)"
)
"""The words of Python, PyTorch, JAX, the system, and its loader, which finds no room for a library."""


class MetricsSink(Protocol):
    """What else keeps a training's figures."""

    def training_begins(self, num_steps: int, device: str) -> None:
        """As in Reporter."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """As in Reporter."""


class LineReporter:
    """The Reporter of a task: each call is one line on standard output; a training's figures go to `sinks` too."""

    def __init__(self, *sinks: MetricsSink) -> None:
        self._sinks = sinks

    def emit(self, **event: Any) -> None:
        """Writes one event at once, whole also where another thread (tasks/saved_work.py) writes one."""
        sys.stdout.write(event_line(**event) + "\n")  # print writes the line end by itself
        sys.stdout.flush()

    def log(self, message: str) -> None:
        """One line for people."""
        self.emit(event="log", message=message)

    @contextmanager
    def waiting(self, reason: str) -> Iterator[None]:
        """While the block waits for another process: the executor's time limit does not count it."""
        self.log(f"waiting: {reason}")
        self.emit(event="waiting")
        yield
        self.emit(event="working")

    def progress(self, done: int, total: int, unit: str) -> None:
        """`done` of `total` units are finished."""
        self.emit(event="progress", done=done, total=total, unit=unit)

    def training_begins(self, num_steps: int, device: str) -> None:
        """A training of `num_steps` optimizer steps begins or goes on."""
        self.log(f"{num_steps:,} optimizer steps on {device}")
        self.emit(event="training", num_steps=num_steps, device=device)
        for sink in self._sinks:
            sink.training_begins(num_steps, device)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one optimizer step; whoever hears of them finds them in the log."""
        for sink in self._sinks:
            sink.metrics(step, values)
        self.emit(event="metrics", step=step, values=dict(values))


@dataclass(frozen=True)
class Task:
    """What a task is asked to do. `folder` is where its files go, `folder / "work"` where it may keep state to resume from.

    `worked_on` is filled by workers elsewhere, whose devices are those of the task.
    """

    asset: str
    digest: str
    recipe: Recipe
    store: Store
    inputs: dict[str, Manifest]
    settings: dict[str, Any]
    reporter: LineReporter
    worked_on: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The output folder of this digest."""
        return self.store.folder(self.asset, self.digest)

    def input(self, name: str, file: str) -> Path:
        """A file of an asset that this one reads."""
        return self.store.folder(asset_of(name), self.inputs[name].digest) / file


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a task made: the files that count as content, and what a person sees of them (see storage.store.Manifest)."""

    files: list[str]
    counts: dict[str, int]
    work: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)


def run_task(work: Callable[[Task], Product]) -> None:
    """Makes an asset with `work` for the request file named on the command line, and ends the process."""
    run_process(lambda request, reporter: _run(work, request, reporter))


def run_process(work: Callable[[dict[str, Any], LineReporter], None]) -> None:
    """Runs `work` as a task's process: with the threads of the recipe, its errors as events, and no longer than its parent."""
    if stat.S_ISFIFO(mode := os.fstat(0).st_mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    reporter = LineReporter()
    try:
        request = read_request(sys.argv[1])
        threads = request["recipe"]["execution"]["num_threads"] or os.cpu_count() or 1
        set_environment(threads)
        if "torch" in sys.modules:  # in a task that was forked from a warm process
            sys.modules["torch"].set_num_threads(threads)
        work(request, reporter)
    except RmAssetsError as error:
        reporter.emit(event="error", error=error.to_dict())
        sys.exit(1)
    except Exception as error:
        known = _full_disk(error) or _out_of_memory(error)
        if known is None:
            raise
        reporter.emit(event="error", error=known.to_dict())
        sys.exit(1)


def set_environment(num_threads: int) -> None:
    """What OpenMP, MKL and PyTorch read when they load, so it is set before any of them is imported."""
    os.environ.update(OMP_NUM_THREADS=str(num_threads), TOKENIZERS_PARALLELISM="false")
    # Threads that wait by spinning take the cores from the threads they wait for as soon as anything else runs here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "darwin":  # what Apple's GPU cannot compute goes to the CPU instead of failing
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def _full_disk(error: BaseException | None) -> RmAssetsError | None:
    """STORE_001 if the error, or one that it came from, is a disk that is full or denied.

    safetensors and PyTorch write by themselves and say so in words: "os error 28", "failed writing file".
    """
    while error is not None:
        said = re.search(r"os error (\d+)|failed writing|unexpected pos \d+", str(error))
        if not isinstance(error, OSError) and said:
            error = OSError(int(said[1] or errno.ENOSPC), str(error).splitlines()[0])
        if isinstance(error, OSError):
            known = full_or_denied(error, Path(error.filename or "the task's files"))
            if isinstance(known, RmAssetsError):
                return known
        error = error.__cause__ or error.__context__
    return None


def _out_of_memory(error: BaseException | None) -> RmAssetsError | None:
    """TASK_001 if the error, or one that it came from, is a device or machine without memory left.

    Known by names and words, which also stand in the text that another process of the training ended with.
    """
    while error is not None:
        lines = f"{type(error).__name__}: {error}".splitlines()
        line = next((line for line in reversed(lines) if NO_MEMORY.search(line)), None)
        if line is not None:
            return TaskError(
                "TASK_001",
                "the task found no memory left",
                why=line.strip()[:300],
                fix="for a training, lower execution.training_token_budget or set execution.gradient_checkpointing: "
                "always; else lower execution.token_budget; then run again, it resumes",
            )
        error = error.__cause__ or error.__context__
    return None


def _run(work: Callable[[Task], Product], request: dict[str, Any], reporter: LineReporter) -> None:
    recipe = Recipe.model_validate(request["recipe"])
    asset, of_digest, store = request["asset"], request["digest"], Store(home_of(request["home"]))
    with store.lease(asset, of_digest, partial(reporter.waiting, "another run makes this")):
        if store.manifest(asset, of_digest):
            reporter.emit(event="found")
            return
        inputs = {name: store.manifest(asset_of(name), digest) for name, digest in request["inputs"].items()}
        known = {name: manifest for name, manifest in inputs.items() if manifest}
        if len(known) != len(inputs):
            raise TaskError("TASK_002", f"inputs of {asset} vanished from {store.home}", fix="run again")
        folder, run_id = store.folder(asset, of_digest), request.get("run_id", "")
        folder.mkdir(parents=True, exist_ok=True)
        log = MetricsLog(folder / METRICS_LOG, recipe=recipe.name, asset=asset, digest=of_digest, run_id=run_id)
        events = [EventFiles(store.event_files(recipe.name, of_digest))] if recipe.tracking.tensorboard else []
        sinks: list[MetricsSink] = [log, *events] if request.get("keeps_figures", True) else []
        task = Task(asset, of_digest, recipe, store, known, request["settings"], LineReporter(*sinks))
        with log.ending(), _saved(task, request):
            _make(task, work, run_id)


def _saved(task: Task, request: dict[str, Any]) -> AbstractContextManager[None]:
    """Keeps what the task commits at the store's URL where the request says that this machine may vanish."""
    if not request.get("saves_work") or task.store.remote is None:
        return nullcontext()
    return saving(SavedWork(task.store.remote, task.store.home, task.asset, task.digest), task.reporter.log)


def _make(task: Task, work: Callable[[Task], Product], run_id: str) -> None:
    """Does the work and commits what it made."""
    started = time.monotonic()
    for manifest in task.inputs.values():
        go_on_at(manifest.facts.get("dataset_commits", {}))
    product = work(task)
    _require_same_sources(task)
    extras = [*_statistics(task), *(plot for plot in product.plots if plot not in product.files)]
    record = {f.name: getattr(product, f.name) for f in fields(product) if f.name != "files"} | {
        "asset": task.asset,
        "digest": task.digest,
        "recipe": task.recipe.name,
        "facts": product.facts | ({"dataset_commits": commits_read()} if commits_read() else {}),
        "stage_version": STAGES[task.asset].version,
        "settings": task.settings,
        "inputs": {
            name: {"digest": m.digest, "data_version": m.version_read_by(task.asset)} for name, m in task.inputs.items()
        },
        "made": {
            **_circumstances(task, time.monotonic() - started, run_id),
            **(task.worked_on or used_devices(_num_devices(task))),
        },
    }
    if task.store.remote:
        task.reporter.log(f"uploading to {task.store.remote.url}")
    task.store.commit(record, task.folder, product.files, extras)


def _statistics(task: Task) -> list[str]:
    """Names of the files of statistics, none where they could not be made: what the work has cost is not lost for them."""
    try:
        return write_statistics(task.asset, task.folder)
    # Broad, since a table can bring about any fault here, while the table itself is whole and nothing is built on its statistics.
    except Exception as error:  # noqa: BLE001
        task.reporter.log(f"warning: {task.asset} has no statistics: {type(error).__name__}: {error}")
        return []


def _require_same_sources(task: Task) -> None:
    """Refuses to commit what was made of sources that are not those the digest names."""
    now = STAGES[task.asset].settings(task.recipe, Fingerprints(task.store.home / "fingerprints").of)
    if now != task.settings:
        raise DataError("DATA_010", f"a source of {task.asset} changed while it was read", fix="run again")


def _num_devices(task: Task) -> int:
    is_training = task.asset == "reward_model" and isinstance(task.recipe.training, TrainingSection)
    return num_devices(task.recipe) if is_training else 1


def _circumstances(task: Task, seconds: float, run_id: str) -> dict[str, Any]:
    return {
        "executor": task.recipe.execution.executor_of(STAGES[task.asset].task).kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "run_id": run_id,
        "python": platform.python_version(),
        "peak_memory_mb": _peak_memory_mb(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "rm_assets": version("rm-assets"),
    }


def _peak_memory_mb() -> float | None:
    """The largest resident memory that this process has had, where the system says so (Linux)."""
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.is_file() else None
    return round(int(peak[1]) * 1024 / 1e6, 1) if peak else None


def _end_with_parent() -> None:
    """Waits until the parent's end of the pipe closes, then ends this process group."""
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)
