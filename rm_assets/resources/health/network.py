"""What lies on the network: credentials for it, the Hub, Weights & Biases, model servers. Every question has a few seconds."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rm_assets.backends.openai.chat import ChatModel
from rm_assets.backends.openai.client import ServerClient, key_from_environment
from rm_assets.core.errors import HubError, RmAssetsError, ServerError, TrackingError
from rm_assets.core.health import Condition, Status, faulty, sound
from rm_assets.core.recipe_needs import Needs
from rm_assets.core.servers import address_fault, is_loopback
from rm_assets.resources.tracker import API_KEY, without_credentials
from rm_assets.resources.wandb_run import CLOUD
from rm_assets.storage import hub_access

ANSWER_SECONDS, ALL_SECONDS = 3.0, 4.0
"""For one answer, and for all together: looking up a name can take longer than a client's time limit."""
Question = tuple[Callable[[], Condition], Condition]
"""Asks, and what holds where there is no answer in time."""


def ask_all(questions: Sequence[Question]) -> list[Condition]:
    """The answers, asked for all at once; who has not answered after ALL_SECONDS is not waited for."""
    found = [late for _, late in questions]

    def ask(position: int) -> None:
        found[position] = questions[position][0]()

    threads = [threading.Thread(target=ask, args=[position], daemon=True) for position in range(len(questions))]
    deadline = time.monotonic() + ALL_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(found)


def credentials(needs: Sequence[Needs], status: Status) -> Iterator[Condition]:
    """Which credentials are there, never what they are; `status` is that of a missing one that a recipe cannot do without."""
    yield _hub_token(needs, status)
    yield _wandb_key(needs)
    is_there = os.environ.get("KAGGLE_API_TOKEN") or os.environ.get("KAGGLE_KEY") or _kaggle_file().is_file()
    yield sound("credential KAGGLE_KEY", "is there" if is_there else "not set; only private datasets on Kaggle need it")
    yield from _server_keys(needs, status)


def _hub_token(needs: Sequence[Needs], status: Status) -> Condition:
    name, pushing = "credential HF_TOKEN", [need.recipe for need in needs if need.pushes_to]
    if hub_access.has_token():
        return sound(name, "is there" if os.environ.get("HF_TOKEN") else "not set; that of `hf auth login` is there")
    if not pushing:
        return sound(name, "not set; only private and gated repositories need it")
    error = HubError(
        "HUB_002", "HF_TOKEN is not set", why=f"needed to push the releases of {_named(pushing)}",
        fix="export HF_TOKEN=..., or set release.validate_only: true",
    )  # fmt: skip
    return faulty(name, error, status)


def _wandb_key(needs: Sequence[Needs]) -> Condition:
    name, online = f"credential {API_KEY}", [need.recipe for need in needs if need.logs_online]
    if os.environ.get(API_KEY):
        return sound(name, "is there")
    if not online:
        return sound(name, "not set; only tracking.wandb.mode: online needs it")
    return faulty(name, _wandb_error(f"{API_KEY} is not set", f"{_named(online)} logs online"), "warning")


def _server_keys(needs: Sequence[Needs], status: Status) -> Iterator[Condition]:
    users: dict[str, list[str]] = {}
    for need in needs:
        for served in need.servers.values():
            if served.api_key_env:
                users.setdefault(served.api_key_env, []).append(need.recipe)
    for variable, recipes in users.items():
        try:
            key_from_environment(variable)
            yield sound(f"credential {variable}", f"is there, for {_named(recipes)}")
        except ServerError as error:
            why = f"{error.why}, in {_named(recipes)}"
            yield faulty(f"credential {variable}", ServerError(error.code, error.what, why=why, fix=error.fix), status)


def hub(needs: Sequence[Needs]) -> Question:
    """Whether the Hub answers and takes the token. That it does not is a warning where a recipe uses it, and else nothing to mend."""
    users = [need.recipe for need in needs if need.uses_hub]
    where = without_credentials(hub_access.endpoint())

    def trouble(error: HubError) -> Condition:
        if not users and error.code == "HUB_001":
            return sound("hub", f"{where} cannot be reached; no recipe needs it")
        told = HubError(error.code, f"{error.what} ({where})", why=_needed_by(users, error.why), fix=error.fix)
        return faulty("hub", told, "warning")

    def ask() -> Condition:
        if hub_access.is_offline():
            return sound("hub", "not asked, since HF_HUB_OFFLINE is set; models come from the cache")
        try:
            name = hub_access.account(ANSWER_SECONDS)
        except HubError as error:
            return trouble(error)
        return sound("hub", f"{where} answers" + (f" and knows the token, as {name}" if name else ""))

    return ask, trouble(hub_access.unreachable(f"no answer in {ALL_SECONDS:g} s"))


