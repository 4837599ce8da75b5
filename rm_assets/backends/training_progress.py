"""Where a training stands, apart from weights and optimizer, and the figures of its pairs."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import ValidationSettings


class Misfit(Exception):
    """A saved state that is not one of this model and this optimizer."""


@dataclass
class Sums:
    """Figures over pairs since the last log."""

    weight: float = 0.0
    loss: float = 0.0
    num_pairs: float = 0
    num_right: float = 0.0
    margin: float = 0.0

    def values(self) -> list[float]:
        """The sums as plain numbers."""
        return [self.weight, self.loss, self.num_pairs, self.num_right, self.margin]

    def set(self, values: list[float]) -> None:
        """The inverse of `values`."""
        self.weight, self.loss, self.num_pairs, self.num_right, self.margin = values

    def merge(self, other: "Sums") -> None:
        """Takes the sums of other pairs."""
        self.set([mine + others for mine, others in zip(self.values(), other.values(), strict=True)])

    def figures(self) -> dict[str, float]:
        """Loss (weighted), accuracy (a tie counts half) and margin of a pair."""
        return {
            "loss": self.loss / self.weight,
            "accuracy": self.num_right / self.num_pairs,
            "margin": self.margin / self.num_pairs,
        }


@dataclass
class Progress:
    """Where a training stands, apart from weights and optimizer."""

    step: int = 0
    num_tokens: int = 0
    num_pair_tokens: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[dict[str, float]] = field(default_factory=list)
    guard: list[float] = field(default_factory=list)
    num_spikes: int = 0
    best: float | None = None
    best_step: int | None = None
    num_worse: int = 0
    is_over: bool = False

    def look(self, wanted: ValidationSettings, figures: dict[str, float], reporter: Reporter) -> bool:
        """Whether these figures of the validation pairs are the best so far; training is over after too many that are not."""
        value = figures[wanted.metric] * (-1 if wanted.metric == "loss" else 1)
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best, self.best_step, self.num_worse = value, self.step, 0
            return True
        self.num_worse += 1
        self.is_over = wanted.patience is not None and self.num_worse >= wanted.patience
        if self.is_over:
            reporter.log(f"step {self.step}: no better {wanted.metric} in {wanted.patience} looks, stopping")
        return False

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), "utf-8")

    @staticmethod
    def read(path: Path) -> "Progress":
        """The inverse of `write`.

        Raises: Misfit.
        """
        values = json.loads(path.read_text("utf-8"))
        differing = sorted(values.keys() ^ {field.name for field in fields(Progress)})
        if differing or values["sums"].keys() != {field.name for field in fields(Sums)}:
            raise Misfit(f"{path.name} and the training differ in {', '.join(differing) or 'sums'}")
        return Progress(**{**values, "sums": Sums(**values["sums"])})


class StepLog:
    """Tells what happens in a training; rates are over this process, so that a pause does not count."""

    def __init__(self, progress: Progress, num_steps: int, reporter: Reporter) -> None:
        self._num_steps, self._reporter = num_steps, reporter
        self._began, self._began_at, self._began_tokens = time.monotonic(), progress.step, progress.num_pair_tokens

    def tell(self, progress: Progress, figures: Mapping[str, float], of_device: Mapping[str, float] = {}) -> None:
        """What happened since the last time; `of_device` is told and not kept."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        told = {
            **progress.sums.figures(), **figures,
            "tokens_per_second": (progress.num_pair_tokens - self._began_tokens) / seconds,
            "eta_seconds": seconds / (progress.step - self._began_at) * (self._num_steps - progress.step),
        }  # fmt: skip
        progress.history.append({"step": float(progress.step), **told})
        progress.sums = Sums()
        self._reporter.metrics(progress.step, {**told, **of_device})
        self._reporter.progress(progress.step, self._num_steps, "steps")
