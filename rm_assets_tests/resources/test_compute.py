"""What a run says while a task works, and for how long a task may."""

from pathlib import Path
from typing import Any

import pytest

from rm_assets.cli import probe
from rm_assets.core.errors import TaskError
from rm_assets.core.recipe import Recipe
from rm_assets.executors import side_task
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import compute, gate
from rm_assets.resources.compute import Compute
from rm_assets.storage.store import Store


def test_a_training_is_told_in_a_line_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "SECONDS_BETWEEN_PROGRESS", 0.0)
    said: list[str] = []
    listener = compute._Listener("reward_model", said.append, said.append)
    figures: dict[str, Any] = {"loss": 0.69071, "accuracy": 0.5, "margin": None, "learning_rate": 2.4e-4}
    listener({"event": "metrics", "step": 3, "values": {**figures, "eta_seconds": 675.2, "memory_mb": 663.5}})
    listener({"event": "metrics", "step": 4, "values": {"loss": 0.5}})
    assert said == [
        "reward_model: step 3: loss 0.6907, accuracy 0.5, learning rate 0.00024, about 675 s left",
        "reward_model: step 4: loss 0.5",
    ]


def test_a_task_has_its_own_time_limit_or_that_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = dict[str, float | None]()

    def ends(task: str, request: Path, on_event: object, *, timeout_seconds: float | None) -> TaskEnd:
        limits[task] = timeout_seconds
        return TaskEnd(-9, timed_out=True, tail="")

    monkeypatch.setattr(compute, "run_local", ends)
    for execution, limit in (
        ({"timeout_seconds": 5, "task_timeout_seconds": {"ingest": 7}}, 7),
        ({"timeout_seconds": 5, "task_timeout_seconds": {"train": 7}}, 5),
        ({"task_timeout_seconds": {"train": 7}}, None),
    ):
        recipe = Recipe.model_validate({
            "name": "mine", "prompts": {"source": {"kind": "generator", "num_prompts": 9}},
            "sampling": {"kind": "policy", "policy": {"path": "/base"}}, "gold": {"kind": "verifier"},
            "training": {"base": {"path": "/base"}, "learning_rate": 3e-4}, "execution": execution,
        })  # fmt: skip
        with pytest.raises(TaskError, match=rf"TASK_003.* task ingest was ended after {limit}") as refused:
            Compute(home=str(tmp_path)).make_asset(recipe, "prompts", say=str, debug=str)
        assert "task_timeout_seconds" in refused.value.fix and limits == {"ingest": limit}


def test_what_is_no_asset_says_its_time_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate({
        "name": "mine", "prompts": {"source": {"kind": "generator", "num_prompts": 9}},
        "sampling": {"kind": "policy", "policy": {"path": "/base"}}, "gold": {"kind": "verifier"},
        "training": {"base": {"path": "/base"}, "learning_rate": 3e-4},
        "execution": {"timeout_seconds": 5, "task_timeout_seconds": {"train": 7}},
    })  # fmt: skip
    for module in (side_task, probe):
        monkeypatch.setattr(module, "run_local", lambda *task, **options: TaskEnd(-9, timed_out=True, tail=""))
    with pytest.raises(TaskError, match=r"TASK_003.* rescore was ended after 5"):
        gate._rescore(Store(tmp_path), recipe, tmp_path, tmp_path, tmp_path / "rewards.parquet")
    monkeypatch.setattr(probe, "_pairs", lambda store, recipe: tmp_path)
    monkeypatch.setattr(probe, "find_home", lambda: tmp_path)
    with pytest.raises(TaskError, match=r"TASK_003.* probe was ended after 7"):
        probe.measure(recipe, "local")
