"""What `rm-assets health` says of credentials, the Hub, W&B and model servers: real clients against servers on this machine."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.health import Condition, sound, worst
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_needs import Needs, needs_of
from rm_assets.resources.health import network, recipes
from rm_assets_tests.fake_server import FakeServer
from rm_assets_tests.fake_server import serving as serving_models
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.loopback_hub import HubOfReplies, as_json, fault, serving
from rm_assets_tests.tasks.conftest import Bench

SECRET = "sk-never-to-be-seen"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    save_causal(tmp_path / "recipes" / "base")
    return made


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubOfReplies]:
    """A Hub on this machine, asked without a token."""
    for variable in ("HF_TOKEN", "WANDB_API_KEY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with serving(HubOfReplies()) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
        yield hub


def needs(**changes: Any) -> Needs:
    none: dict[str, Any] = {
        "recipe": "mine",
        "models": {},
        "sources": {},
        "servers": {},
        "pushes_to": None,
        "logs_online": False,
    }
    return Needs(**(none | changes))


def asked(question: network.Question) -> Condition:
    return question[0]()


def named(conditions: Any, name: str) -> Condition:
    return next(condition for condition in conditions if condition.name == name)


def test_a_question_without_an_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ALL_SECONDS", 0.3)
    never, started = threading.Event(), time.monotonic()
    late = sound("slow", "too late")

    def hang() -> Condition:
        never.wait(20)
        return sound("slow", "in time")

    found = network.ask_all([(hang, late), (lambda: sound("quick", "here"), late), (hang, late)])
    never.set()
    assert [c.what for c in found] == ["too late", "here", "too late"] and time.monotonic() - started < 5


def test_a_hub_that_answers_and_one_that_refuses_the_token(
    online: HubOfReplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(network.hub([])).what == f"{online.endpoint} answers"
    monkeypatch.setenv("HF_TOKEN", SECRET)
    online.replies = {"whoami": as_json({"name": "me"})}
    assert asked(network.hub([])).what == f"{online.endpoint} answers and knows the token, as me"
    online.replies = {"whoami": fault(401, "", "Invalid credentials")}
    refused = asked(network.hub([]))
    assert (refused.code, refused.status) == ("HUB_002", "warning") and SECRET not in str(refused)
    for reply in ((200, {}, b"<html>please log in to this network</html>"), fault(404, "", ""), fault(503, "", "")):
        online.replies = {"whoami": reply}
        assert asked(network.hub([needs(pushes_to="me/m")])).code == "HUB_001"


def test_a_token_that_a_recipe_pushes_with_is_missed(online: HubOfReplies, monkeypatch: pytest.MonkeyPatch) -> None:
    pushing = [needs(pushes_to="me/m")]
    for given, status in ((needs(), "ok"), (pushing[0], "error")):
        assert named(network.credentials([given], "error"), "credential HF_TOKEN").status == status
    monkeypatch.setenv("HF_TOKEN", SECRET)
    found = list(network.credentials(pushing, "error"))
    assert worst(found) == "ok" and SECRET not in str(found)


def test_a_machine_without_network_is_in_order_unless_a_recipe_needs_it(
    online: HubOfReplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert asked(network.hub([needs()])) == sound("hub", "http://127.0.0.1:9 cannot be reached; no recipe needs it")
    found = asked(network.hub([needs(), needs(recipe="far", pushes_to="me/m")]))
    assert (found.code, found.status) == ("HUB_001", "warning") and found.why.endswith("needed by far")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert asked(network.hub([needs(pushes_to="me/m")])).what.startswith("not asked")
    assert not online.requests


def test_wandb_is_asked_only_where_something_logs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert network.wandb([needs()]) == []
    with serving(HubOfReplies(graphql=as_json({"data": {"viewer": {"id": "1"}}}))) as service:
        monkeypatch.setenv("WANDB_BASE_URL", service.endpoint)
        (question,) = network.wandb([needs(logs_online=True)])
        assert asked(question).what == f"{service.endpoint} answers"
        monkeypatch.setenv("WANDB_API_KEY", SECRET)
        (question,) = network.wandb([needs()])
        assert asked(question).what == f"{service.endpoint} answers and takes the key"
        for reply in (as_json({"data": {"viewer": None}}), fault(401, "", SECRET)):
            service.replies = {"graphql": reply}
            refused = asked(question)
            assert (refused.code, refused.status) == ("TRACKING_001", "warning") and "refuses the key" in refused.what
            assert SECRET not in str(refused)
    gone = asked(question)
    assert gone.code == "TRACKING_001" and "cannot be reached" in gone.what
    monkeypatch.setenv("WANDB_BASE_URL", f"http://me:{SECRET}@wandb.test")
    (question,) = network.wandb([needs()])
    found = asked(question)
    assert "must not hold a user or password" in found.why and SECRET not in str(found)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving_models() as made:
        yield made


def served(bench: Bench, server: FakeServer, model: str = "toy") -> Recipe:
    place = {"base_url": server.base_url, "model": model, "revision": "1", "api_key_env": "TOY_KEY"}
    return bench.recipe(
        sampling={"kind": "server", **place, "num_responses": 2, "max_new_tokens": 8},
        gold={"kind": "verifier", "exact": 1.0},
    )


def test_a_server_is_asked_for_its_model_with_its_key(
    bench: Bench, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key, need = SECRET, needs_of(served(bench, server))
    monkeypatch.delenv("TOY_KEY", raising=False)
    missing = named(network.credentials([need], "error"), "credential TOY_KEY")
    assert (missing.code, missing.status) == ("SERVER_002", "error") and "in toy" in missing.why
    for key, code in (("", "SERVER_002"), ("wrong-key", "SERVER_002"), (SECRET, "")):
        monkeypatch.setenv("TOY_KEY", key)
        (question,) = network.servers([need], "warning")
        found = asked(question)
        assert (found.code, found.status) == (code, "warning" if code else "ok")
        assert "wrong-key" not in str(found) and SECRET not in str(found)
    (question,) = network.servers([needs_of(served(bench, server, model="toi"))], "error")
    assert asked(question).code == "SERVER_003" and asked(question).fix == "did you mean 'toy'?"


def test_a_server_that_is_down_is_told_once_for_all_recipes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", SECRET)
    with serving_models() as server:
        need = needs_of(served(bench, server))
    (question,) = network.servers([need, need], "error")
    found = asked(question)
    assert found.code == "SERVER_001" and found.why.endswith("needed by toy")


def test_what_a_recipe_names_on_the_hub_is_asked_for(
    bench: Bench, online: HubOfReplies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    source = {"kind": "dataset", "dataset": "me/data", "revision": "v9"}
    need = needs_of(bench.recipe(
        prompts={"source": source, "split": {"train": 0.5, "validation": 0.0, "test": 0.5}},
        training={"base": {"hub_id": "me/base"}, "learning_rate": 0.01},
    ))  # fmt: skip
    assert need.uses_hub
    online.replies = {"me/base/auth-check": fault(401, "GatedRepo", "ask"),
                      "me/data/revision/v9": fault(404, "RevisionNotFound", "Invalid rev id")}  # fmt: skip
    found = {c.name: (c.code, c.status) for c in map(asked, recipes.on_hub(need))}
    assert found == {"training.base": ("HUB_002", "error"), "prompts.source": ("HUB_003", "error")}
    online.replies = {}
    assert worst(map(asked, recipes.on_hub(need))) == "ok"
    for name, value in (("ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        assert {(c.code, c.status) for c in map(asked, recipes.on_hub(need))} == {("HUB_001", "warning")}
    folder = tmp_path / "cache" / "models--me--base"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1" * 40)
    save_causal(folder / "snapshots" / ("1" * 40))
    assert asked(recipes.on_hub(need)[0]).what == "me/base is in the cache"
