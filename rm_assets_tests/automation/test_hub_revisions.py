"""A branch on the Hub that moves is told once; asked of a real client and a server on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.automation import hub_revisions as module
from rm_assets.automation.hub_revisions import hub_revisions
from rm_assets.resources.compute import Compute
from rm_assets.storage.files import write_json
from rm_assets.storage.store import Store
from rm_assets_tests.loopback_hub import HubOfReplies, as_json, fault, serving
from rm_assets_tests.tasks.conftest import TOY, Bench

OLD, NEW, PINNED = "a" * 40, "b" * 40, "c" * 40
BRANCH = "me/base/revision/main"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubOfReplies]:
    for variable in ("HF_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with serving(HubOfReplies()) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
        hub.replies = {BRANCH: as_json({"sha": OLD})}
        yield hub


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(tmp_path)
    bench.be_all(monkeypatch)
    monkeypatch.setattr(module, "RECIPES", dg.StaticPartitionsDefinition(["toy", "other"]))
    bench.recipe(training={**TOY["training"], "base": {"hub_id": "me/base"}})
    bench.recipe("other", training={**TOY["training"], "base": {"hub_id": "me/other", "revision": PINNED}})
    return bench


def look(bench: Bench, cursor: str | None = None) -> dg.SensorResult:
    compute = {"compute": Compute(home=str(bench.home))}
    with dg.build_sensor_context(cursor=cursor, resources=compute) as context:
        result = hub_revisions(context)
    assert isinstance(result, dg.SensorResult)
    return result


def says(result: dg.SensorResult) -> str:
    return str(result.skip_reason.skip_message if result.skip_reason else "")


def test_a_branch_that_moves_is_told_once_and_a_pinned_commit_is_not_asked_for(bench: Bench, hub: HubOfReplies) -> None:
    first = look(bench)
    assert first.asset_events == [] and says(first) == "nothing has moved (1 asked for)"
    hub.replies = {BRANCH: as_json({"sha": NEW})}
    second = look(bench, first.cursor)
    (event,) = second.asset_events
    assert (event.asset_key.to_user_string(), event.partition) == ("reward_model", "toy")
    assert event.description == f"training.base: model me/base@main has moved from {OLD[:12]} to {NEW[:12]}"
    assert f"write `revision: {NEW}` at training.base of recipe toy" in str(event.metadata["accept"].value)
    assert look(bench, second.cursor).asset_events == []
    file = bench.folder / "recipes" / "toy.yaml"
    text = file.read_text("utf-8")
    file.write_text(text + "a fault: 1\n")
    third = look(bench, second.cursor)
    file.write_text(text)
    hub.replies = {BRANCH: as_json({"sha": OLD})}  # it moves while its recipe cannot be read
    assert len(look(bench, third.cursor).asset_events) == 1
    assert {request.partition("/api/")[2] for request in hub.requests} == {f"models/{BRANCH}"}


@pytest.mark.parametrize("is_model", [True, False])
def test_the_first_look_compares_with_what_was_made(bench: Bench, hub: HubOfReplies, is_model: bool) -> None:
    if is_model:
        training = {"kind": "existing", "model": {"hub_id": "me/base"}, "max_length": 9}
        asset, recipe = "reward_model", bench.recipe(training=training)
        facts = {"model": "me/base", "commit": OLD}
    else:
        rows = {"kind": "dataset", "dataset": "me/rows", "split": "train"}
        asset, recipe = "prompts", bench.recipe(prompts={**TOY["prompts"], "source": rows})
        facts = {"dataset_commits": {"me/rows": OLD}}
    store = Store(bench.home)
    folder = store.folder(asset, "f" * 32)
    write_json(folder / "rows", [])
    record: dict[str, Any] = {
        "asset": asset, "digest": "f" * 32, "recipe": recipe.name, "stage_version": 1, "settings": {}, "inputs": {},
        "counts": {}, "work": {}, "facts": facts,
    }  # fmt: skip
    store.commit(record, folder, ["rows"])
    name = "model me/base" if is_model else "dataset me/rows"
    hub.replies = {
        "/base/revision/main": as_json({"sha": NEW if is_model else OLD}),
        "/rows/revision/main": as_json({"id": "me/rows", "sha": NEW}),
    }
    first = look(bench)
    (event,) = first.asset_events
    assert str(event.description).endswith(f"{name}@main has moved from {OLD[:12]} to {NEW[:12]}")
    assert look(bench, first.cursor).asset_events == []


def test_a_hub_that_does_not_answer_is_told_and_what_was_known_is_kept(
    bench: Bench, hub: HubOfReplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = look(bench).cursor
    hub.replies = {BRANCH: fault(401, "RepoNotFound", "gone")}
    refused = look(bench, cursor)
    assert "model me/base@main: [HUB_00" in says(refused) and refused.cursor == cursor
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    away = look(bench, cursor)
    assert says(away).startswith("[HUB_001] the Hub cannot be asked for the model me/base") and away.cursor is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    requests = len(hub.requests)
    assert says(look(bench, cursor)) == "HF_HUB_OFFLINE is set" and len(hub.requests) == requests
