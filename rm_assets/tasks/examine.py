"""An examination: what a reward model's base would read of pairs, before anything is paid for a training. It makes no asset."""

import heapq
import os
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
HUB_SECONDS = 5.0
"""How long the Hub may take to answer at all; its client would try again and again for half a minute."""


def examine_pairs(request: dict[str, Any], reporter: LineReporter) -> None:
    """Samples pairs by a hash of each, and emits what the recipe's base makes of them."""
    training = Recipe.model_validate(request["recipe"]).training
    if training.base.hub_id is not None and not _hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when its client loads; then a base is in the cache or missing at once
    from rm_assets.backends.torch.examination import examine

    # An existing model was not trained on the recipe's pairs; what it is judged on is what it has to read.
    read = SPLITS if training.kind == "train" else ("test",)
    pairs = (pair for pair in read_table(Path(request["pairs"]), Pair) if pair.split in read)
    sample = heapq.nsmallest(NUM_PAIRS, pairs, key=lambda pair: unit_interval("examined pair", pair.pair_id))
    reporter.emit(event="examination", found=asdict(examine(training, sample)))


def _hub_answers() -> bool:
    import httpx2

    try:
        httpx2.head(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=HUB_SECONDS)
    except httpx2.TransportError:
        return False
    return True


if __name__ == "__main__":
    run_process(examine_pairs)
