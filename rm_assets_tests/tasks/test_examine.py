"""An examination: made in a process of its own, once for equal pairs and an equal base."""

import json
import time
from pathlib import Path

import pytest

from rm_assets.core.checks.inputs import Examination
from rm_assets.core.errors import TaskError
from rm_assets.core.recipe import Recipe
from rm_assets.executors import side_task
from rm_assets.executors.output import TaskEnd
from rm_assets.resources import examination as resource
from rm_assets.resources.examination import examination
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import BOS_TEMPLATE, build_tokenizer, save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench, in_this_process


def examined(store: Store, recipe: Recipe) -> Examination:
    return examination(store, recipe, wanted(store, recipe, "implicit_pairs"))


def notes(bench: Bench) -> list[Path]:
    return sorted(bench.home.glob("examinations/*.json"))


def test_pairs_are_examined_once_for_each_base_template_and_length(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    store, recipe = Store(bench.home), bench.recipe()
    bench.make(recipe, *ASSETS[:4])
    found = examined(store, recipe)
    # Eight training and four test prompts, a pair each.
    assert (found.num_rows, found.num_train_pairs, found.num_test_rows) == (24, 8, 8)
    assert not (found.missing or found.fault) and len(notes(bench)) == 1
    started = bench.recipe(
        "started", training={**TOY["training"], "base": {"path": "base", "chat_template": BOS_TEMPLATE}}
    )
    assert examined(store, started) != found and len(notes(bench)) == 2
    short = bench.recipe("short", training={**TOY["training"], "max_length": 5})
    assert examined(store, short).num_over_length == 8

    monkeypatch.setattr(side_task, "run_local", None)  # no process is started from here on
    faster = bench.recipe("faster", training={**TOY["training"], "learning_rate": 0.5})
    assert examined(store, recipe) == found == examined(store, faster)
    assert len(notes(bench)) == 3 and not list(bench.home.glob(".examine-*"))


def test_another_base_in_the_same_folder_is_examined_again(bench: Bench) -> None:
    base, store, recipe = bench.folder / "recipes" / "base", Store(bench.home), bench.recipe()
    bench.make(recipe, *ASSETS[:4])
    assert "DATA_001" in examined(store, recipe).missing and not notes(bench)
    save_causal(base)
    assert examined(store, recipe).pad_token == "<|pad|>"
    save_causal(base, tokenizer=build_tokenizer(pad="<|end|>"))
    assert examined(store, recipe).pad_token == "<|end|>"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (TaskEnd(-9, False, ""), r"TASK_001.*killed \(SIGKILL\) before the examination of the pairs was there"),
        (TaskEnd(-9, True, ""), r"TASK_003.*was ended after 5"),
        (TaskEnd(1, False, "out of luck"), r"(?s)TASK_002.*exit status 1.*out of luck"),
    ],
)
def test_an_examination_that_ends_early_says_why_as_an_asset_does_and_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: TaskEnd, said: str
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe(execution={"timeout_seconds": 5})
    with monkeypatch.context() as patch:
        in_this_process(patch)
        bench.make(recipe, *ASSETS[:4])
    before = set(bench.home.iterdir())

    def ends(task: str, request: Path, *_: object, **__: object) -> TaskEnd:
        assert bench.home not in request.parents  # what kill -9 leaves of it is no part of the store
        return end

    monkeypatch.setattr(side_task, "run_local", ends)
    with pytest.raises(TaskError, match=said):
        examined(Store(bench.home), recipe)
    assert set(bench.home.iterdir()) - before <= {bench.home / "fingerprints"} and not notes(bench)


def test_a_damaged_examination_is_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    save_causal(bench.folder / "recipes" / "base")
    store, recipe = Store(bench.home), bench.recipe()
    with monkeypatch.context() as patch:
        in_this_process(patch)
        bench.make(recipe, *ASSETS[:4])
    found = examined(store, recipe)
    for damaged in ('{"num_rows": 2', '{"other": 1}', "[]"):
        notes(bench)[0].write_text(damaged)
        monkeypatch.setattr(resource, "_run", lambda *_: found)
        assert examined(store, recipe) == found
        assert json.loads(notes(bench)[0].read_text())["num_rows"] == 24


def test_a_base_on_a_hub_that_cannot_be_reached_is_missing_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        in_this_process(patch)
        bench.make(bench.recipe(), *ASSETS[:4])
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    started = time.monotonic()
    remote = bench.recipe("remote", training={**TOY["training"], "base": {"hub_id": "me/base", "revision": "1" * 40}})
    found = examined(Store(bench.home), remote)
    assert "Hub cannot be reached for the configuration of me/base" in found.missing and not notes(bench)
    assert time.monotonic() - started < 25  # the client alone tries for half a minute
