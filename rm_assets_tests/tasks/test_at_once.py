"""Two runs of the same recipe at once: the lease lets one work, and both end with the same result.

RM_ASSETS_NUM_MEETINGS sets how often two runs meet.
"""

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from rm_assets.core.recipe_files import RecipeBook
from rm_assets.resources.compute import Made
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench

NUM_REPETITIONS = int(os.environ.get("RM_ASSETS_NUM_MEETINGS", "6"))


def make(folder: Path, home: Path, assets: tuple[str, ...], delay: float) -> tuple[list[Made], list[str]]:
    """What a run does, and what it says, in this process."""
    time.sleep(delay)
    bench = Bench(folder, home)
    return [bench.make(RecipeBook(folder / "recipes", {}).load("toy"), asset) for asset in assets], bench.said


@pytest.mark.slow
def test_of_two_runs_at_once_one_works_and_both_end_with_the_same(tmp_path: Path) -> None:
    chance, bench = random.Random(7), Bench(tmp_path)
    bench.write_toy()
    bench.recipe()
    save_causal(bench.folder / "recipes" / "base")
    num_waits = 0
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for repetition in range(NUM_REPETITIONS):
            home, assets = tmp_path / f"home-{repetition}", ASSETS if repetition % 5 == 0 else ASSETS[:4]
            runs = [pool.submit(make, tmp_path, home, assets, chance.uniform(0, 1)) for _ in range(2)]
            (one, said), (two, said_too) = [run.result() for run in runs]
            assert [made.manifest for made in one] == [made.manifest for made in two]
            assert [a.was_there + b.was_there for a, b in zip(one, two, strict=True)] == [1] * len(assets), repetition
            num_waits += sum("waiting: another run makes this" in line for line in said + said_too)
    assert num_waits > NUM_REPETITIONS / 2  # so they did meet


@pytest.mark.slow
def test_what_a_task_waits_for_another_run_is_not_of_its_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write_toy()
    recipe, store = bench.recipe(execution={**TOY["execution"], "timeout_seconds": 6}), Store(bench.home)
    digest = wanted(store, recipe, "prompts").digest
    with ThreadPoolExecutor(1) as pool:
        with store.lease("prompts", digest):
            making = pool.submit(bench.make, recipe, "prompts")
            time.sleep(9)
        assert making.result().manifest.counts["train_prompts"] == 8
    assert "prompts: waiting: another run makes this" in bench.said
