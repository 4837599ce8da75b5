"""A probe: ten real optimizer steps of a recipe, to know what all of them will take. Nothing of it is kept.

It ends with the tenth step, before a training would write its state and its model to disk.
"""

import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from rm_assets.core.planning.training_plan import training_of
from rm_assets.core.recipe import Recipe
from rm_assets.core.records import Pair
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table
from rm_assets.tasks.session import LineReporter, run_process
from rm_assets.tasks.train import trainer_of
from rm_assets.tasks.used_devices import peak_memory

NUM_STEPS, NUM_WARM_STEPS = 10, 3


class _Measured(Exception):
    """The last step of the probe is over."""


class _StepClock(LineReporter):
    """Notes when each step was over, and ends the training after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One step is over."""
        self.times.append(time.monotonic())

    def progress(self, done: int, total: int, unit: str) -> None:
        """The engine's, which follows the figures of each step."""
        super().progress(done, total, unit)
        if done == NUM_STEPS:
            raise _Measured


def probe(request: dict[str, Any], reporter: LineReporter) -> None:
    """Trains for ten steps and emits the seconds of one, the first three left out, and those before the first.

    The caller removes the folder.
    """
    recipe, clock = Recipe.model_validate(request["recipe"]), _StepClock()
    settings = training_of(recipe).model_copy(
        update={
            "max_optimizer_steps": NUM_STEPS,
            "num_epochs": float(NUM_STEPS),
            "validation": None,
            "share_of_prompts": 1.0,
        }
    )
    execution = recipe.execution.model_copy(update={"save_every_steps": NUM_STEPS + 1, "profile": False})
    most = 2 * NUM_STEPS * settings.pairs_per_step  # some may be over length
    pairs = (pair for pair in read_table(Path(request["pairs"]), Pair) if pair.split == "train")
    store, folder = Store(Path(request["home"])), Path(request["folder"])
    with store.device(reporter.waiting), suppress(_Measured):
        started = time.monotonic()
        trainer_of(settings.backend).train(
            islice(pairs, most), [], settings=settings, execution=execution, seed=recipe.seed,
            checkpoint=folder / "checkpoint", work=folder / "work", reporter=clock,
        )  # fmt: skip
    steps = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    seconds = statistics.median(steps[NUM_WARM_STEPS - 1 :])
    before = max(0.0, clock.times[0] - started - seconds)
    reporter.emit(event="probe", seconds_per_step=seconds, seconds_before=before, peak_bytes=peak_memory())


if __name__ == "__main__":
    run_process(probe)
