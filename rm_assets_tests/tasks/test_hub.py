"""Datasets read in task processes by the real client, from a Hub on this machine."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.errors import DataError
from rm_assets.core.recipe import Recipe
from rm_assets_tests.fake_hub import FakeHub
from rm_assets_tests.loopback_hub import serving
from rm_assets_tests.tasks.conftest import Bench, files

CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: data/*.jsonl}
- config_name: extra
  data_files:
  - {split: train, path: extra.csv}
---
"""
TOKEN = "hf_never_to_be_seen"


def lines(*numbers: int) -> bytes:
    return "".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in numbers).encode()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that this test's task processes take for the real one, with 20 questions in me/data."""
    with serving(FakeHub()) as made:
        for variable in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", made.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        made.commit(
            "me/data", {"README.md": CARD, "data/a.jsonl": lines(*range(20)), "extra.csv": b"prompt\nno\nyes\n"}
        )
        yield made


def recipe(bench: Bench, **source: Any) -> Recipe:
    rows = {"kind": "dataset", "dataset": "me/data", "config": "main", **source}
    return bench.recipe(prompts={"source": rows, "split": {"train": 0.5, "validation": 0.0, "test": 0.5}})


@pytest.mark.parametrize("streaming", [False, True])
def test_a_commit_stays_what_it_was_and_a_branch_moves(bench: Bench, hub: FakeHub, streaming: bool) -> None:
    first = hub.branches["me/data"]["main"]
    second = hub.commit("me/data", {"README.md": CARD, "data/a.jsonl": lines(*range(20)), "data/b.jsonl": lines(20)})
    pinned = bench.make(recipe(bench, revision=first, streaming=streaming), "prompts")
    assert [p.prompt for p in bench.rows(pinned)] == [f"question {n}" for n in range(20)]
    assert pinned.manifest.facts["dataset_commits"] == {f"me/data@{first}": first}
    branch = bench.make(recipe(bench, revision="main", streaming=streaming), "prompts")
    assert [p.prompt for p in bench.rows(branch)] == [f"question {n}" for n in range(21)]
    assert branch.manifest.facts["dataset_commits"] == {"me/data@main": second}


def test_a_branch_that_moves_between_tasks_moves_no_reward_to_another_response(bench: Bench, hub: FakeHub) -> None:
    rows = [
        {"prompt": f"question {n}", "a": f"yes {n}", "b": f"no {n}", "reward_a": 1, "reward_b": 0} for n in range(20)
    ]
    hub.commit("me/rated", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})
    source = {"kind": "dataset", "dataset": "me/rated"}
    rated = bench.recipe(
        prompts={"source": source, "split": {"train": 0.5, "validation": 0.0, "test": 0.5}},
        sampling={"kind": "recorded", "source": source, "align": "row", "response_fields": ["a", "b"]},
        gold={"kind": "recorded", "source": source, "align": "row", "reward_fields": ["reward_a", "reward_b"]},
    )
    first = hub.branches["me/rated"]["main"]
    for asset in ("prompts", "sampled_responses", "gold_rewards"):
        made = bench.make(rated, asset)
        assert made.manifest.facts["dataset_commits"] == {"me/rated": first}
        turned = [{**row, "reward_a": 0, "reward_b": 1} for row in rows]
        hub.commit("me/rated", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in turned).encode()})
    assert {(r.response.split()[0], r.gold_reward) for r in bench.rows(made)} == {("yes", 1), ("no", 0)}


def test_a_private_dataset_is_read_with_the_token_of_the_environment_and_nothing_tells_it(
    bench: Bench, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = TOKEN
    with pytest.raises(DataError, match="or it is private and no token was sent"):
        bench.make(recipe(bench), "prompts")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    made = bench.make(recipe(bench), "prompts")
    assert made.manifest.counts["prompts"] == 20
    assert hub.authorizations == {None, f"Bearer {TOKEN}"}
    assert TOKEN not in "\n".join(bench.said)
    assert not [file for file in bench.folder.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ({"dataset": "me/none"}, "DATA_001", "me/none is not on the Hub, or not for this account"),
        ({"dataset": "not an id"}, "DATA_001", "not an id"),
        ({"revision": "gone"}, "DATA_001", "has no such revision: the Hub answers 404: Invalid rev id: gone"),
        ({"config": "other"}, "DATA_001", "'other' not found. Available: ['main', 'extra']"),
        ({"split": "test"}, "DATA_001", "Unknown split \"test\". Should be one of ['train']"),
        ({"dataset": "me/text", "config": None}, "DATA_003", "me/text train, row 1: column 'prompt' is missing"),
        ({"dataset": "me/gated"}, "DATA_001", "gated dataset"),
        pytest.param({"dataset": "me/gated", "streaming": True}, "DATA_001", "gated dataset", marks=pytest.mark.slow),
        ({"dataset": "me/empty", "config": None}, "DATA_001", "me/empty"),
        pytest.param({"dataset": "me/broken", "config": None}, "DATA_001", "me/broken", marks=pytest.mark.slow),
        ({"dataset": "me/broken", "config": None, "streaming": True}, "DATA_001", "me/broken"),
    ],
)
def test_what_the_hub_does_not_have_or_give_is_one_sentence(
    bench: Bench, hub: FakeHub, source: dict[str, Any], code: str, words: str
) -> None:
    hub.commit("me/gated", {"README.md": CARD, "data/a.jsonl": lines(1)})
    hub.gated.add("me/gated")
    hub.commit("me/text", {"train.jsonl": b'{"text": "a"}\n'})
    hub.commit("me/empty", {"notes.txt.bak": b""})
    hub.commit("me/broken", {"data/train.jsonl": b'{"prompt": "a"}\n{"prompt": \n'})
    with pytest.raises(DataError) as caught:
        bench.make(recipe(bench, **source), "prompts")
    assert caught.value.code == code and words in str(caught.value), caught.value
    assert "Traceback" not in str(caught.value) and caught.value.fix
    assert bench.manifests() == {}


def test_a_file_of_a_dataset_is_read_by_its_url_and_without_a_network_it_is_one_sentence(
    bench: Bench, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.recipe(
        prompts={
            "source": files("hf://datasets/me/data/data/*.jsonl"),
            "split": {"train": 0.5, "validation": 0.0, "test": 0.5},
        }
    )
    command = [sys.executable, "-m", "rm_assets.cli.main", "run", "toy", "--select", "prompts"]
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("DAGSTER_HOME", str(bench.folder))
    for endpoint, status in ((hub.endpoint, 0), ("http://127.0.0.1:9", 1)):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == status, ended.stderr
    assert len(bench.manifests()) == 1
    assert "[DATA_001] hf://datasets/me/data/data/*.jsonl cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_a_network_a_pinned_commit_is_refused_at_once_and_not_read_from_the_cache_of_another(
    bench: Bench, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.make(recipe(bench), "prompts")  # now this commit is in the cache of the client
    other = hub.commit("me/data", {"README.md": CARD, "data/a.jsonl": lines(1, 2, 3)})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"me/data .train. cannot be loaded from the Hub") as caught:
            bench.make(recipe(bench, revision=other, streaming=streaming), "prompts")
        assert caught.value.code == "DATA_001" and "Connection refused" in str(caught.value)
    assert time.monotonic() - started < 40  # the client alone tries for 23 seconds each time
