"""The JAX backend against the torch backend: one optimizer step, and scoring.

    python -m benchmarks.jax_backend [ROUNDS]     one JSON line for each comparison, into jax-results.jsonl

Each backend is a process of its own; they take turns. A round of training is the second step of a fresh trainer over the same
pairs as the first, gathering of its batches included; a round of scoring is one pass over the conversations. What XLA
compiles is compiled in a round before the first, and stated by itself. Losses and scores must be equal to 1e-5.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from benchmarks import checkpoints, results
from benchmarks.measure import Cost, Stopwatch, median_ratio
from benchmarks.training import LEARNING_RATE, records
from benchmarks.workers import Workers, alternate
from benchmarks.workloads import MAX_LENGTH, Workload, load
from rm_assets.backends.jax.trainer import JaxTrainer
from rm_assets.backends.jax.training_step import num_compilations
from rm_assets.backends.torch.trainer import TorchTrainer
from rm_assets.core.protocols import QuietReporter, Trainer
from rm_assets.core.recipe import Backend, ExecutionSection, ModelRef, TrainingSection
from rm_assets.tasks.scorers import load_scorer

RESULTS = Path(__file__).parent / "jax-results.jsonl"
WORKLOADS = ("alpacafarm-like",)
NUM_PAIRS, NUM_ROWS, ROUNDS, NUM_THREADS = 16, 64, 3, 2
TOLERANCE = 1e-5
EXECUTION = ExecutionSection(device="cpu")


@dataclass(frozen=True)
class Round:
    """What one round took and gave: losses of the two steps, or rewards."""

    cost: Cost
    values: list[float]
    num_compilations: int
    compile_seconds: float
    """Of the whole process so far: tracing, lowering and XLA."""


class _Compiling:
    """Listens to what JAX compiles in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, seconds: float, **about: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += seconds


class _SecondStep(QuietReporter):
    """Ends a training after two steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def metrics(self, step: int, values: Any) -> None:
        """Called when a step is done."""
        self.losses.append(values["loss"])
        if step == 1:
            self._watch = Stopwatch()
        else:
            self.cost = self._watch.cost()
            raise StopIteration


class Trains:
    """A trainer as the reward_model task calls it."""

    def __init__(self, backend: Backend, workload: Workload, checkpoint: Path) -> None:
        self._workload, self._checkpoint, self._compiling = workload, checkpoint, _Compiling()
        self._trainer: Trainer = JaxTrainer() if backend == "jax" else TorchTrainer()
        self.run()

    def run(self, *, round_number: int = 0) -> Round:
        """The second of two steps."""
        settings = TrainingSection(
            base=ModelRef(path=str(self._checkpoint)), pairs_per_step=NUM_PAIRS, learning_rate=LEARNING_RATE,
            schedule="constant", num_epochs=2,
        )  # fmt: skip
        reporter = _SecondStep()
        with tempfile.TemporaryDirectory() as work, suppress(StopIteration):
            self._trainer.train(
                records(self._workload, NUM_PAIRS), [], settings=settings, execution=EXECUTION, seed=0,
                checkpoint=Path(work) / "model", work=Path(work) / "work", reporter=reporter,
            )  # fmt: skip
        return Round(reporter.cost, reporter.losses, num_compilations()["add_gradients"], self._compiling.seconds)


class Scores:
    """A scorer as the gold_rewards task calls it."""

    def __init__(self, backend: Backend, workload: Workload, checkpoint: Path) -> None:
        self._compiling = _Compiling()
        self._rows = [row for item in workload.scored_items for row in checkpoints.conversations(item)]
        self._scorer = load_scorer(
            ModelRef(path=str(checkpoint)), backend, max_length=MAX_LENGTH, dtype="float32", execution=EXECUTION,
            reporter=QuietReporter(),
        )  # fmt: skip
        self.run()

    def run(self, *, round_number: int = 0) -> Round:
        """One pass over all conversations."""
        watch = Stopwatch()
        rewards = [score.reward for score in self._scorer.score(self._rows)]
        return Round(watch.cost(), rewards, getattr(self._scorer, "num_compilations", 0), self._compiling.seconds)


def measure(subject: type[Trains | Scores], name: str, checkpoint: Path, rounds: int) -> dict[str, Any]:
    """One line of figures. Raises: ValueError where the backends do not give the same."""
    work = load(name, num_pairs=NUM_PAIRS, num_rows=NUM_ROWS)
    made: dict[str, tuple[Any, ...]] = {each: (subject, each, work, checkpoint) for each in ("torch", "jax")}
    with Workers(made, device="cpu", num_threads=NUM_THREADS) as workers:
        found = alternate(workers, rounds)
    torchs, jaxs = found["torch"], found["jax"]
    difference = max(abs(a - b) for a, b in zip(torchs[0].values, jaxs[0].values, strict=True))
    if not difference <= TOLERANCE:
        raise ValueError(f"{name}: the backends differ by {difference:g}")
    is_training = subject is Trains
    return {
        "name": f"{'train' if is_training else 'score'}/{name}", "n": rounds,
        "unit": f"step of {NUM_PAIRS} pairs" if is_training else f"{NUM_ROWS} conversations",
        **_figures("torch", torchs), **_figures("jax", jaxs),
        "ratio_cpu": median_ratio([r.cost.cpu for r in jaxs], [r.cost.cpu for r in torchs]),
        "ratio_wall": median_ratio([r.cost.wall for r in jaxs], [r.cost.wall for r in torchs]),
        "num_compilations": jaxs[-1].num_compilations, "compile_seconds": jaxs[-1].compile_seconds,
        "largest_difference": difference, "threads": NUM_THREADS, "jax": version("jax"),
    }  # fmt: skip


def _figures(name: str, rounds: Sequence[Round]) -> dict[str, float]:
    return {
        f"{name}_{kind}_seconds": statistics.median(getattr(each.cost, kind) for each in rounds)
        for kind in ("cpu", "wall")
    }


def main() -> None:
    """Measures every comparison and writes the page."""
    from benchmarks import page

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoints.save_classifier(checkpoints.SMALL, Path(folder))
        for subject in (Trains, Scores):
            for name in WORKLOADS:
                lines.append(measure(subject, name, checkpoint, rounds) | results.circumstances())
                print(json.dumps(results.rounded(lines[-1])), flush=True)
    RESULTS.write_text("".join(json.dumps(results.rounded(line)) + "\n" for line in lines), "utf-8")
    page.write()


if __name__ == "__main__":
    main()
