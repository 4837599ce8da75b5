"""`rm-assets serve` as a process of its own: load, signals, and what it refuses to start as."""

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rm_assets.core.errors import ServiceError
from rm_assets.serving import RewardModel
from rm_assets.serving.server import token_from
from rm_assets_tests.fakes import TEXTS, save_classifier

COMMAND = [sys.executable, "-m", "rm_assets.cli.main", "serve"]


class Served:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address


@contextmanager
def served(model: Path, *options: str) -> Iterator[Served]:
    """The service at a free port, once it is ready; ended at the end of the block."""
    command = [*COMMAND, str(model), "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            address = line.split(" at ")[1].split(",")[0]
            for _ in range(500):
                try:
                    httpx2.get(f"{address}/ready", timeout=10).raise_for_status()
                    break
                except httpx2.HTTPError:
                    time.sleep(0.02)
            yield Served(process, address)
        finally:
            process.kill()


def work(number: int) -> list[dict[str, Any]]:
    """Requests of one to four responses of varied length; every third prompt is one that others ask about, too."""
    rng = random.Random(number)
    return [
        {
            "prompt": TEXTS[i % 2] if i % 3 == 0 else f"{rng.choice(TEXTS)} {number} {i}",
            "responses": [" ".join(rng.choices(TEXTS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))],
        }
        for i in range(12)
    ]


def answers(address: str, number: int) -> list[list[float]]:
    with httpx2.Client(base_url=address, timeout=60) as client:
        return [client.post("/v1/score", json=body).json()["rewards"] for body in work(number)]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--no-batching"],
        pytest.param(["--max-batch-tokens", "300", "--batch-wait-ms", "2"], marks=pytest.mark.slow),
    ],
)
def test_scores_under_load_are_those_of_the_model_alone(
    checkpoint: Path, model: RewardModel, options: list[str]
) -> None:
    with served(checkpoint, *options) as service, ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda number: answers(service.address, number), range(16)))
        pages = httpx2.get(f"{service.address}/metrics").text.splitlines()
    for number, of_client in enumerate(found):
        for body, rewards in zip(work(number), of_client, strict=True):
            assert rewards == pytest.approx(model.score(body["prompt"], body["responses"]), abs=1e-5)
    counted = {line.split(" ")[0]: float(line.split(" ")[1]) for line in pages if not line.startswith("#")}
    assert counted["rm_assets_batch_requests_sum"] >= 16 * 12
    together = counted["rm_assets_batch_requests_sum"] / counted["rm_assets_batch_requests_count"]
    assert (together <= 1.0) if options == ["--no-batching"] else (together > 1.2)


def test_sigterm_answers_all_that_was_accepted_and_exits_0(tmp_path: Path) -> None:
    slow = save_classifier(tmp_path, hidden_size=128, intermediate_size=256, num_hidden_layers=8)
    alone = RewardModel.load(slow, device="cpu")
    bodies = [{"prompt": f"{text} {i}", "responses": [f"{text} " * 20] * 2} for i in range(9) for text in TEXTS][:50]
    at_once = httpx2.Limits(max_connections=None)
    with (
        served(slow, "--no-batching") as service,
        httpx2.Client(limits=at_once, timeout=60) as client,
        ThreadPoolExecutor(50) as clients,
    ):
        address = service.address
        asked = [clients.submit(client.post, f"{address}/v1/score", json=body) for body in bodies]
        in_flight = 0
        while in_flight < 50:  # all accepted, and most of them not computed yet
            page = client.get(f"{address}/metrics").text
            lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
            done = float(lines.get('rm_assets_requests_total{path="/v1/score",status="200"}', 0))
            in_flight = int(done + float(lines["rm_assets_requests_in_flight"]) - 1)  # this one is in flight, too
            waiting = float(lines["rm_assets_queue_length"])
        assert waiting > 10, "the test wants a line that is long when the signal comes"
        service.process.send_signal(signal.SIGTERM)
        found = [each.result(60) for each in asked]
        assert service.process.wait(30) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{address}/health")
    assert [answer.status_code for answer in found] == [200] * 50
    for body, answer in zip(bodies, found, strict=True):
        expected = alone.score(body["prompt"], body["responses"])
        assert answer.json()["rewards"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_drain_ends_with_the_time_limit_even_where_a_client_never_finishes(checkpoint: Path) -> None:
    with served(checkpoint, "--timeout-seconds", "1") as service:
        host, port = service.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(30) == 0 and time.monotonic() - began < 15


def test_the_token_comes_from_the_environment_and_is_not_printed(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "very-secret")
    with served(checkpoint, "--token-env", "MY_TOKEN") as service:
        body = {"prompt": "a", "responses": ["b"]}
        given = {"authorization": "Bearer very-secret"}
        assert httpx2.post(f"{service.address}/v1/score", json=body).status_code == 401
        assert httpx2.post(f"{service.address}/v1/score", json=body, headers=given).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stderr is not None and "very-secret" not in service.process.stderr.read()


@pytest.mark.parametrize(
    ("variable", "host", "says"),
    [
        (None, "0.0.0.0", "others can reach 0.0.0.0, and there is no token"),
        (None, "::", "others can reach ::, and there is no token"),
        (None, "example.org", "others can reach example.org, and there is no token"),
        ("NOT_SET_ANYWHERE", "127.0.0.1", "NOT_SET_ANYWHERE holds no token"),
        ("EMPTY_TOKEN", "0.0.0.0", "EMPTY_TOKEN holds no token"),
    ],
)
def test_it_refuses_to_start_without_the_token_it_needs(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, host: str, says: str
) -> None:
    monkeypatch.setenv("EMPTY_TOKEN", " ")
    with pytest.raises(ServiceError, match=says) as caught:
        token_from(variable, host, without_token=False)
    assert caught.value.code == "SERVICE_001"


def test_no_token_is_needed_on_loopback_or_where_it_is_waived(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [token_from(None, host, without_token=False) for host in ("127.0.0.1", "localhost", "::1")] == [None] * 3
    assert token_from(None, "0.0.0.0", without_token=True) is None
    monkeypatch.setenv("MY_TOKEN", "very-secret\n")
    assert token_from("MY_TOKEN", "0.0.0.0", without_token=False) == "very-secret"


def test_a_port_that_is_taken_is_one_sentence(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [*COMMAND, str(checkpoint), "--port", str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "[SERVICE_001] cannot listen at 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
