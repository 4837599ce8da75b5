"""The HTTP service under the same concurrent load with batching across requests on and off.

    python -m benchmarks.serving [ROUNDS]     one JSON line for each kind of load, into serving-results.jsonl

Both services run at once, each a process of its own with the same model and threads; one is asked while the other is idle, and
they take turns. A round is all requests of all clients, each client asking its next request when it has the answer to the
one before. The answers must be `RewardModel`'s, to 1e-5. The model has random weights, the texts random words.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from operator import truediv
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import torch

from benchmarks import checkpoints, results
from benchmarks.measure import median_ratio
from benchmarks.workloads import FIRST_WORD, VOCABULARY, Percentiles
from rm_assets.serving import RewardModel

RESULTS = Path(__file__).parent / "serving-results.jsonl"
NUM_CLIENTS, REQUESTS_OF_CLIENT, ROUNDS = 16, 4, 5
TOLERANCE = 1e-5
LOADS = {
    "own prompts": (Percentiles(30, 120), Percentiles(30, 400), NUM_CLIENTS * REQUESTS_OF_CLIENT),
    "shared prompts": (Percentiles(200, 500), Percentiles(20, 100), 4),
    "short texts": (Percentiles(5, 30), Percentiles(3, 30), NUM_CLIENTS * REQUESTS_OF_CLIENT),
}
"""Tokens of a prompt and of a response as 5th and 95th percentile of a log-normal, and how many prompts there are."""
Body = dict[str, Any]


def requests(load: str) -> list[Body]:
    """One to four responses each; always the same."""
    prompt_lengths, response_lengths, num_prompts = LOADS[load]
    rng = np.random.default_rng(0)

    def text(lengths: Percentiles) -> str:
        number = max(3, int(lengths.draw(rng.standard_normal(1))[0]))
        return checkpoints.words(rng.integers(FIRST_WORD, VOCABULARY, number).tolist())

    prompts = [text(prompt_lengths) for _ in range(num_prompts)]
    return [
        {
            "prompt": prompts[i % num_prompts],
            "responses": [text(response_lengths) for _ in range(rng.integers(1, 5))],
        }
        for i in range(NUM_CLIENTS * REQUESTS_OF_CLIENT)
    ]


class Service:
    """One running service, and what it took so far."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        self._clients = [
            stack.enter_context(httpx2.Client(base_url=address, timeout=600)) for _ in range(NUM_CLIENTS)
        ]  # fmt: skip
        self.seconds: list[float] = []
        self.latencies: list[float] = []

    def round(self, bodies: list[Body]) -> list[list[float]]:
        """All requests, each client a share of them; the rewards in the order of the requests."""

        def ask(client: int) -> list[tuple[float, list[float]]]:
            answers = []
            for body in bodies[client::NUM_CLIENTS]:
                began = time.perf_counter()
                answer = self._clients[client].post("/v1/score", json=body)
                answers.append((time.perf_counter() - began, answer.raise_for_status().json()["rewards"]))
            return answers

        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            began = time.perf_counter()
            found = list(pool.map(ask, range(NUM_CLIENTS)))
            self.seconds.append(time.perf_counter() - began)
        self.latencies += [seconds for of_client in found for seconds, _ in of_client]
        return [found[i % NUM_CLIENTS][i // NUM_CLIENTS][1] for i in range(len(bodies))]

    def requests_in_a_pass(self) -> float:
        """Mean number of requests in a forward pass since the service started."""
        lines = [line.split(" ") for line in self._clients[0].get("/metrics").text.splitlines()]
        counted = {line[0]: float(line[1]) for line in lines if line[0].startswith("rm_assets_batch_requests_")}
        return counted["rm_assets_batch_requests_sum"] / counted["rm_assets_batch_requests_count"]


@contextmanager
def running(model: Path, *options: str) -> Iterator[str]:
    """The address of a service."""
    command = [sys.executable, "-m", "rm_assets.cli.main", "serve", str(model), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [*command, "--timeout-seconds", "600", *options], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            address = server.stderr.readline().split(" at ")[1].split(",")[0]
            while True:
                try:
                    httpx2.get(f"{address}/ready").raise_for_status()
                    break
                except httpx2.HTTPError:
                    time.sleep(0.05)
            yield address
        finally:
            server.terminate()


def measure(load: str, model: Path, alone: RewardModel, rounds: int) -> dict[str, Any]:
    """One line of figures. Raises: ValueError where an answer is not the model's."""
    bodies = requests(load)
    expected = [alone.score(body["prompt"], body["responses"]) for body in bodies]
    difference = 0.0
    with ExitStack() as stack:
        on = Service(stack.enter_context(running(model)), stack)
        off = Service(stack.enter_context(running(model, "--no-batching")), stack)
        for number in range(rounds + 1):
            for service in (on, off) if number % 2 else (off, on):
                for rewards, wanted in zip(service.round(bodies), expected, strict=True):
                    apart = [abs(one - other) for one, other in zip(rewards, wanted, strict=True)]
                    difference = max(difference, *apart)
            if number == 0:  # to warm up
                on.seconds, on.latencies, off.seconds, off.latencies = [], [], [], []
        mean_requests = on.requests_in_a_pass()
    if not difference <= TOLERANCE:
        raise ValueError(f"{load}: a reward differs from RewardModel's by {difference:g}")
    return {
        "load": load, "ratio": median_ratio(off.seconds, on.seconds), "n": rounds, "num_requests": len(bodies),
        "num_clients": NUM_CLIENTS, "lowest_ratio": min(map(truediv, off.seconds, on.seconds)),
        "highest_ratio": max(map(truediv, off.seconds, on.seconds)), "requests_in_a_pass": mean_requests,
        **_figures("on", on, len(bodies)), **_figures("off", off, len(bodies)), "largest_difference": difference,
    }  # fmt: skip


def _figures(name: str, service: Service, num_requests: int) -> dict[str, float]:
    ordered = sorted(service.latencies)
    return {
        f"{name}_requests_per_second": num_requests / statistics.median(service.seconds),
        **{f"{name}_p{p}_ms": 1e3 * ordered[math.ceil(p / 100 * len(ordered)) - 1] for p in (50, 95, 99)},
    }


def main() -> None:
    """Measures every kind of load and replaces the file of results."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        model = checkpoints.save_classifier(checkpoints.SMALL, Path(folder))
        alone = RewardModel.load(model, device="cpu")
        for load in LOADS:
            line = measure(load, model, alone, rounds)
            lines.append(results.rounded({**line, "threads": torch.get_num_threads(), **results.circumstances()}))
            print(json.dumps(lines[-1]), flush=True)
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main()
