"""The HTTP client against a real server: order, concurrency, what is tried again and what is not, and the key's secrecy."""

import email.utils
import socket
import threading
import time
from typing import Any

import pytest

from rm_assets.backends.openai.client import Call, Json, ServerClient, key_from_environment, wait_seconds
from rm_assets.core.errors import ServerError
from rm_assets_tests.fake_server import FakeServer, Reply, serving

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)


def client(base_url: str, **changes: Any) -> ServerClient:
    settings: dict[str, Any] = {
        "api_key_env": None, "concurrency": 4, "timeout_seconds": 5, "retries": 2, "first_wait_seconds": 0.001,
    }  # fmt: skip
    return ServerClient(base_url, **{**settings, **changes})


def post(base_url: str, num_calls: int = 1, **changes: Any) -> list[Json]:
    calls = [Call(f"call {n}", {"n": n}) for n in range(num_calls)]
    return client(base_url, **changes).post_all("/echo", calls, lambda _, answer: answer)


def refused(base_url: str, num_calls: int = 1, **changes: Any) -> ServerError:
    with pytest.raises(ServerError) as caught:
        post(base_url, num_calls, **changes)
    return caught.value


def first_then_fine(server: FakeServer, reply: Reply) -> None:
    """The first request gets `reply`, every later one its own body."""
    server.answer = lambda body: reply if len(server.posts) == 1 else Reply(body)


def test_answers_come_in_the_order_of_the_calls_and_are_used_as_they_arrive(server: FakeServer) -> None:
    def later_calls_are_faster(body: Json) -> Reply:
        time.sleep(0.05 * (3 - body["n"]))
        return Reply(body)

    server.answer = later_calls_are_faster
    used: list[int] = []

    def use(position: int, answer: Json) -> Json:
        used.append(position)
        return answer

    calls = [Call(f"call {n}", {"n": n}) for n in range(4)]
    assert client(server.base_url).post_all("/echo", calls, use) == [{"n": n} for n in range(4)]
    assert used == [3, 2, 1, 0]
    assert server.paths == ["POST /v1/echo"] * 4


def test_as_many_requests_as_allowed_are_under_way_and_never_more(server: FakeServer) -> None:
    meeting = threading.Barrier(4)

    def only_together(body: Json) -> Reply:
        try:
            meeting.wait(timeout=2)
        except threading.BrokenBarrierError:
            return Reply("fewer than four came at a time", status=400)
        time.sleep(0.02)  # a fifth would be seen in this time
        return Reply(body)

    server.answer = only_together
    assert len(post(server.base_url, 12, concurrency=4)) == 12
    assert server.most_in_flight == 4


def test_a_status_that_says_not_now_is_tried_again(server: FakeServer) -> None:
    statuses = [408, 409, 425, 429, 500, 502, 503, 504]

    def once_refused(body: Json) -> Reply:
        return Reply("wait", status=statuses[body["n"]]) if server.posts.count(body) == 1 else Reply(body)

    server.answer = once_refused
    assert post(server.base_url, len(statuses)) == [{"n": n} for n in range(len(statuses))]
    assert len(server.posts) == 2 * len(statuses)


def test_a_dropped_connection_is_tried_again(server: FakeServer) -> None:
    first_then_fine(server, Reply("", drop=True))
    assert post(server.base_url) == [{"n": 0}]
    assert len(server.posts) == 2


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_is_not_tried_again_and_quotes_the_server(server: FakeServer, status: int) -> None:
    server.answer = lambda _: Reply({"error": {"message": "maximum context length is 4096"}}, status=status)
    error = refused(server.base_url)
    assert error.code == ("SERVER_003" if status == 404 else "SERVER_004")
    assert "call 0" in error.what and "maximum context length is 4096" in error.why and str(status) in error.why
    assert len(server.posts) == 1