def wandb(needs: Sequence[Needs]) -> list[Question]:
    """Whether Weights & Biases answers and takes the key, where a recipe or the environment means to log there."""
    users = [need.recipe for need in needs if need.logs_online]
    if not users and not os.environ.get(API_KEY):
        return []
    host = os.environ.get("WANDB_BASE_URL", CLOUD).rstrip("/")

    def trouble(what: str, why: str) -> Condition:
        return faulty("wandb", _wandb_error(what, _needed_by(users, why)), "warning")

    def ask() -> Condition:
        import httpx2

        key = os.environ.get(API_KEY, "")
        if fault := address_fault(host, sends_key=bool(key)):
            return trouble("WANDB_BASE_URL is no address that a key can be sent to", f"it {fault}")
        try:
            answer = httpx2.post(
                f"{host}/graphql", json={"query": "{viewer{id}}"}, auth=("api", key) if key else None,
                timeout=ANSWER_SECONDS, trust_env=not is_loopback(host),
            )  # fmt: skip
            viewer = answer.json().get("data", {}).get("viewer") if answer.is_success else None
        except (httpx2.HTTPError, OSError, ValueError, AttributeError) as error:
            return trouble(f"W&B cannot be reached ({host})", type(error).__name__)
        if answer.status_code in (401, 403) or (key and answer.is_success and not viewer):
            return trouble(f"W&B refuses the key ({host})", f"it answers {answer.status_code}")
        if not answer.is_success:
            return trouble(f"W&B does not answer as it should ({host})", f"it answers {answer.status_code}")
        return sound("wandb", f"{host} answers" + (" and takes the key" if key else ""))

    return [(ask, trouble("W&B cannot be reached", f"no answer in {ALL_SECONDS:g} s"))]


def servers(needs: Sequence[Needs], status: Status) -> list[Question]:
    """Whether each server of the recipes answers, takes the key and offers the model."""
    users: dict[tuple[str, str, str | None], list[str]] = {}
    for need in needs:
        for served in need.servers.values():
            users.setdefault((served.base_url, served.model, served.api_key_env), []).append(need.recipe)
    return [_server(*asked, recipes=recipes, status=status) for asked, recipes in users.items()]


def _server(base_url: str, model: str, api_key_env: str | None, *, recipes: list[str], status: Status) -> Question:
    name = f"server {base_url}"

    def trouble(error: RmAssetsError) -> Condition:
        told = ServerError(error.code, error.what, why=_needed_by(recipes, error.why), fix=error.fix)
        return faulty(name, told, status)

    def ask() -> Condition:
        client = ServerClient(
            base_url, api_key_env=api_key_env, concurrency=1, timeout_seconds=ANSWER_SECONDS, retries=0
        )
        try:
            ChatModel(client, model).require_offered()
        except ServerError as error:
            return trouble(error)
        return sound(name, f"offers {model}")

    late = ServerError(
        "SERVER_001", f"{base_url} gave no answer in {ALL_SECONDS:g} s", fix="start the server, or correct base_url"
    )
    return ask, trouble(late)


def _wandb_error(what: str, why: str) -> TrackingError:
    return TrackingError("TRACKING_001", what, why=why,
                         fix=f"set {API_KEY} to a valid key and check the network, or set tracking.wandb.mode to offline")  # fmt: skip


def _kaggle_file() -> Path:
    return Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"


def _needed_by(recipes: Sequence[str], why: str) -> str:
    """The cause, and whom it stops."""
    return "; ".join(part for part in (why, f"needed by {_named(recipes)}" if recipes else "") if part)


def _named(recipes: Sequence[str]) -> str:
    """The recipes' names."""
    return ", ".join(dict.fromkeys(recipes))
