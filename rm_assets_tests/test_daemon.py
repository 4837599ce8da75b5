"""Webserver and daemon as `make ui` starts them: what happens by itself, and what a person does in a real browser."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.core.stages import STAGES
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.processes import wait_for
from rm_assets_tests.tasks.conftest import TOY, Bench, files
from rm_assets_tests.web_ui import browser_page, instance_folder, needs_chromium, web_ui

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

    def ended(self, recipe: str, number: int = 1) -> dg.RunRecord:
        """The newest of `number` runs of a recipe, when it has ended."""

        def newest() -> dg.RunRecord | None:
            runs = self.instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": recipe}))
            return runs[0] if len(runs) >= number and runs[0].end_time else None

        run: dg.RunRecord = wait_for(newest, 240, f"run {number} of {recipe}")
        return run


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
    home = instance_folder(bench.folder)
    with web_ui(bench.folder, "dagster", "dev") as address, dg.DagsterInstance.from_config(str(home)) as instance:
        yield House(bench, address, instance)


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


@needs_chromium
def test_a_person_backfills_reads_a_refusal_and_accepts_a_proposal(house: House, tmp_path: Path) -> None:
    def launch(page: Any, partitions: str, button: str) -> None:
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

    with browser_page() as page:
        page.goto(f"{house.address}/asset-groups")
        for name in ("hub_release", "recipe_training"):
            page.get_by_text(name).first.wait_for()
        page.screenshot(path=tmp_path / "lineage.png")

        launch(page, "trio", "Launch backfill")
        statuses = [house.ended(f"trio-{which}").dagster_run.status.value for which in ("1", "2", "refused")]
        assert statuses == ["SUCCESS", "SUCCESS", "FAILURE"]
        page.goto(f"{house.address}/assets/evaluation_report?view=checks&checkDetail=length_is_not_the_reason")
        page.get_by_text("it cannot be told whether the model goes by length").first.wait_for()
        page.screenshot(path=tmp_path / "refused.png")

        page.goto(f"{house.address}/assets/prompts?view=events&partition=proposed")
        page.get_by_text("out of date: prompts has not been made").first.wait_for()
        page.screenshot(path=tmp_path / "proposal.png")
        launch(page, "proposed", "Launch")
        assert house.ended("proposed").dagster_run.status == dg.DagsterRunStatus.SUCCESS
        page.goto(f"{house.address}/assets/prompts?view=partitions&partition=proposed")
        for shown in ("data/num_train_prompts", "prompt chars, median"):
            page.get_by_text(shown).first.wait_for()
        page.screenshot(path=tmp_path / "accepted.png")
