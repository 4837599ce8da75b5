"""What every executor must do, claim by claim, with real tasks; conftest.py names the executors.

Where a test gives `code`, the task `ingest` runs it before its work (planted/ingest.py).
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from rm_assets.cli.monitor import select
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.recipe import Recipe
from rm_assets.resources import compute
from rm_assets.resources.compute import Compute, Made
from rm_assets.storage import requests
from rm_assets.storage.home import home_of
from rm_assets.storage.metrics_log import METRICS_LOG, read_run
from rm_assets.storage.store import Store
from rm_assets_tests.executors.conftest import REPOSITORY, Place
from rm_assets_tests.processes import is_alive, wait_for
from rm_assets_tests.tasks.conftest import TOY, Bench

BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path({folder!r})
def note(name, text="there"):
    (folder / "half").write_text(str(text))
    (folder / "half").rename(folder / name)
def wait_until(name):
    for _ in range(1200):
        if (folder / name).exists():
            return
        time.sleep(0.05)
    os._exit(9)
def start_grandchild():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid
"""
DRIVER = """
import sys
from pathlib import Path
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.resources.compute import Compute
recipe = RecipeBook(Path(sys.argv[1]), {}).load("toy")
Compute(home=sys.argv[2]).make_asset(recipe, "prompts", say=print, debug=print)
"""


class Driver:
    """Who asks for assets: a folder with sources, and a store at a URL that the executor reaches, too."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder, self.bench = place, folder, Bench(folder)
        self.bench.write_toy()
        self.url = (folder / "bucket").as_uri()
        self.said: list[str] = []

    def recipe(self, code: str = "", **execution: object) -> Recipe:
        """TOY, where `execution` says nothing else by the place's executor."""
        description = BEGIN.format(folder=str(self.folder)) + code if code else ""
        return self.bench.recipe(
            description=description, execution={**TOY["execution"], "executor": self.place.section} | execution
        )

    def make(
        self, code: str = "", asset: str = "prompts", *, home: str = "", watch: Callable[[], None] = lambda: None,
        **execution: object,
    ) -> Made:  # fmt: skip
        """Makes an asset; what is said while it is made goes to `said`."""
        return Compute(home=home or self.url).make_asset(
            self.recipe(code, **execution), asset, say=self.said.append, debug=self.said.append, watch=watch
        )

    def refusal(self, code: str = "", **options: object) -> RmAssetsError:
        """Why nothing was made."""
        with pytest.raises(RmAssetsError) as caught:
            self.make(code, **options)  # type: ignore[arg-type]
        assert not list((self.folder / "bucket").glob("manifests/prompts/*"))
        return caught.value

    def noted(self, name: str) -> str:
        """What the task has noted, waiting for it."""
        wait_for((self.folder / name).exists, 60, name)
        return (self.folder / name).read_text()

    def note(self, name: str) -> None:
        """What the task waits for."""
        (self.folder / name).touch()

    def pids(self) -> list[int]:
        """The task's process and its child's."""
        return [int(pid) for pid in self.noted("pids").split()]


@pytest.fixture
def driver(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setenv("RM_ASSETS_CACHE", str(tmp_path / "cache_here"))
    monkeypatch.setenv("RM_ASSETS_SECRET", f"secret-{uuid.uuid4().hex}")
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return Driver(place, tmp_path)


WORK_FOR_LONG = "note('pids', f'{os.getpid()} {start_grandchild()}')\ntime.sleep(300)\n"


def wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid), 30, f"the end of process {pid}")  # type: ignore[misc]


def test_log_lines_and_metrics_arrive_while_the_task_works(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "SECONDS_BETWEEN_PROGRESS", 0.0)
    code = (
        "print('plain words', flush=True)\ntask.reporter.log('first log line')\nwait_until('heard log')\n"
        "task.reporter.training_begins(9, 'its device')\n"
        "task.reporter.metrics(7, {'loss': 0.25})\nwait_until('heard metrics')\n"
    )
    states: list[str] = []

    def watch() -> None:
        if "prompts: first log line" in driver.said:
            driver.note("heard log")
        if "prompts: step 7: loss 0.25" in driver.said:
            states.extend(state for _, state in select(Store(home_of(driver.url)), []))
            driver.note("heard metrics")

    made = driver.make(code, watch=watch)  # the task goes on only after it was heard
    assert made.manifest.counts["prompts"] == 12 and not made.was_there
    assert "prompts: plain words" in driver.said
    run = read_run(made.folder / METRICS_LOG)
    assert run and (run.device, run.num_steps, [(s["step"], s["loss"]) for s in run.steps]) == (
        "its device",
        9,
        [(7, 0.25)],
    )
    assert run.end and run.end["status"] == "finished" and set(states) == {"running"}


