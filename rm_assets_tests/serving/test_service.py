"""The HTTP service on a real port of this process, around a model that can be held up."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
import uvicorn

from rm_assets.serving import RewardModel
from rm_assets.serving.bodies import MAX_RESPONSES
from rm_assets.serving.gate import Limits
from rm_assets.serving.server import bound
from rm_assets.serving.service import create_app
from rm_assets_tests.fakes import TEXTS
from rm_assets_tests.serving.conftest import HeldScorer

TOKEN = "a-very-secret-token"
ASK = {"prompt": "one apple", "responses": TEXTS[:2]}


@contextmanager
def serving(model: RewardModel, limits: Limits | None = None, **options: Any) -> Iterator[httpx2.Client]:
    """A client of a server that runs until the end of the block."""
    app = create_app(model, limits=limits or Limits(), **options)
    server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="on", log_level="warning", access_log=False))
    with bound("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


def slow_model(held: HeldScorer) -> RewardModel:
    return RewardModel("held", cast(Any, held))


@pytest.fixture(scope="module")
def client(model: RewardModel) -> Iterator[httpx2.Client]:
    with serving(model) as found:
        yield found


def fault(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def metric(client: httpx2.Client, line: str) -> float:
    page = client.get("/metrics").text.splitlines()
    return next((float(each.rsplit(" ", 1)[1]) for each in page if each.startswith(line + " ")), 0.0)


def until(condition: Any) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def test_rewards_are_those_of_the_model(client: httpx2.Client, model: RewardModel) -> None:
    dialogue = [{"role": "system", "content": "be good"}, {"role": "user", "content": "one apple"}]
    for prompt in ("one apple", dialogue):
        expected = model.score(prompt, TEXTS)
        answer = client.post("/v1/score", json={"prompt": prompt, "responses": TEXTS}).json()
        assert answer["rewards"] == pytest.approx(expected, abs=1e-5)
        assert answer["truncated"] == [False] * 6 and len(answer["num_tokens"]) == 6
        best = client.post("/v1/best-of", json={"prompt": prompt, "responses": TEXTS}).json()
        assert best["index"] == expected.index(max(expected)) and best["response"] == TEXTS[best["index"]]
        two = client.post("/v1/compare", json={"prompt": prompt, "a": TEXTS[0], "b": TEXTS[1]}).json()
        assert two["margin"] == pytest.approx(expected[0] - expected[1], abs=1e-5)
        assert two["probability"] == pytest.approx(model.compare(prompt, *TEXTS[:2]).probability, abs=1e-5)


def test_a_cut_response_says_so(client: httpx2.Client) -> None:
    answer = client.post("/v1/score", json={"prompt": "one", "responses": ["two", "two pears please " * 300]}).json()
    assert answer["truncated"] == [False, True] and answer["num_tokens"][1] == 512


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ('{"prompt": ', 400, "SERVICE_002", "JSON"),
        ("[]", 422, "SERVICE_002", "body"),
        ({"prompt": "a"}, 422, "SERVICE_002", "body.responses: Field required"),
        ({**ASK, "temperature": 1}, 422, "SERVICE_002", "body.temperature: Extra inputs"),
        ({**ASK, "responses": []}, 422, "SERVICE_002", "body.responses"),
        ({**ASK, "responses": ["a"] * (MAX_RESPONSES + 1)}, 422, "SERVICE_002", "body.responses"),
        ({**ASK, "responses": "a"}, 422, "SERVICE_002", "body.responses"),
        ({**ASK, "responses": [1]}, 422, "SERVICE_002", "body.responses.0"),
        ({**ASK, "prompt": [{"role": "tool", "content": "a"}]}, 422, "SERVICE_002", "body.prompt"),
        ({**ASK, "prompt": [{"role": "assistant", "content": "a"}]}, 422, "DATA_003", "does not end with a user's"),
        ({**ASK, "prompt": " "}, 422, "DATA_003", "does not end with a user's"),
        ('{"prompt": "\\ud800", "responses": ["a"]}', 422, "DATA_003", "half a surrogate pair"),
        ('{"prompt": "a", "responses": ["a"], "\\ud800": 1}', 422, "SERVICE_002", "body"),
        ({**ASK, "prompt": "two pears please " * 300}, 422, "MODEL_005", "leaves no room"),
    ],
)
def test_a_malformed_request_is_4xx_with_a_code(
    client: httpx2.Client, body: Any, status: int, code: str, says: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = client.post("/v1/score", content=content, headers={"content-type": "application/json"})
    assert fault(answer) == (status, code)
    assert says in answer.json()["error"]["what"]


def test_unknown_paths_and_methods_are_coded(client: httpx2.Client) -> None:
    assert fault(client.get("/v2/score")) == (404, "SERVICE_002")
    assert fault(client.get("/v1/score")) == (405, "SERVICE_002")


def test_the_service_describes_itself(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/score", "/v1/compare", "/v1/best-of", "/health", "/ready", "/metrics"} == set(paths)
    assert "/openapi.json" in client.get("/docs").text
    assert client.get("/health").json()["status"] == "alive"
    assert client.get("/ready").json() == {"status": "ready", "max_length": 512}


def test_a_body_that_is_too_large_is_413_before_it_is_read(model: RewardModel) -> None:
    with serving(model, Limits(max_body_bytes=1_000)) as client:
        assert client.post("/v1/score", json=ASK).status_code == 200
        large = json.dumps({**ASK, "responses": ["x" * 2_000_000]}).encode()
        headers = {"content-type": "application/json"}
        assert fault(client.post("/v1/score", content=large, headers=headers)) == (413, "SERVICE_003")
        pieces = (large[i : i + 500] for i in range(0, len(large), 500))  # no Content-Length
        assert fault(client.post("/v1/score", content=pieces, headers=headers)) == (413, "SERVICE_003")
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=60) as raw:
            raw.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            began = time.monotonic()
            assert b" 413 " in raw.recv(1_000) and time.monotonic() - began < 1
        assert client.post("/v1/score", json=ASK).status_code == 200


def test_a_token_is_asked_for_before_the_body_is_read(model: RewardModel, caplog: pytest.LogCaptureFixture) -> None:
    with serving(model, token=TOKEN) as client:
        for given in (None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x"):
            headers = {} if given is None else {"authorization": given}
            answer = client.post("/v1/score", content="{", headers=headers)
            assert fault(answer) == (401, "SERVICE_004") and answer.headers["www-authenticate"] == "Bearer"
            assert fault(client.get("/metrics", headers=headers)) == (401, "SERVICE_004")
        right = {"authorization": f"bearer {TOKEN}"}
        assert client.post("/v1/score", json=ASK, headers=right).status_code == 200
        page = client.get("/metrics", headers=right).text
        assert [client.get(path).status_code for path in ("/health", "/ready", "/docs", "/openapi.json")] == [200] * 4
    assert TOKEN not in page + caplog.text


def test_a_request_that_takes_too_long_is_504_and_leaves_the_line(held: HeldScorer) -> None:
    with serving(slow_model(held), Limits(timeout_seconds=0.3)) as client:
        assert fault(client.post("/v1/score", json=ASK)) == (504, "SERVICE_006")  # its forward pass is under way
        began = time.monotonic()
        assert fault(client.post("/v1/score", json=ASK)) == (504, "SERVICE_006")  # it waits for its turn
        assert time.monotonic() - began < 1
        held.free.set()
        assert client.post("/v1/score", json={**ASK, "responses": ["c"]}).status_code == 200
        assert [len(each) for each in held.passes] == [2, 1]


def test_a_body_that_comes_too_slowly_is_504(model: RewardModel) -> None:
    with serving(model, Limits(timeout_seconds=0.3)) as client:
        slow = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=60)
        slow.putrequest("POST", "/v1/score")
        slow.putheader("Content-Length", "100")
        slow.endheaders(b"{")
        assert slow.getresponse().status == 504
        slow.close()


def test_a_full_line_is_503_with_retry_after_and_not_ready(held: HeldScorer) -> None:
    with serving(slow_model(held), max_queue=2) as client:
        asking = [threading.Thread(target=client.post, args=("/v1/score",), kwargs={"json": ASK}) for _ in range(3)]
        asking[0].start()
        assert held.begun.acquire(timeout=60)
        for thread in asking[1:]:
            thread.start()
        until(lambda: metric(client, "rm_assets_queue_length") == 2)
        answer = client.post("/v1/score", json=ASK)
        assert fault(answer) == (503, "SERVICE_005") and answer.headers["retry-after"] == "1"
        assert fault(client.get("/ready")) == (503, "SERVICE_005")
        held.free.set()
        for thread in asking:
            thread.join(60)
        assert client.get("/ready").status_code == 200


def test_a_fault_of_the_service_itself_is_500_and_it_lives_on(held: HeldScorer) -> None:
    held.free.set()
    with serving(slow_model(held)) as client:
        answer = client.post("/v1/score", json={**ASK, "responses": ["poison"]})
        assert fault(answer) == (500, "SERVICE_007") and "memory" not in answer.text
        assert client.post("/v1/score", json=ASK).status_code == 200


def test_what_was_done_is_counted(model: RewardModel) -> None:
    with serving(model) as client:
        num_tokens = sum(client.post("/v1/score", json=ASK).json()["num_tokens"])
        client.post("/v1/score", content="{")
        client.get("/nowhere")
        counted = SimpleNamespace(
            fine=metric(client, 'rm_assets_requests_total{path="/v1/score",status="200"}'),
            malformed=metric(client, 'rm_assets_requests_total{path="/v1/score",status="422"}')
            + metric(client, 'rm_assets_requests_total{path="/v1/score",status="400"}'),
            other=metric(client, 'rm_assets_requests_total{path="other",status="404"}'),
            latencies=metric(client, 'rm_assets_request_seconds_count{path="/v1/score"}'),
            tokens=metric(client, "rm_assets_tokens_total"), passes=metric(client, "rm_assets_batch_requests_count"),
            responses=metric(client, "rm_assets_batch_responses_sum"),
        )  # fmt: skip
    assert vars(counted) == {
        "fine": 1, "malformed": 1, "other": 1, "latencies": 2, "tokens": num_tokens, "passes": 1, "responses": 2,
    }  # fmt: skip
