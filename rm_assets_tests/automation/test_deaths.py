"""kill -9 of daemon, webserver, run workers and tasks at random moments under a backfill: all is made, each thing once, and told.

RM_ASSETS_NUM_DEATHS sets how often each of the four is killed.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.stages import STAGES
from rm_assets.storage.lineage import wanted
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Store
from rm_assets_tests.automation.alert_receiver import Receiver, receiving
from rm_assets_tests.automation.deployment import Deployment
from rm_assets_tests.automation.test_rebuild import PASSES
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.processes import wait_for
from rm_assets_tests.tasks.conftest import TOY, Bench

NUM_DEATHS = int(os.environ.get("RM_ASSETS_NUM_DEATHS", "1"))
RECIPES = [f"toy{place}" for place in range(NUM_DEATHS + 2)]
SERVERS = ("code", "webserver", "daemon")


class World:
    """The recipes, what makes them, and how it dies."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, deployment: Deployment, receiver: Receiver) -> None:
        self.bench, self.instance, self.deployment, self.receiver = Bench(folder), instance, deployment, receiver
        self.bench.write_toy()
        save_causal(self.bench.folder / "recipes" / "base")

    def write(self, rebuild: str) -> None:
        """Writes all recipes: the same as far as the gold rewards, then each another one."""
        for place, name in enumerate(RECIPES):
            training = {**TOY["training"], "learning_rate": 0.01 + place / 1000}
            sections = {"pairs": {"min_margin": place / 1000}, "training": training, "gate": PASSES}
            self.bench.recipe(name, **sections, automation={"rebuild": rebuild})

    def unmade(self) -> list[str]:
        """The recipes that are not made to their end."""
        book, store = RecipeBook(self.bench.folder / "recipes", {}), Store(self.bench.home)
        return [name for name in RECIPES if any(wanted(store, book.load(name), a).manifest is None for a in STAGES)]

    def is_idle(self) -> bool:
        """Whether no run and no backfill goes on."""
        backfills = self.instance.get_backfills(BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
        return not backfills and not self.instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))

    def keep_busy(self) -> None:
        """Asks for another backfill when the last one is over."""
        if self.is_idle():
            self.deployment.backfill(*(self.unmade() or RECIPES)[:3])

    def kill(self, victim: str, chance: random.Random) -> bool:
        """kill -9; a server is started again, as a supervisor does. False if there was nobody to kill."""
        self.keep_busy()
        if victim in self.deployment.servers:
            self.deployment.kill(victim)
            self.deployment.start(victim)
            return True
        pids = self.deployment.workers() if victim == "worker" else self.deployment.tasks()
        with suppress(ProcessLookupError):
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                return True
        return False

    def is_watched(self) -> bool:
        """Whether the sensor of alerts has had its first look, from which on everything is sent."""
        states = [state for state in self.instance.all_instigator_state() if state.instigator_name == "alerts"]
        return any(getattr(state.instigator_data, "cursor", None) for state in states)

    def untold(self) -> set[str]:
        """The keys of failed runs and of releases of which no alert has come."""
        failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        released = Registry(Store(self.bench.home)).releases()
        happened = {f"run_failed:{run.run_id}" for run in failed} | {f"released:{made.name}" for made in released}
        return happened - self.receiver.keys().keys()

    def times_made(self) -> Counter[tuple[str, str]]:
        """How often the asset of a digest was materialized by a run that made it, and did not find it."""
        times: Counter[tuple[str, str]] = Counter()
        for asset in STAGES:
            for record in self.instance.fetch_materializations(dg.AssetKey(asset), limit=999).records:
                assert record.asset_materialization
                metadata = record.asset_materialization.metadata
                times[asset, str(metadata["rm/digest"].value)] += not metadata["rm/was_made_before"].value
        return times


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with receiving() as receiver:
        deployment = Deployment(tmp_path, RM_ASSETS_ALERT_WEBHOOK=receiver.address)
        yield from _living(deployment, receiver)


def _living(deployment: Deployment, receiver: Receiver) -> Iterator[World]:
    with deployment.instance() as instance:
        made = World(deployment.folder, instance, deployment, receiver)
        made.write("off")
        try:
            for name in SERVERS:
                deployment.start(name)
            yield made
        finally:
            deployment.end_all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_after_all_deaths_everything_is_made_once_and_nothing_is_left(world: World) -> None:
    chance, died, deployment = random.Random(7), Counter[str](), world.deployment
    victims = ["daemon", "webserver", "worker", "task"] * NUM_DEATHS
    chance.shuffle(victims)
    wait_for(world.is_watched, 120)
    for victim in victims:
        time.sleep(chance.uniform(0, 8))
        wait_for(partial(world.kill, victim, chance), 180)
        died[victim] += 1
    assert set(died.values()) == {NUM_DEATHS}
    print(died, "unmade after the deaths:", world.unmade())
    world.write("auto")
    wait_for(lambda: not world.unmade() and world.is_idle(), 300 + 60 * NUM_DEATHS)
    statuses = Counter(run.status.value for run in world.instance.get_runs())
    print(statuses, "materializations by digest:", Counter(world.times_made().values()))
    assert statuses.keys() <= {"SUCCESS", "FAILURE"}
    assert max(world.times_made().values()) == 1
    manifests = world.bench.manifests()
    assert len(manifests) == 3 + 4 * len(RECIPES)  # all have the same prompts, responses and gold rewards
    wait_for(lambda: not list((world.bench.home / "heartbeats").iterdir()), 90)  # the sensor looks every 30 seconds
    wait_for(lambda: not world.untold(), 90)
    told = world.receiver.keys()
    print(f"{len(told)} alerts, taken {told.total()} times")
    assert {key.partition(":")[0] for key in told} >= {"run_failed", "released"}
    assert not [file for file in world.bench.home.glob("*/*/.*.tmp") if "request" not in file.name]
    deployment.stop()
    with suppress(AssertionError):
        wait_for(lambda: not deployment.processes(), 30)
    assert not deployment.processes()