def test_results_go_through_the_store_and_are_made_once(driver: Driver) -> None:
    driver.make(executor={"kind": "local"})  # the place finds it by the store alone
    made, again = driver.make(asset="sampled_responses"), driver.make(asset="sampled_responses")
    assert not made.was_there and again.was_there
    assert made.folder.is_relative_to(driver.folder / "cache_here") and len(driver.bench.rows(made)) == 24
    assert made.manifest.made["executor"] == driver.place.section["kind"]  # by which its price is found
    assert len([line for line in driver.said if ": task " in line]) == 2
    assert len(list((driver.folder / "bucket").glob("manifests/*/*.json"))) == 2


def test_no_manifest_is_no_success(driver: Driver) -> None:
    assert driver.refusal("os._exit(0)\n").code == "TASK_002"


def test_an_exception_is_said_with_the_last_words(driver: Driver) -> None:
    error = driver.refusal("raise ValueError('these are the last words')\n")
    assert error.code == "TASK_002" and "ValueError: these are the last words" in error.why


def test_an_error_of_ours_arrives_as_it_is(driver: Driver) -> None:
    code = "from rm_assets.core.errors import DataError\nraise DataError('DATA_001', 'what', why='why', fix='fix')\n"
    error = driver.refusal(code)
    assert (type(error).__name__, error.to_dict()) == (
        "DataError", {"code": "DATA_001", "what": "what", "why": "why", "fix": "fix"},
    )  # fmt: skip


def test_a_killed_task_is_said_to_be_killed(driver: Driver) -> None:
    error = driver.refusal("os.kill(os.getpid(), signal.SIGKILL)\n")
    assert error.code == "TASK_001" and "SIGKILL" in error.what


def test_a_task_that_works_too_long_ends_with_its_children(driver: Driver) -> None:
    error = driver.refusal(WORK_FOR_LONG, timeout_seconds=6)
    assert error.code == "TASK_003"
    wait_until_gone(driver.pids())


def test_an_interrupted_driver_ends_the_task_and_its_children(driver: Driver) -> None:
    def interrupt() -> None:
        driver.pids()
        time.sleep(0.2)  # so that it waits for the task's next words
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)

    main, interrupting = threading.current_thread(), threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        driver.make(WORK_FOR_LONG)
    interrupting.join()
    wait_until_gone(driver.pids())
    assert not driver.make().was_there  # and nothing of it is in the way


def test_a_secret_reaches_the_task_and_stands_nowhere(driver: Driver) -> None:
    if not driver.place.takes_secrets:
        pytest.skip("this executor has no way for secrets, as its documentation says")
    secret, shown = os.environ["RM_ASSETS_SECRET"], list[Path]()
    code = (
        "import hashlib\nnote('hash', hashlib.sha256(os.environ['RM_ASSETS_SECRET'].encode()).hexdigest())\n"
        "task.reporter.log('working')\nwait_until('command lines are read')\n"
    )

    def watch() -> None:
        if not (driver.folder / "command lines are read").exists():
            shown.extend(file for file in Path("/proc").glob("[0-9]*/cmdline") if secret in text_of(file))
            driver.note("command lines are read")

    made = driver.make(code, watch=watch)
    assert driver.noted("hash") == hashlib.sha256(secret.encode()).hexdigest()
    assert shown == [] and secret not in "\n".join(driver.said) and made.manifest.files
    for folder in (driver.folder, *driver.place.traces):
        assert [file for file in folder.rglob("*") if secret in text_of(file)] == []


def text_of(file: Path) -> str:
    """What a file holds; nothing if it is none, or gone."""
    try:
        return file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def test_a_killed_driver_leaves_no_work_that_is_lost_or_done_twice(driver: Driver) -> None:
    code = (
        "with open(folder / 'starts', 'a') as starts:\n    print(os.getpid(), file=starts)\n"
        "note('pids', f'{os.getpid()} {start_grandchild()}')\nwait_until('go')\n"
    )
    driver.recipe(code)
    command = [sys.executable, "-c", DRIVER, str(driver.folder / "recipes"), driver.url]
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(REPOSITORY)])
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path}) as killed:
        pids = driver.pids()
        killed.kill()
    if driver.place.joins:
        threading.Timer(3, driver.note, ["go"]).start()
    else:
        wait_until_gone(pids)
        driver.note("go")
    driver.make(code)
    assert len((driver.folder / "starts").read_text().split()) == (1 if driver.place.joins else 2)
    wait_until_gone(pids)


def test_a_store_in_a_folder_is_refused(driver: Driver) -> None:
    if driver.place.is_remote:
        error = driver.refusal(home=str(driver.folder / "home"))
        assert error.code == "EXECUTOR_001" and str(driver.folder / "home") in error.what


def test_another_version_is_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if driver.place.is_remote:
        monkeypatch.setattr(requests, "version", lambda package: "0.0.1")
        error = driver.refusal()
        assert error.code == "EXECUTOR_003" and "0.0.1" in error.what
