"""What a task elsewhere lacks here is said before anything is begun."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rm_assets.cli.run import _require_sources
from rm_assets.core.errors import ExecutorError
from rm_assets.core.recipe import RemoteExecutor
from rm_assets.executors import readiness
from rm_assets.executors.readiness import require_ready
from rm_assets.storage.home import home_of
from rm_assets.storage.store import Store
from rm_assets_tests.executors.conftest import GCLOUD
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import TOY, Bench

SSH = {"kind": "ssh", "host": "box"}
RAY = {"kind": "ray", "address": "http://head:8265"}
LACKING: list[tuple[dict[str, Any], str, str]] = [
    (SSH, "EXECUTOR_002", "the command ssh is not there"),
    ({"kind": "vm", "machine": GCLOUD}, "EXECUTOR_002", "the command gcloud is not there"),
    ({"kind": "vm", "machine": {"dialect": "skypilot", "command": "/opt/no/sky"}}, "EXECUTOR_002", "/opt/no/sky"),
    (RAY, "EXECUTOR_002", "pip install 'rm-assets[ray]'"),
    ({"kind": "kubernetes", "image": "i"}, "EXECUTOR_002", "pip install 'rm-assets[kubernetes]'"),
    ({"kind": "vertex", "project": "p", "region": "r", "image": "i"}, "EXECUTOR_002", "pip install 'rm-assets[vertex]'"),
]  # fmt: skip


def executor_of(section: dict[str, Any]) -> RemoteExecutor:
    executor: RemoteExecutor = TypeAdapter(RemoteExecutor).validate_python(section)
    return executor


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """One that others can reach."""
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache"))
    return Store(home_of((tmp_path / "bucket").as_uri()))


@pytest.mark.parametrize(("section", "code", "words"), LACKING)
def test_a_command_or_package_that_is_missing_is_named(
    section: dict[str, Any], code: str, words: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(readiness, "find_spec", lambda package: None)
    with pytest.raises(ExecutorError, match=code) as caught:
        require_ready(executor_of(section), store)
    assert words in str(caught.value)


def test_a_package_whose_parent_is_missing_is_missing() -> None:
    assert readiness._is_there("json.decoder") and not readiness._is_there("no_such_package.part")


def test_variables_and_files_that_a_machine_is_given_have_to_be_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness.shutil, "which", lambda command: f"/bin/{command}")
    monkeypatch.delenv("NO_TOKEN", raising=False)
    wheel, machine = tmp_path / "a.whl", {"kind": "vm", "machine": GCLOUD}
    for lacking, words in ({"environment": ["NO_TOKEN"]}, "NO_TOKEN"), ({"files": [str(wheel)]}, "a.whl is not there"):
        with pytest.raises(ExecutorError, match=r"EXECUTOR_003") as caught:
            require_ready(executor_of({**machine, **lacking}), store)
        assert words in str(caught.value)
    wheel.touch()
    require_ready(executor_of({**machine, "files": [str(wheel)]}), store)


def test_a_run_that_would_fail_at_a_later_task_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.write_toy()
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe(execution={**TOY["execution"], "executors": {"train": SSH, "ingest": SSH}})
    bench.make(bench.recipe(), "prompts")
    _require_sources(recipe, {"prompts", "sampled_responses"})  # made already, and made here
    with pytest.raises(ExecutorError, match="EXECUTOR_001"):
        _require_sources(recipe, {"prompts", "sampled_responses", "reward_model"})
