"""One model behind an OpenAI-compatible server, asked for chat completions."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rm_assets.backends.openai.client import Call, Json, RequestRefusedError, ServerClient
from rm_assets.core.errors import ServerError
from rm_assets.core.recipe import ExecutionSection, ServedModel
from rm_assets.core.records import Messages

FINISHED = {"stop": True, "eos_token": True, "stop_sequence": True, "length": False}
"""Whether a response came to its end. TGI has its own words for "stop"."""
IDENTITY = {"backend": "openai-chat-completions-1"}
"""What decides an answer besides request, model and revision, as far as it can be known from outside."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class ChatRequest:
    """What is asked: `name` is what errors call it, `parameters` go into the request's body."""

    name: str
    messages: Messages
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """What the model wrote; `finished` is False where its length limit cut it."""

    text: str
    num_tokens: int
    finished: bool


class ChatModel:
    """A model by the name under which the server offers it."""

    def __init__(self, client: ServerClient, name: str) -> None:
        self._client, self._name = client, name

    def require_offered(self) -> dict[str, str]:
        """What is to be noted of it: the server's address, and the checkpoint where the server names one (vLLM's `root`).

        Raises: ServerError SERVER_001 to SERVER_006 if the server cannot be reached, refuses the key, or does not offer the model.
        """
        answer = self._client.get("/models")
        offered = answer.get("data")
        if not isinstance(offered, list) or not all(
            isinstance(m, dict) and isinstance(m.get("id"), str) for m in offered
        ):
            self._client.misunderstood("/models", "it holds no list of models", answer)
        names = {entry["id"]: entry for entry in offered}
        if self._name not in names:
            close = difflib.get_close_matches(self._name, names, n=1, cutoff=0.6)
            raise ServerError(
                "SERVER_003",
                f"{self._client.base_url} does not offer the model '{self._name}'",
                why=f"it offers {', '.join(list(names)[:20]) or 'none'}",
                fix=f"did you mean '{close[0]}'?"
                if close
                else "correct the recipe's `model`, or serve it under that name",
            )
        root = names[self._name].get("root")
        return {"server": self._client.base_url} | (
            {"server_checkpoint": self._client.without_secret(root)} if isinstance(root, str) else {}
        )

    def complete_all(
        self,
        requests: Sequence[ChatRequest],
        use: Callable[[int, Completion], Result],
        refused: Callable[[int, RequestRefusedError], Result] | None = None,
    ) -> list[Result]:
        """`use(position, completion)` of each request, in their order. `use` runs as soon as its completion is there.

        Where there is `refused`, it gives the result of a request that the server refuses alone; else that is a failure.

        Raises: ServerError, or what `use` raises.
        """
        calls = [Call(r.name, {"model": self._name, "messages": r.messages, "n": 1, **r.parameters}) for r in requests]
        return self._client.post_all(
            "/chat/completions",
            calls,
            lambda position, answer: use(position, self._read(calls[position].name, answer)),
            refused,
        )

    def _read(self, name: str, answer: Json) -> Completion:
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            self._client.misunderstood(name, "it has not exactly one entry in `choices`", answer)
        reason = choices[0].get("finish_reason")
        if not isinstance(reason, str):
            self._client.misunderstood(name, "it does not say in `finish_reason` why the response ended", answer)
        if reason not in FINISHED:
            self._client.broken_off(name, reason)
        message = choices[0].get("message")
        # What a server splits off as reasoning is no part of the response; then `content` can be null.
        text = (message.get("content") or "") if isinstance(message, dict) else None
        if not isinstance(text, str):
            self._client.misunderstood(name, "the choice has no message with a text as `content`", answer)
        num_tokens = _num_tokens(answer.get("usage"))
        if num_tokens is None:
            self._client.misunderstood(name, "it has no `usage.completion_tokens`", answer)
        return Completion(self._client.without_secret(_encodable(text)), num_tokens, FINISHED[reason])


def connect(served: ServedModel, execution: ExecutionSection) -> ChatModel:
    """The model that a recipe names, asked as patiently as it says. Its key is needed with the first request."""
    client = ServerClient(
        served.base_url,
        api_key_env=served.api_key_env,
        concurrency=execution.server_concurrency,
        timeout_seconds=execution.server_timeout_seconds,
        retries=execution.server_retries,
    )
    return ChatModel(client, served.model)


def _num_tokens(usage: Any) -> int | None:
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _encodable(text: str) -> str:
    """`text` with half a surrogate pair, which JSON can escape and no UTF-8 file can hold, as the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
