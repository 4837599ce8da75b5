"""The server sampler: what it asks, what it makes of answers, and which model it accepts."""

from collections.abc import Mapping
from typing import Any

import pytest

from rm_assets.backends.openai.chat import ChatModel
from rm_assets.backends.openai.client import ServerClient
from rm_assets.backends.openai.sampler import ServerSampler, server_seed
from rm_assets.core.digests import sample_seed
from rm_assets.core.errors import ServerError
from rm_assets.core.protocols import Sample, SampleRequest
from rm_assets_tests.fake_server import FakeServer, Json, Reply, completion

SYSTEM = [{"role": "system", "content": "brief"}, {"role": "user", "content": "b"}]
REQUESTS = [
    SampleRequest("p0", [{"role": "user", "content": "a"}], (1 << 32, (1 << 63) - 1)),
    SampleRequest("p1", SYSTEM, (5 << 32,)),
]


class Counting:
    """A reporter that keeps the progress."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str]] = []

    def log(self, message: str) -> None:
        raise AssertionError(message)

    def progress(self, done: int, total: int, unit: str) -> None:
        self.seen.append((done, total, unit))

    def training_begins(self, num_steps: int, device: str) -> None:
        raise AssertionError(device)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        raise AssertionError(values)


def chat(server: FakeServer) -> ChatModel:
    client = ServerClient(server.base_url, api_key_env=None, concurrency=4, timeout_seconds=5, retries=0)
    return ChatModel(client, "toy")


def sampler(server: FakeServer, reporter: Counting | None = None) -> ServerSampler:
    return ServerSampler(
        chat(server), temperature=0.7, top_p=0.9, max_new_tokens=16, reporter=reporter or Counting()
    )  # fmt: skip


def sampled(server: FakeServer, body: Json) -> Sample:
    """What becomes of an answer."""
    server.answer = lambda _: Reply(body)
    return sampler(server).sample(REQUESTS[1:])[0]


def test_samples_come_in_order_of_requests_and_seeds(server: FakeServer) -> None:
    reporter = Counting()
    samples = sampler(server, reporter=reporter).sample(REQUESTS)
    assert samples == [
        Sample("p0", 0, "a / 1", 3, True), Sample("p0", 1, f"a / {2**31 - 1}", 3, True), Sample("p1", 0, "b / 5", 3, True),
    ]  # fmt: skip
    assert reporter.seen == [(1, 3, "responses"), (2, 3, "responses"), (3, 3, "responses")]


def test_a_request_holds_messages_parameters_and_the_samples_own_seed(server: FakeServer) -> None:
    sampler(server).sample(REQUESTS[1:])
    assert server.paths == ["POST /v1/chat/completions"]
    assert server.posts == [
        {
            "model": "toy", "messages": SYSTEM, "n": 1, "seed": 5, "temperature": 0.7, "top_p": 0.9, "max_tokens": 16,
        }
    ]  # fmt: skip


def test_seeds_fit_31_bits_and_stay_distinct() -> None:
    seeds = [server_seed(sample_seed(0, "prompt", index)) for index in range(2_000)]
    assert len(set(seeds)) == 2_000
    assert all(0 <= seed < 2**31 for seed in seeds) and max(seeds) > 2**30


@pytest.mark.parametrize(
    ("reason", "finished"), [("stop", True), ("eos_token", True), ("stop_sequence", True), ("length", False)]
)
def test_a_response_cut_by_the_length_limit_is_not_finished(server: FakeServer, reason: str, finished: bool) -> None:
    sample = sampled(server, completion("text", finish_reason=reason, num_tokens=9))
    assert (sample.response, sample.finished, sample.num_tokens) == ("text", finished, 9)


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_response_is_kept(server: FakeServer, text: str | None) -> None:
    assert sampled(server, completion(text)).response == ""


def test_reasoning_that_the_server_splits_off_is_no_part_of_the_response(server: FakeServer) -> None:
    body = completion("4")
    body["choices"][0]["message"] |= {"reasoning_content": "2 and 2", "reasoning": "2 and 2"}
    assert sampled(server, body).response == "4"


def test_half_a_surrogate_pair_becomes_the_replacement_character(server: FakeServer) -> None:
    assert sampled(server, completion("a\ud83d")).response == "a\ufffd"
    assert sampled(server, completion("a\U0001f600")).response == "a\U0001f600"


def without(key: str) -> Json:
    return {k: v for k, v in completion().items() if k != key}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "engine dead"}, "choices"),
        ({**completion(), "choices": []}, "choices"),
        ({**completion(), "choices": [{"finish_reason": "stop"}]}, "content"),
        ({**completion(), "choices": [{"finish_reason": "stop", "message": {"content": ["a"]}}]}, "content"),
        ({**completion(), "choices": [{"message": {"content": "a"}}]}, "finish_reason"),
        (without("usage"), "usage.completion_tokens"),
    ],
)
def test_an_answer_that_is_no_completion_is_quoted_with_its_prompt(server: FakeServer, body: Json, words: str) -> None:
    with pytest.raises(ServerError) as caught:
        sampled(server, body)
    assert caught.value.code == "SERVER_005" and words in caught.value.why
    assert "prompt p1, sample 0" in caught.value.what and str(body)[:30] in caught.value.what


@pytest.mark.parametrize(
    ("reason", "fix"), [("content_filter", "remove this prompt from the prompts"), ("abort", "the server's log")]
)
def test_a_response_that_the_server_breaks_off_names_the_prompt_and_the_reason(
    server: FakeServer, reason: str, fix: str
) -> None:
    with pytest.raises(ServerError) as caught:
        sampled(server, completion(finish_reason=reason))
    assert caught.value.code == "SERVER_004" and "prompt p1, sample 0" in caught.value.what
    assert reason in caught.value.why and fix in caught.value.fix and "base_url" not in caught.value.fix


def test_what_the_server_says_of_its_model_is_returned(server: FakeServer) -> None:
    assert chat(server).require_offered() == {"server": server.base_url, "server_checkpoint": "org/toy-1b"}
    assert server.paths == ["GET /v1/models"]


@pytest.mark.parametrize(
    ("models", "code", "words"),
    [
        ({"data": [{"id": "toys"}, {"id": "other"}]}, "SERVER_003", ("'toy'", "toys, other", "did you mean 'toys'?")),
        ({"data": []}, "SERVER_003", ("it offers none", "the recipe's `model`")),
        ({"models": ["toy"]}, "SERVER_005", ("no list of models", "{'models': ['toy']}")),
        ({"data": ["toy"]}, "SERVER_005", ("no list of models",)),
    ],
)
def test_a_model_that_is_not_offered_is_refused(
    server: FakeServer, models: Any, code: str, words: tuple[str, ...]
) -> None:
    server.models = models
    with pytest.raises(ServerError) as caught:
        chat(server).require_offered()
    assert caught.value.code == code and all(word in str(caught.value) for word in words), caught.value


def test_an_address_that_is_not_the_apis_root_is_told_so(server: FakeServer) -> None:
    server.base_url = server.base_url.removesuffix("/v1")
    with pytest.raises(ServerError, match="commonly ends in /v1") as caught:
        chat(server).require_offered()
    assert caught.value.code == "SERVER_003"
