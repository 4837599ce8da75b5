"""An examination: what a reward model's base would read of pairs, before anything is paid for a training. It makes no asset."""

import heapq
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rm_assets.core.digests import unit_interval
from rm_assets.core.recipe import Recipe
from rm_assets.core.records import SPLITS, Pair
from rm_assets.storage.tables import read_table
from rm_assets.tasks.session import LineReporter, run_process

NUM_PAIRS = 1_000
"""Pairs that are looked at, of all splits."""


def examine_pairs(request: dict[str, Any], reporter: LineReporter) -> None:
    """Samples pairs by a hash of each, and emits what the recipe's base makes of them."""
    from rm_assets.backends.torch.examination import examine

    training = Recipe.model_validate(request["recipe"]).training
    # An existing model was not trained on the recipe's pairs; what it is judged on is what it has to read.
    read = SPLITS if training.kind == "train" else ("test",)
    pairs = (pair for pair in read_table(Path(request["pairs"]), Pair) if pair.split in read)
    sample = heapq.nsmallest(NUM_PAIRS, pairs, key=lambda pair: unit_interval("examined pair", pair.pair_id))
    reporter.emit(event="examination", found=asdict(examine(training, sample)))


if __name__ == "__main__":
    run_process(examine_pairs)
