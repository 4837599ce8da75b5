"""kill -9 in the middle of a task: what is committed stays, and the end is that of an uninterrupted run, byte by byte."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import TaskError
from rm_assets.core.recipe import Recipe
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import compute
from rm_assets.resources.compute import Made
from rm_assets_tests.fake_server import Json, Reply, judge, serving
from rm_assets_tests.fakes import save_causal, save_classifier
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench

Interrupt = Callable[[Bench, Recipe, str, str], Path]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Makes an asset and kills its task's process group as soon as a file that matches the pattern lies in the store."""

    def killed_make(bench: Bench, recipe: Recipe, asset: str, pattern: str) -> Path:
        before = bench.manifests()

        def run_and_kill(task: str, request: Path, on_event: Any, **options: Any) -> TaskEnd:
            process = subprocess.Popen(
                [sys.executable, "-m", f"rm_assets.tasks.{task}", str(request)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            while process.poll() is None and not list(bench.home.glob(pattern)):
                time.sleep(0.001)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return TaskEnd(process.returncode, False, "")

        with monkeypatch.context() as patch:
            patch.setattr(compute, "run_local", run_and_kill)
            with pytest.raises(TaskError, match=r"was killed \(SIGKILL\)") as caught:
                bench.make(recipe, asset)
        assert caught.value.code == "TASK_001"
        assert bench.manifests() == before
        (started,) = [f for f in (bench.home / asset).iterdir() if f.is_dir()]
        return started

    return killed_make


def prepared(
    tmp_path: Path, recipe: Callable[[Bench], Recipe], num_assets: int, num_prompts: int
) -> tuple[Bench, Bench]:
    """Two benches with the same sources and the same first assets: one to be interrupted, one not."""
    broken = Bench(tmp_path)
    broken.write_toy(num_prompts, 4)
    if num_assets:
        broken.make(recipe(broken), *ASSETS[:num_assets])
    shutil.copytree(broken.home, tmp_path / "whole")
    return broken, Bench(tmp_path, home=tmp_path / "whole")


def shards(bench: Bench) -> dict[str, bytes]:
    return {str(f.relative_to(bench.home)): f.read_bytes() for f in bench.home.glob("shards/*/*/*.parquet")}


def contents(made: Made) -> dict[str, bytes]:
    return {name: (made.folder / name).read_bytes() for name in made.manifest.files}


def assert_same_end(one: Made, two: Made) -> None:
    assert contents(one) == contents(two)
    assert one.manifest.data_version == two.manifest.data_version and one.manifest.digest == two.manifest.digest
    assert one.folder != two.folder and not (one.folder / "work").exists()


def test_pairs_that_were_interrupted_are_byte_identical_to_uninterrupted_ones(
    tmp_path: Path, interrupt: Interrupt
) -> None:
    broken, whole = prepared(tmp_path, lambda b: b.recipe(), 3, 3_000)
    folder = interrupt(broken, broken.recipe(), "implicit_pairs", "implicit_pairs/*/pairs.parquet")
    assert not (folder / "manifest.json").exists()
    made = broken.make(broken.recipe(), "implicit_pairs")
    assert made.manifest.counts["pairs"] == 3_004 and made.folder == folder
    assert_same_end(made, whole.make(whole.recipe(), "implicit_pairs"))


@pytest.mark.slow
def test_samples_committed_before_a_kill_are_not_sampled_again(tmp_path: Path, interrupt: Interrupt) -> None:
    save_causal(tmp_path / "recipes" / "policy")
    sampling = {"kind": "policy", "policy": {"path": "policy"}, "num_responses": 2, "max_new_tokens": 60}
    broken, whole = prepared(tmp_path, lambda b: b.recipe(), 1, 60)
    recipe = broken.recipe(sampling=sampling)
    interrupt(broken, recipe, "sampled_responses", "shards/responses/*/*.parquet")
    committed = shards(broken)
    assert 0 < len(committed) < 16  # 128 responses, 8 a shard
    made = broken.make(recipe, "sampled_responses")
    assert made.manifest.work["responses sampled"] == 128 - 8 * len(committed)
    assert committed.items() <= shards(broken).items()
    assert_same_end(made, whole.make(recipe, "sampled_responses"))
    assert shards(broken) == shards(whole)


@pytest.mark.slow
def test_rewards_committed_before_a_kill_are_not_scored_again(tmp_path: Path, interrupt: Interrupt) -> None:
    save_classifier(tmp_path / "recipes" / "gold")
    broken, whole = prepared(tmp_path, lambda b: b.recipe(), 2, 200)
    recipe = broken.recipe(gold={"kind": "classifier", "model": {"path": "gold"}, "max_length": 100})
    interrupt(broken, recipe, "gold_rewards", "shards/gold/*/*.parquet")
    committed = shards(broken)
    assert 0 < len(committed) < 51  # 408 rewards, 8 a shard
    made = broken.make(recipe, "gold_rewards")
    assert made.manifest.work["responses scored"] == 408 - 8 * len(committed)
    assert_same_end(made, whole.make(recipe, "gold_rewards"))
    assert shards(broken) == shards(whole)


def test_judgements_committed_before_a_kill_are_not_asked_again(bench: Bench, interrupt: Interrupt) -> None:
    killed = threading.Event()
    with serving() as server:
        gold = {"kind": "judge", "base_url": server.base_url, "model": "toy", "revision": "1"}
        # A shard is of 8 requests, however many prompts the shards of other work have.
        execution = {**TOY["execution"], "shard_prompts": 256, "server_concurrency": 1}
        recipe = bench.recipe(gold=gold, execution=execution)
        bench.make(recipe, *ASSETS[:2])

        def stops_after_ten(body: Json) -> Reply:
            if len(server.posts) > 10:
                killed.wait(60)
            return judge(lambda first, second: "[[1]]" if first < second else "[[2]]")(body)

        server.answer = stops_after_ten
        interrupt(bench, recipe, ASSETS[2], "shards/judgements/*/*.parquet")
        killed.set()
        server.posts = []
        made = bench.make(recipe, ASSETS[2])
        assert made.manifest.counts["judged_pairs"] == 12
        assert made.manifest.work == {"judgements": 16} and len(server.posts) == 16


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "trl"])
def test_training_killed_three_times_ends_with_the_same_losses_and_weights(
    tmp_path: Path, interrupt: Interrupt, engine: str
) -> None:
    save_causal(tmp_path / "recipes" / "base")
    execution = {"device": "cpu", "num_threads": 1, "save_every_steps": 1}
    training = {**TOY["training"], "engine": engine}
    broken, whole = prepared(tmp_path, lambda b: b.recipe(execution=execution), 4, 40)
    recipe = broken.recipe(execution=execution, training=training)
    for step in sorted(random.sample(range(2, 19), 3)):  # another draw in every run: no step may matter
        # The state's first file is there and its last one is not, so this state must not be resumed from.
        folder = interrupt(broken, recipe, "reward_model", f"reward_model/*/work/checkpoint-{step}/*")
        assert not (folder / "checkpoint").exists()
    made = broken.make(recipe, "reward_model")
    assert [line for line in broken.said if "resuming after optimizer step" in line and line.endswith("of 20")]
    assert made.manifest.counts["optimizer_steps"] == 20
    trace = json.loads((made.folder / "checkpoint" / "rm_assets.json").read_text("utf-8"))["history"]
    assert [entry["step"] for entry in trace] == list(range(1, 21))
    assert_same_end(made, whole.make(recipe, "reward_model"))
