"""Webserver and daemon as `make ui` starts them: what happens by itself, and what a person does in a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.core.stages import STAGES
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import TOY, Bench, files

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IGNORED = {"severity": "ignore"}
PASSES = {
    "match_rate_is_high": IGNORED, "length_is_not_the_reason": IGNORED, "confidence_is_calibrated": IGNORED,
}  # fmt: skip

pytestmark = pytest.mark.slow


@dataclass
class House:
    """A webserver and a daemon over a few small recipes, and their instance."""

    bench: Bench
    address: str
    instance: dg.DagsterInstance

    def drop(self, name: str, lines: slice) -> float:
        """A file of prompts for the recipe `automatic`; the time at which it is there."""
        rows = (self.bench.folder / "recipes" / "prompts.jsonl").read_text("utf-8").splitlines(keepends=True)
        self.bench.write(f"dropped/{name}", "".join(rows[lines]))
        return time.time()

    def runs(self, recipe: str) -> list[dg.RunRecord]:
        """The runs of a recipe, the newest first."""
        return list(self.instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": recipe})))

    def ended(self, recipe: str, number: int = 1) -> dg.RunRecord:
        """The newest of `number` runs of a recipe, when it has ended."""
        wait_for(
            lambda: len(self.runs(recipe)) >= number and self.runs(recipe)[0].end_time, f"run {number} of {recipe}"
        )
        return self.runs(recipe)[0]


def wait_for(holds: Callable[[], Any], what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    bench = Bench(tmp_path_factory.mktemp("house"))
    bench.write_toy(num_train=12)
    save_causal(bench.folder / "recipes" / "base")
    (bench.folder / "recipes" / "dropped").mkdir()
    dropped = {**TOY["prompts"], "source": files("dropped/*.jsonl")}
    bench.recipe("automatic", prompts=dropped, gate=PASSES, automation={"rebuild": "auto"})
    bench.recipe("proposed", gate=PASSES, pairs={"min_margin": 0.4})
    for number in (1, 2):
        bench.recipe(f"trio-{number}", gate=PASSES, pairs={"min_margin": 0.1 * number}, automation={"rebuild": "off"})
    bench.recipe("trio-refused", automation={"rebuild": "off"})
    home = bench.folder / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "RM_ASSETS_HOME": str(bench.home),
        "RM_ASSETS_RECIPES": str(bench.folder / "recipes"),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "dagster", "dev", "--workspace", "workspace.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with open(bench.folder / "output.txt", "wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=2).close()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return True

    try:
        wait_for(answers, "the webserver")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield House(bench, address, instance)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_a_dropped_file_of_prompts_ends_in_a_release(house: House) -> None:
    house.drop("first.jsonl", slice(8))
    assert house.ended("automatic").dagster_run.status == dg.DagsterRunStatus.SUCCESS
    dropped = house.drop("second.jsonl", slice(8, None))
    run = house.ended("automatic", 2)
    assert run.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    assert run.create_timestamp.timestamp() - dropped < 60
    made = [
        json.loads(file.read_text("utf-8"))
        for file in house.bench.home.glob("*/*/manifest.json")
        if file.stat().st_mtime > dropped
    ]
    assert sorted(manifest["asset"] for manifest in made) == sorted(STAGES)  # down to the release
    assert run.start_time is not None and run.end_time is not None
    in_tasks = sum(manifest["made"]["seconds"] for manifest in made)
    assert run.end_time - run.start_time - in_tasks < 10 * len(STAGES)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)")
def test_a_person_backfills_reads_a_refusal_and_accepts_a_proposal(house: House, tmp_path: Path) -> None:
    from playwright.sync_api import Page, sync_playwright

    def launch(page: Page, partitions: str, button: str) -> None:
        page.goto(f"{house.address}/locations/rm_assets/jobs/build_reward_model")
        page.get_by_role("button", name="Materialize all").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Select a partition").click()
        page.get_by_placeholder("Filter partitions").fill(partitions)
        page.get_by_text("Select all").click()
        page.keyboard.press("Escape")
        page.screenshot(path=tmp_path / f"dialog-{partitions}.png")
        dialog.get_by_role("button", name=button).click()
        dialog.wait_for(state="detached")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(f"{house.address}/asset-groups")
        for name in ("hub_release", "recipe_training"):
            page.get_by_text(name).first.wait_for()
        page.screenshot(path=tmp_path / "lineage.png")

        launch(page, "trio", "Launch backfill")
        statuses = [house.ended(f"trio-{which}").dagster_run.status.value for which in ("1", "2", "refused")]
        assert statuses == ["SUCCESS", "SUCCESS", "FAILURE"]
        page.goto(f"{house.address}/assets/evaluation_report?view=checks&checkDetail=match_rate_is_high")
        page.get_by_text("match rate").first.wait_for()
        page.screenshot(path=tmp_path / "refused.png")

        page.goto(f"{house.address}/assets/prompts?view=events&partition=proposed")
        page.get_by_text("out of date: prompts has not been made").first.wait_for()
        page.screenshot(path=tmp_path / "proposal.png")
        launch(page, "proposed", "Launch")
        assert house.ended("proposed").dagster_run.status == dg.DagsterRunStatus.SUCCESS
        page.goto(f"{house.address}/assets/hub_release?view=partitions&partition=proposed")
        page.get_by_text("Materialized").first.wait_for()
        page.screenshot(path=tmp_path / "accepted.png")
        browser.close()
