"""Sample responses from a server with an OpenAI-compatible API, one request for each sample.

The server renders the chat template and draws the random numbers. Each request carries its sample's own seed, so a
response depends on prompt and seed alone as far as the server honours it; its batches may still flip a token.
"""

from collections.abc import Mapping, Sequence

from rm_assets.backends.openai.chat import IDENTITY, ChatModel, ChatRequest, Completion
from rm_assets.core.protocols import Reporter, Sample, SampleRequest


class ServerSampler:
    """Prompts to responses with a server's model."""

    def __init__(
        self, model: ChatModel, *, temperature: float, top_p: float, max_new_tokens: int, reporter: Reporter
    ) -> None:
        self._model, self._reporter = model, reporter
        self._parameters = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
        self.came: list[Sample] = []
        """The samples of the last call of `sample` that came, in any order; all there is of it where it failed."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a response besides prompt, seed and the recipe's section, as far as it can be known from outside."""
        return IDENTITY

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Responses to all requests, in the order of requests and their seeds.

        Raises: ServerError; `came` holds the samples that came before it.
        """
        places = [(request, index) for request in requests for index in range(len(request.seeds))]
        self.came = []

        def use(position: int, completion: Completion) -> Sample:
            request, index = places[position]
            sample = Sample(
                prompt_id=request.prompt_id,
                index=index,
                response=completion.text,
                num_tokens=completion.num_tokens,
                finished=completion.finished,
            )
            self.came.append(sample)
            self._reporter.progress(len(self.came), len(places), "responses")
            return sample

        return self._model.complete_all([self._request(request, index) for request, index in places], use)

    def _request(self, request: SampleRequest, index: int) -> ChatRequest:
        seed = server_seed(request.seeds[index])
        return ChatRequest(
            f"prompt {request.prompt_id}, sample {index}", request.messages, {"seed": seed, **self._parameters}
        )


def server_seed(seed: int) -> int:
    """The upper 31 of a seed's 63 bits: servers differ in what they take (32 bits, signed 64), none refuses these."""
    return seed >> 32
