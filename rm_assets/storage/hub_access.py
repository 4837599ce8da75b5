"""Whether the Hugging Face Hub answers, and whether it lets this account read a repository. Downloads nothing."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from rm_assets.core.errors import HubError
from rm_assets.core.hub_refusals import refusal
from rm_assets.core.recipe import ModelRef

RepoKind = Literal["model", "dataset"]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
NOT_REACHED = "the Hub cannot be reached"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def has_token() -> bool:
    """Whether there is a token: HF_TOKEN, or that of `hf auth login`."""
    from huggingface_hub import get_token

    return get_token() is not None


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or the public one."""
    from huggingface_hub import HfApi

    return str(HfApi().endpoint)


def is_cached(ref: ModelRef) -> bool:
    """Whether configuration and weights of a model on the Hub lie in the cache on this disk."""
    from huggingface_hub import try_to_load_from_cache

    found = {
        name: try_to_load_from_cache(str(ref.hub_id), name, revision=ref.revision) for name in ("config.json", *WEIGHTS)
    }
    return isinstance(found["config.json"], str) and any(
        isinstance(found[name], str) and Path(str(found[name])).exists() for name in WEIGHTS
    )


def account(timeout_seconds: float) -> str | None:
    """The name that the token stands for; None without a token, if the Hub answers.

    Raises: HubError HUB_001, HUB_002 if the token is refused.
    """
    path = "/api/whoami-v2" if has_token() else "/api/models?limit=1"
    answer = _get(path, timeout_seconds)
    if answer.status_code in (401, 403) and (found := refusal(answer, "your account")):
        raise found
    if not answer.is_success:
        raise unreachable(f"what is there answers {answer.status_code}")
    try:
        said = answer.json()
    except ValueError:  # what a proxy or a login page of a network says in the Hub's place
        raise unreachable("something answers in its place, and not with JSON") from None
    return str(said.get("name")) if isinstance(said, dict) else None


def require_access(kind: RepoKind, repo: str, revision: str | None, timeout_seconds: float) -> None:
    """Asks whether this account may read a repository at a revision.

    Raises: HubError HUB_001, HUB_002 (a token is missing or refused), HUB_003 (no such repository or revision, or no access).
    """
    address, what = f"/api/{kind}s/{repo}", f"the Hub cannot be asked for the {kind} {repo}"
    answer = _get(f"{address}/auth-check", timeout_seconds, what)
    if answer.is_success and revision is not None:
        answer = _get(f"{address}/revision/{quote(revision, safe='')}", timeout_seconds, what)
    if found := refusal(answer, f"the {kind} {repo}"):
        raise found


def commit_of(kind: RepoKind, repo: str, revision: str, timeout_seconds: float) -> str:
    """The commit that a branch or tag stands for now. Raises: as `require_access`."""
    what = f"the Hub cannot be asked for the {kind} {repo}"
    answer = _get(f"/api/{kind}s/{repo}/revision/{quote(revision, safe='')}", timeout_seconds, what)
    if found := refusal(answer, f"the {kind} {repo}"):
        raise found
    try:
        return str(answer.json()["sha"])
    except (ValueError, TypeError, KeyError):
        raise unreachable("something answers in its place", what) from None


def _get(path: str, timeout_seconds: float, what: str = NOT_REACHED) -> Any:
    """The answer. Raises: HubError HUB_001 if there is none; `what` is then its sentence."""
    import httpx2
    from huggingface_hub import get_session, get_token

    token = get_token()
    # Not the client's own headers: to make them, it first asks the Hub something else.
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return get_session().get(endpoint() + path, headers=headers, timeout=timeout_seconds)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise unreachable(type(error).__name__, what) from None


def unreachable(why: str, what: str = NOT_REACHED) -> HubError:
    """HUB_001."""
    return HubError(
        "HUB_001",
        what,
        why=why,
        fix="check the network, a proxy (HTTPS_PROXY) and HF_ENDPOINT; without a network set HF_HUB_OFFLINE=1 and use local paths or cached models",
    )
