"""What an answer of the Hugging Face Hub that is a refusal means, and how to mend it.

Read from the answer itself, by whatever client it came: transformers, datasets and huggingface_hub wrap it in errors of their
own, some of which say that there was no connection.
"""

import re
from typing import Any

from rm_assets.core.errors import HubError

NO_SPACE = re.compile(r"storage limit|quota|upgrade your plan|payment", re.IGNORECASE)


def refusal_in(error: BaseException | None, repo: str) -> HubError | None:
    """The refusal that the error came from, if it came from one. A file that a repository lacks is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if hasattr(response, "status_code") and (found := refusal(response, repo)):
            return found
        error = error.__cause__ or error.__context__
    return None


def refusal(response: Any, repo: str) -> HubError | None:
    """What the Hub's answer about `repo` says; None if it does not refuse. `response` is httpx's."""
    status, code = response.status_code, response.headers.get("x-error-code", "")
    token = response.request.headers.get("authorization", "").rpartition(" ")[2]
    # Before the cut: of a token that the cut halves, one half would stay.
    said = " ".join((_said(response).replace(token, "(the token)") if token else _said(response)).split())[:200]
    answer = f"the Hub answers {status}" + (f": {said}" if said else "")
    if status < 400 or code == "EntryNotFound":
        return None
    if status == 429 or status >= 500:
        return HubError(
            "HUB_001", f"the Hub gave no answer about {repo}", why=answer,
            fix="wait some minutes and run again" + ("; with HF_TOKEN set it answers more often" if status == 429 else ""),
        )  # fmt: skip
    if status == 402 or NO_SPACE.search(said):
        return HubError(
            "HUB_003", f"the account's room on the Hub is used up for {repo}", why=answer,
            fix="remove what is not needed there, make the repository public, or take a larger plan",
        )  # fmt: skip
    if code == "GatedRepo":
        return HubError(
            "HUB_003" if token else "HUB_002", f"{repo} is gated", why=answer + ("" if token else "; no token was sent"),
            fix="accept its conditions on its page on the Hub, and set HF_TOKEN to a token of that account",
        )  # fmt: skip
    if code == "RevisionNotFound":
        return HubError("HUB_003", f"{repo} has no such revision", why=answer, fix="correct `revision` in the recipe")
    if code == "RepoNotFound" or status == 404:
        return HubError(
            "HUB_003", f"{repo} is not on the Hub, or not for this account",
            why="it does not exist, or it is private and " + ("HF_TOKEN gives no access to it" if token else "no token was sent"),
            fix="correct the id, or set HF_TOKEN to a token with access to it",
        )  # fmt: skip
    return HubError(
        "HUB_002" if status == 401 else "HUB_003",
        f"the Hub refuses {'the token' if token else 'a request without token'} for {repo}", why=answer,
        fix="set HF_TOKEN to a valid token with the right to do this; for public repositories it can be unset",
    )  # fmt: skip


def _said(response: Any) -> str:
    """The Hub's own words: in a header, else in the body where that was read and is JSON."""
    if header := response.headers.get("x-error-message"):
        return str(header)
    try:
        body = response.json()
    except (ValueError, RuntimeError):
        return ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""
