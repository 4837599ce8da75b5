"""What a real training leaves to look at: its metrics log, and TensorBoard's files where they are asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import TaskError
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import compute
from rm_assets.storage.metrics_log import Run, read_run
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench


def run_of(folder: Path) -> Run:
    run = read_run(folder / "metrics.jsonl")
    assert run is not None
    return run


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tracking_is_in_no_digest_and_its_files_are_in_no_manifest(bench: Bench) -> None:
    save_causal(bench.folder / "recipes" / "base")
    made = bench.make(bench.recipe(tracking={"tensorboard": True, "wandb": {"tags": ["a"]}}), *ASSETS[:5])
    again = bench.make(bench.recipe(), *ASSETS[:5])
    assert again.was_there and again.folder == made.folder
    assert "metrics.jsonl" not in {**made.manifest.files, **made.manifest.extras}

    history = json.loads((made.folder / "checkpoint" / "rm_assets.json").read_text("utf-8"))["history"]
    run = run_of(made.folder)
    names = ("step", "loss", "accuracy", "margin", "grad_norm", "learning_rate")
    assert [[step[name] for name in names] for step in run.steps] == [[e[name] for name in names] for e in history]
    assert (run.recipe, run.device, run.num_steps, run.num_resumed) == ("toy", "cpu", 4, 0)
    assert run.end is not None and run.end["status"] == "finished"
    assert all(step["memory_mb"] > 50 and step["tokens_per_second"] > 0 for step in run.steps)
    assert run.steps[-1]["eta_seconds"] == 0

    seen = scalars(Store(bench.home).event_files("toy", made.manifest.digest))
    assert [step for step, _ in seen["loss"]] == [1, 2, 3, 4]
    assert [value for _, value in seen["loss"]] == pytest.approx([e["loss"] for e in history], rel=1e-6)
    assert {"margin", "learning_rate", "memory_mb"} < seen.keys()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "trl"])
def test_a_training_that_was_killed_leaves_each_step_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe(
        training={**TOY["training"], "engine": engine, "num_epochs": 10}, tracking={"tensorboard": True},
        execution={**TOY["execution"], "save_every_steps": 3},
    )  # fmt: skip
    bench.make(recipe, *ASSETS[:4])

    def run_and_kill(task: str, request: Path, on_event: Any, **options: Any) -> TaskEnd:
        """Until five steps are in the log, of which a state holds three."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"rm_assets.tasks.{task}", str(request)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        file = request.parent / "metrics.jsonl"
        while process.poll() is None and not (file.exists() and (run := read_run(file)) and len(run.steps) >= 5):
            time.sleep(0.001)
        assert Store(bench.home).is_leased("reward_model", request.parent.name)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return TaskEnd(process.returncode, False, "")

    with monkeypatch.context() as patch:
        patch.setattr(compute, "run_local", run_and_kill)
        with pytest.raises(TaskError, match="was killed"):
            bench.make(recipe, "reward_model")
    (folder,) = (f for f in (bench.home / "reward_model").iterdir() if f.is_dir())
    before = run_of(folder)
    assert before.end is None and not Store(bench.home).is_leased("reward_model", folder.name)
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b'{"event": "step", "ti')  # the kill could have torn a line

    made = bench.make(recipe, "reward_model")
    run = run_of(made.folder)
    assert [step["step"] for step in run.steps] == list(range(1, 21))
    assert run.num_resumed == 1 and run.started_at == before.started_at and run.end is not None
    history = json.loads((made.folder / "checkpoint" / "rm_assets.json").read_text("utf-8"))["history"]
    assert [step["loss"] for step in run.steps] == [entry["loss"] for entry in history]
    seen = scalars(Store(bench.home).event_files("toy", made.manifest.digest))
    assert [step for step, _ in seen["loss"]] == list(range(1, 21))


def test_a_training_that_fails_says_so_in_its_log(bench: Bench) -> None:
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe(training={**TOY["training"], "learning_rate": 0.9, "num_epochs": 40, "max_loss_spike": 1.01})
    with pytest.raises(Exception, match="MODEL_00") as caught:
        bench.make(recipe, *ASSETS[:5])
    (folder,) = (f for f in (bench.home / "reward_model").iterdir() if f.is_dir())
    end = run_of(folder).end
    assert end is not None and end["status"] == "failed" and str(caught.value).startswith(end["error"])
