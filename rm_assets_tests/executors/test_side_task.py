"""A task that makes no asset."""

from pathlib import Path

import pytest

from rm_assets.core.errors import TaskError
from rm_assets.core.recipe import Recipe
from rm_assets.executors import side_task
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import gate
from rm_assets.storage.store import Store


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (TaskEnd(-9, False, ""), r"TASK_001.*killed \(SIGKILL\) before the table of rewards of the release"),
        (TaskEnd(-9, True, ""), r"TASK_003.*task rescore was ended after 5"),
        (TaskEnd(1, False, "out of luck"), r"(?s)TASK_002.*exit status 1.*out of luck"),
    ],
)
def test_a_release_that_is_not_scored_says_why_as_an_asset_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: TaskEnd, said: str
) -> None:
    monkeypatch.setattr(side_task, "run_local", lambda *_, **__: end)
    recipe = Recipe.model_validate({
        "name": "mine", "prompts": {"source": {"kind": "generator", "num_prompts": 9}},
        "sampling": {"kind": "policy", "policy": {"path": "/base"}}, "gold": {"kind": "verifier"},
        "training": {"base": {"path": "/base"}, "learning_rate": 3e-4}, "execution": {"timeout_seconds": 5},
    })  # fmt: skip
    with pytest.raises(TaskError, match=said):
        gate._rescore(Store(tmp_path), recipe, tmp_path / "release", tmp_path / "gold", tmp_path / "rewards")