def test_retry_after_is_honoured_in_seconds_and_as_a_date(server: FakeServer) -> None:
    came: dict[int, list[float]] = {0: [], 1: []}

    def busy_at_first(body: Json) -> Reply:
        came[body["n"]].append(time.monotonic())
        until = {0: "1", 1: email.utils.formatdate(time.time() + 2, usegmt=True)}[body["n"]]
        return Reply(body) if len(came[body["n"]]) == 2 else Reply("busy", status=429, headers={"Retry-After": until})

    server.answer = busy_at_first
    assert post(server.base_url, 2) == [{"n": 0}, {"n": 1}]
    assert all(0.95 <= again - first < 2.5 for first, again in came.values())  # a date has whole seconds


def test_a_wait_of_an_hour_is_told_and_not_waited(server: FakeServer) -> None:
    server.answer = lambda _: Reply("quota", status=429, headers={"Retry-After": "3600"})
    error = refused(server.base_url)
    assert error.code == "SERVER_001" and "asks to wait 3600 s" in error.why and len(server.posts) == 1


@pytest.mark.parametrize(
    ("status", "said"), [(429, {"error": {"code": "insufficient_quota"}}), (402, {"error": "top up your account"})]
)
def test_a_quota_that_is_used_up_is_told_at_once(server: FakeServer, status: int, said: Any) -> None:
    server.answer = lambda _: Reply(said, status=status)
    error = refused(server.base_url)
    assert error.code == "SERVER_006" and str(status) in error.why and len(server.posts) == 1


def test_an_answer_that_does_not_come_in_time_is_asked_for_again_and_then_an_error(server: FakeServer) -> None:
    released = threading.Event()
    server.answer = lambda body: Reply(body) if released.wait(5) else Reply("late")
    started = time.monotonic()
    error = refused(server.base_url, timeout_seconds=0.1, retries=1)
    released.set()
    assert time.monotonic() - started < 2
    assert error.code == "SERVER_001" and "no answer within 0.1 s" in error.why and "tried 2 times" in error.what
    assert "server_timeout_seconds" in error.fix and len(server.posts) == 2


def test_the_first_failure_breaks_off_what_is_under_way_and_starts_nothing_more(server: FakeServer) -> None:
    released = threading.Event()

    def third_fails(body: Json) -> Reply:
        if body["n"] == 2:
            return Reply("bad prompt", status=400)
        released.wait(10)
        return Reply(body)

    server.answer = third_fails
    started = time.monotonic()
    error = refused(server.base_url, 20)
    released.set()
    assert "call 2" in error.what and time.monotonic() - started < 2
    assert len(server.posts) <= 5


def test_a_failure_of_the_caller_also_ends_the_work(server: FakeServer) -> None:
    def use(position: int, answer: Json) -> None:
        raise ZeroDivisionError

    server.answer = Reply
    with pytest.raises(ZeroDivisionError):
        client(server.base_url).post_all("/echo", [Call("a", {})] * 20, use)
    assert len(server.posts) < 20


