"""Sampling and scoring by workers on a Ray cluster: two workers of which one is killed midway, and one worker.

    python -m benchmarks.ray_shards           20,001 prompts, a JSON line for each run of a task
    python -m benchmarks.ray_shards 600       so many prompts

The cluster is two nodes on this machine, of one CPU each. The policy is the miniature one that ships with rm_assets, the gold model the same
checkpoint with a random score head. A run has a store of its own; seconds are those of the task, from its start until its manifest is written,
so they hold the time in which Python starts and each worker loads its model.
"""

import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import circumstances
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import PACKAGE_FOLDER, RecipeBook
from rm_assets.resources.compute import Compute
from rm_assets.storage.remote import cache_of
from rm_assets.storage.tables import TABLES, read_table
from rm_assets.tasks.gold.classifier import ScoredRow
from rm_assets.tasks.sample import SampledRow
from rm_assets_tests.ray_cluster import RayCluster, ray_cluster

NUM_PROMPTS, SHARD_PROMPTS = 20_001, 256
SHARDS: dict[str, tuple[str, Any]] = {
    "sampled_responses": ("responses", SampledRow),
    "gold_rewards": ("gold", ScoredRow),
}
"""By asset: the kind of its shards, and a row of them."""
DEATHS = re.compile(r"\d+ workers began, \d+ died")


def save_gold_model(folder: Path) -> None:
    """The shipped policy as a reward model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    policy = PACKAGE_FOLDER / "embedded" / "policy"
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1, problem_type="regression")
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe(folder: Path, executor: dict[str, Any], num_prompts: int, shard_prompts: int) -> Recipe:
    """One short response to each prompt."""
    sections = {
        "prompts": {"source": {"kind": "generator", "num_prompts": num_prompts, "seed": 1}},
        "sampling": {
            "kind": "policy", "policy": {"path": "package://embedded/policy"}, "num_responses": 1, "max_new_tokens": 24,
        },
        "gold": {"kind": "classifier", "model": {"path": str(folder / "gold")}, "max_length": 128},
        "training": {"base": {"path": "package://embedded/policy"}, "max_length": 128, "learning_rate": 0.001},
        "execution": {
            "device": "cpu", "num_threads": 1, "shard_prompts": shard_prompts,
            "executors": {"sample": executor, "score": executor},
        },
    }  # fmt: skip
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / "shards.yaml").write_text(yaml.safe_dump(sections), "utf-8")
    return RecipeBook(folder / "recipes", {}).load("shards")


@contextmanager
def killer(cluster: RayCluster, shards: Path, num_shards: int) -> Iterator[None]:
    """Kills a worker at work as soon as half of the shards are committed: not later by what the job's log, where workers tell, lags behind."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if len(list(shards.glob("*/*.parquet"))) >= num_shards // 2 and (
                pids := cluster.pids_of_actors("Worker.work")
            ):
                os.kill(pids[0], signal.SIGKILL)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Runs:
    """Runs of one recipe on a cluster whose nodes keep their caches of stores in `folder / "there"`."""

    def __init__(self, cluster: RayCluster, folder: Path, num_prompts: int, shard_prompts: int = SHARD_PROMPTS) -> None:
        self._cluster, self._folder = cluster, folder
        self._num_prompts, self._shard_prompts = num_prompts, shard_prompts
        save_gold_model(folder / "gold")

    def run(self, num_workers: int, *, is_killed: bool = False) -> Iterator[dict[str, Any]]:
        """Makes prompts, responses and rewards in a store of their own, and gives the figures of the last two."""
        executor = {"kind": "ray", "address": self._cluster.address, "workers": num_workers}
        chosen = recipe(self._folder, executor, self._num_prompts, self._shard_prompts)
        url = (self._folder / f"{num_workers}-workers{'-killed' * is_killed}").as_uri()
        compute = Compute(home=url)
        compute.make_asset(chosen, "prompts", say=str, debug=str)
        for asset, (kind, row_type) in SHARDS.items():
            shards = self._folder / "there" / cache_of(url).name / "shards" / kind
            said, num_shards = list[str](), -(-self._num_prompts // self._shard_prompts)
            with killer(self._cluster, shards, num_shards) if is_killed else nullcontext():
                made = compute.make_asset(chosen, asset, say=said.append, debug=said.append)
            files = list(shards.glob("*/*.parquet"))
            keys = [row.key for file in files for row in read_table(file, row_type)]
            file, record = TABLES[asset]
            prompts = Counter(
                row.prompt_id for row in read_table(compute.store().folder(asset, made.manifest.digest) / file, record)
            )
            deaths = [line for line in said if DEATHS.search(line)]
            yield {
                "asset": asset, "workers": num_workers, "killed": is_killed, "seconds": made.manifest.made["seconds"],
                "prompts": len(prompts), "rows_per_prompt": sorted(set(prompts.values())), "shards": len(files),
                "rows_in_shards": len(keys), "distinct_rows_in_shards": len(set(keys)),
                "workers_said": deaths[-1].split(": ", 1)[1] if deaths else "", "data_version": made.manifest.data_version,
                "made_on": [made.manifest.made[name] for name in ("executor", "device", "num_devices")],
            }  # fmt: skip


def main() -> None:
    """All runs, each line as soon as it is there."""
    num_prompts = int(sys.argv[1]) if sys.argv[1:] else NUM_PROMPTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RM_ASSETS_CACHE"] = str(folder / "here")
        there = {"RM_ASSETS_CACHE": str(folder / "there"), "OMP_NUM_THREADS": "1"}
        with ray_cluster((1, 1), there) as cluster:
            runs = Runs(cluster, folder, num_prompts)
            for num_workers, is_killed in ((2, True), (1, False)):
                for line in runs.run(num_workers, is_killed=is_killed):
                    print(
                        json.dumps({**line, "load_average": round(os.getloadavg()[0], 1), **circumstances()}),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
