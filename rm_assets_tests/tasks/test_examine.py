"""An examination: made in a process of its own, once for equal pairs and an equal base."""

from pathlib import Path

import pytest

from rm_assets.core.errors import TaskError
from rm_assets.executors.local import TaskEnd
from rm_assets.resources import examination as resource
from rm_assets.resources.examination import examination
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import BOS_TEMPLATE, build_tokenizer, save_causal
from rm_assets_tests.tasks.conftest import ASSETS, TOY, Bench


def notes(bench: Bench) -> list[Path]:
    return sorted(bench.home.glob("examinations/*.json"))


def test_pairs_are_examined_once_for_each_base_template_and_length(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    store, recipe = Store(bench.home), bench.recipe()
    bench.make(recipe, *ASSETS[:4])
    found = examination(store, recipe)
    # Eight training and four test prompts, a pair each.
    assert (found.num_rows, found.num_train_pairs, found.num_test_rows) == (24, 8, 8)
    assert not (found.missing or found.fault) and len(notes(bench)) == 1
    started = bench.recipe(
        "started", training={**TOY["training"], "base": {"path": "base", "chat_template": BOS_TEMPLATE}}
    )
    assert examination(store, started) != found and len(notes(bench)) == 2
    short = bench.recipe("short", training={**TOY["training"], "max_length": 5})
    assert examination(store, short).num_over_length == 8

    monkeypatch.setattr(resource, "run_local", None)  # no process is started from here on
    faster = bench.recipe("faster", training={**TOY["training"], "learning_rate": 0.5})
    assert examination(store, recipe) == found == examination(store, faster)
    assert len(notes(bench)) == 3 and not list(bench.home.glob(".examine-*"))


def test_another_base_in_the_same_folder_is_examined_again(bench: Bench) -> None:
    base, store, recipe = bench.folder / "recipes" / "base", Store(bench.home), bench.recipe()
    bench.make(recipe, *ASSETS[:4])
    assert "DATA_001" in examination(store, recipe).missing and not notes(bench)
    save_causal(base)
    assert examination(store, recipe).pad_token == "<|pad|>"
    save_causal(base, tokenizer=build_tokenizer(pad="<|end|>"))
    assert examination(store, recipe).pad_token == "<|end|>"


def test_an_examination_that_dies_says_its_last_words_and_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_causal(bench.folder / "recipes" / "base")
    recipe = bench.recipe()
    bench.make(recipe, *ASSETS[:4])
    monkeypatch.setattr(resource, "run_local", lambda *_, **__: TaskEnd(-9, False, "out of luck"))
    with pytest.raises(TaskError, match=r"(?s)TASK_002.*status -9.*out of luck"):
        examination(Store(bench.home), recipe)
    assert not notes(bench) and not list(bench.home.glob(".examine-*"))