def test_a_server_that_is_not_there_is_named(server: FakeServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(ServerError) as caught:
            client(address).get("/models")
    assert caught.value.code == "SERVER_001" and address in caught.value.what and "ConnectError" in caught.value.why


@pytest.mark.parametrize("body", ['{"choices": [{"mess', '{"a": ' + "[" * 100_000, "[1]", ""], ids=["cut", "deep", "list", "empty"])  # fmt: skip
def test_an_answer_that_is_no_json_object_is_asked_for_again_and_then_quoted(server: FakeServer, body: str) -> None:
    first_then_fine(server, Reply(body))
    assert post(server.base_url) == [{"n": 0}] and len(server.posts) == 2
    server.posts, server.answer = [], lambda _: Reply(body)
    error = refused(server.base_url)
    assert error.code == "SERVER_005" and body[:20] in error.what
    assert "tried 3 times" in error.why and len(server.posts) == 3


def test_the_key_is_sent_and_a_refused_key_appears_in_no_message(server: FakeServer) -> None:
    server.key, server.answer = KEY, Reply
    assert post(server.base_url, api_key_env="MY_KEY") == [{"n": 0}]
    server.key = "another"
    error = refused(server.base_url, api_key_env="MY_KEY")  # the server's words repeat the key
    assert error.code == "SERVER_002" and "401" in error.why and "no such key" in error.why
    assert KEY not in str(error) and error.__cause__ is None
    assert len(server.posts) == 1
    assert "without an API key" in refused(server.base_url).what


def test_the_key_is_read_with_the_first_request(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY")
    asked = client(server.base_url, api_key_env="MY_KEY")
    with pytest.raises(ServerError, match="MY_KEY is not set"):
        asked.get("/models")
    assert server.paths == []
    monkeypatch.setenv("MY_KEY", KEY)
    asked.get("/models")
    assert server.authorizations == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("key", "kept"), [(KEY, "it is (the API key), (the API key)"), ("EMPTY", "it is EMPTY, EMPTY")]
)
def test_a_key_that_the_server_echoes_is_in_no_text_that_is_kept(
    key: str, kept: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    asked = client(server.base_url, api_key_env="MY_KEY")
    assert asked.without_secret(f"it is {key}, {key}") == kept


@pytest.mark.parametrize("status", [400, 413, 422, 402, 403, 404, 307])
def test_a_call_is_refused_alone_only_by_a_status_about_it(status: int, server: FakeServer) -> None:
    server.answer = lambda body: Reply("no", status=status) if body["n"] == 1 else Reply(body)
    calls = [Call(f"call {n}", {"n": n}) for n in range(3)]

    def ask() -> list[Json]:
        return client(server.base_url).post_all(
            "/echo", calls, lambda _, answer: answer, lambda place, error: {"refused": f"{error.code} {place}"}
        )

    if status in (400, 413, 422):
        assert ask() == [{"n": 0}, {"refused": "SERVER_004 1"}, {"n": 2}]
    else:
        with pytest.raises(ServerError, match=str(status)):
            ask()


def test_a_redirect_is_not_followed(server: FakeServer) -> None:
    with serving() as elsewhere:
        server.answer = lambda _: Reply("", status=307, headers={"Location": f"{elsewhere.base_url}/echo"})
        error = refused(server.base_url, api_key_env="MY_KEY")
        assert error.code == "SERVER_004" and elsewhere.base_url in error.fix
        assert elsewhere.paths == []


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        server.answer = Reply
        assert post(server.base_url, api_key_env="MY_KEY") == [{"n": 0}]
        assert proxy.paths == []


def test_waits_double_differ_between_calls_and_repeat_between_runs() -> None:
    waits = [wait_seconds("call 0", attempt, 0.5) for attempt in range(12)]
    assert waits == [wait_seconds("call 0", attempt, 0.5) for attempt in range(12)]
    assert all(0.25 * 2**n <= wait < 0.75 * 2**n for n, wait in enumerate(waits[:6]))
    assert all(15 <= wait < 45 for wait in waits[6:])
    assert len({wait_seconds(f"call {n}", 0, 0.5) for n in range(10)}) == 10


@pytest.mark.parametrize(("value", "words"), [(None, "is not set"), (" ", "is not set"), ("a\u00e9", "no usable"), ("sk-1\r\nX: y", "no usable")])  # fmt: skip
def test_a_key_that_is_missing_or_fits_no_header_is_refused_unseen(
    value: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ServerError) as caught:
        key_from_environment("MY_KEY")
    assert caught.value.code == "SERVER_002" and f"MY_KEY {words}" in caught.value.what.replace("holds ", "")
    assert value is None or value == " " or value not in str(caught.value)


def test_the_key_is_read_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    assert key_from_environment("MY_KEY") == KEY
    assert key_from_environment(None) is None
