"""`python -m rm_assets_tests.backends.ray.planted_workers CASE FOLDER`: a pool of workers that do what the case says, as a driver would use it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rm_assets.backends.ray import pool as pool_module
from rm_assets.backends.ray.pool import WorkerPool
from rm_assets.core.errors import ModelError, RmAssetsError
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import RayExecutor

NUM_PIECES = 40


class Doubler:
    """A model that doubles numbers."""

    num_tokens_forwarded = 0

    def __init__(self, kind: str = "cpu") -> None:
        self.identity: Mapping[str, str] = {"device": kind}


class Saying(QuietReporter):
    """Says what the pool logs."""

    def log(self, message: str) -> None:
        print(message, flush=True)


def load(case: str, folder: Path) -> Doubler:
    if case == "broken":
        raise ModelError("MODEL_006", "the weights are not finite")
    if case == "unlike":
        try:
            (folder / "first").mkdir()
        except FileExistsError:
            (folder / "second").touch()
            return Doubler("cuda")
    return Doubler()


def double(case: str, folder: Path, model: Doubler, number: int) -> int:
    if case == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    awaited = {"joining": "joined", "unlike": "second"}.get(case)
    while awaited and number > 2 and not (folder / awaited).exists():
        time.sleep(0.1)
    time.sleep(0.1)
    model.num_tokens_forwarded += 1
    return 2 * number


def device() -> str:
    return "toy"


def main(case: str, folder: Path) -> None:
    pool_module.SECONDS_TO_BEGIN = 1.0 if case == "no room" else 60.0
    executor = RayExecutor(
        kind="ray", address="http://unused", workers=3 if case == "joining" else 2,
        resources={"of no node": 1} if case == "no room" else {},
    )  # fmt: skip
    asked = list[int]()

    def numbers(ask: Callable[[int], None] = asked.append):  # type: ignore[no-untyped-def]
        for number in range(NUM_PIECES):
            ask(number)
            yield number

    try:
        worked_on = dict[str, Any]()
        with WorkerPool(
            executor, partial(load, case, folder), partial(double, case, folder), device, num_threads=1, reporter=Saying(),
            worked_on=worked_on,
        ) as pool:  # fmt: skip
            print("identity", dict(pool.identity), flush=True)
            print("done", sorted(pool.each(numbers())), pool.num_tokens_forwarded, asked == list(range(NUM_PIECES)))
        print("worked on", worked_on)
    except RmAssetsError as error:
        print("refused", error.code, type(error).__name__)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
