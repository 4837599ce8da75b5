"""Sample responses from a server with an OpenAI-compatible API, one request for each sample.

The server renders the chat template and draws the random numbers. Each request carries its sample's own seed, so a
response depends on prompt and seed alone as far as the server honours it; its batches may still flip a token.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from rm_assets.backends.openai.client import Call, Json, ServerClient
from rm_assets.core.errors import ServerError
from rm_assets.core.protocols import Reporter, Sample, SampleRequest

FINISHED = {"stop": True, "eos_token": True, "stop_sequence": True, "length": False}
"""Whether a response came to its end. TGI has its own words for "stop"."""


class ServerSampler:
    """Prompts to responses with a server's model."""

    def __init__(
        self,
        client: ServerClient,
        model: str,
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        reporter: Reporter,
    ) -> None:
        self._client, self._model, self._reporter = client, model, reporter
        self._parameters = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        self.came: list[Sample] = []
        """The samples of the last call of `sample` that came, in any order; all there is of it where it failed."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a response besides prompt, seed and the recipe's section, as far as it can be known from outside."""
        return {"backend": "openai-chat-completions-1"}

    def require_model(self) -> Json:
        """What the server tells of the model; vLLM names the checkpoint as `root`.

        Raises: ServerError SERVER_001 to SERVER_005 if it cannot be reached, refuses the key, or does not offer the model.
        """
        answer = self._client.get("/models")
        offered = answer.get("data")
        if not isinstance(offered, list) or not all(
            isinstance(m, dict) and isinstance(m.get("id"), str) for m in offered
        ):
            self._client.misunderstood("/models", "it holds no list of models", answer)
        names = {entry["id"]: entry for entry in offered}
        if self._model not in names:
            close = difflib.get_close_matches(self._model, names, n=1, cutoff=0.6)
            raise ServerError(
                "SERVER_003",
                f"{self._client.base_url} does not offer the model '{self._model}'",
                why=f"it offers {', '.join(list(names)[:20]) or 'none'}",
                fix=f"did you mean '{close[0]}'?" if close else "correct sampling.model, or serve it under that name",
            )
        found: Json = names[self._model]
        return found

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Responses to all requests, in the order of requests and their seeds.

        Raises: ServerError; `came` holds the samples that came before it.
        """
        places = [(request, index) for request in requests for index in range(len(request.seeds))]
        self.came = []

        def use(position: int, answer: Json) -> Sample:
            sample = self._sample(*places[position], answer)
            self.came.append(sample)
            self._reporter.progress(len(self.came), len(places), "responses")
            return sample

        calls = [Call(_name(request, index), self._body(request, index)) for request, index in places]
        return self._client.post_all("/chat/completions", calls, use)

    def _body(self, request: SampleRequest, index: int) -> Json:
        seed = server_seed(request.seeds[index])
        return {"model": self._model, "messages": request.messages, "n": 1, "seed": seed, **self._parameters}

    def _sample(self, request: SampleRequest, index: int, answer: Json) -> Sample:
        name = _name(request, index)
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
        return Sample(
            prompt_id=request.prompt_id,
            index=index,
            response=_encodable(text),
            num_tokens=num_tokens,
            finished=FINISHED[reason],
        )


def server_seed(seed: int) -> int:
    """The upper 31 of a seed's 63 bits: servers differ in what they take (32 bits, signed 64), none refuses these."""
    return seed >> 32


def _name(request: SampleRequest, index: int) -> str:
    return f"prompt {request.prompt_id}, sample {index}"


def _num_tokens(usage: Any) -> int | None:
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _encodable(text: str) -> str:
    """`text` with half a surrogate pair, which JSON can escape and no UTF-8 file can hold, as the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
