"""Dagster calls stale what a changed recipe makes so, and nothing else: by a real instance and real tasks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from rm_assets.automation import rebuild
from rm_assets.automation.recipe_changes import recipe_changes
from rm_assets.definitions import defs
from rm_assets.resources.compute import Compute
from rm_assets_tests.tasks.conftest import Bench, in_this_process

NAME = "embedded"
"""A partition that is there whatever recipes are; its recipe is the bench's."""
WITHOUT_MODEL = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.write_toy()
    return made


@pytest.fixture
def instance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    bench.be_all(monkeypatch)
    monkeypatch.setattr(rebuild, "SECONDS_TO_SETTLE", 0.0)
    in_this_process(monkeypatch)
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(instance: dg.DagsterInstance, *assets: str) -> None:
    selection = [dg.AssetKey(asset) for asset in assets]
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, partition_key=NAME, asset_selection=selection).success


def look(instance: dg.DagsterInstance) -> list[str]:
    """The sections that the sensor observes."""
    with dg.build_sensor_context(instance=instance, resources={"compute": Compute()}) as context:
        result = recipe_changes(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return [event.asset_key.to_user_string() for event in result.asset_events]


def stale(instance: dg.DagsterInstance) -> dict[str, list[Any]]:
    """The stale assets as the web UI finds them, with what makes them so."""
    resolver = CachingStaleStatusResolver(instance, defs.resolve_asset_graph(), LoadingContextForTest(instance))
    causes = {asset: resolver.get_stale_causes(dg.AssetKey(asset), NAME) for asset in WITHOUT_MODEL}
    return {
        asset: [cause.dependency.asset_key.to_user_string() if cause.dependency else cause.reason for cause in found]
        for asset, found in causes.items()
        if found
    }


def test_a_changed_section_makes_its_asset_stale_until_it_is_made(bench: Bench, instance: dg.DagsterInstance) -> None:
    bench.recipe(NAME)
    assert look(instance) == []  # of what was never made, nothing is observed
    materialize(instance, *WITHOUT_MODEL)
    assert look(instance) == []
    assert stale(instance) == {}

    bench.recipe(NAME, pairs={"min_margin": 0.5}, execution={"device": "cpu"}, description="another one")
    assert look(instance) == ["recipe_pairs"]
    assert stale(instance) == {"implicit_pairs": ["recipe_pairs"]}
    assert look(instance) == []

    materialize(instance, "implicit_pairs")
    assert stale(instance) == {}
    bench.recipe(NAME)
    assert look(instance) == ["recipe_pairs"]
    assert stale(instance) == {"implicit_pairs": ["recipe_pairs"]}


def test_what_was_remade_without_the_daemon_is_not_stale_at_its_next_look(
    bench: Bench, instance: dg.DagsterInstance
) -> None:
    bench.recipe(NAME)
    materialize(instance, *WITHOUT_MODEL)
    bench.recipe(NAME, pairs={"min_margin": 0.5})
    materialize(instance, "implicit_pairs")
    assert look(instance) == []
    assert stale(instance) == {}


def test_a_changed_file_of_prompts_makes_the_prompts_stale(
    bench: Bench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.recipe(NAME)
    materialize(instance, *WITHOUT_MODEL)
    bench.write_toy(num_train=9)
    monkeypatch.setattr(rebuild, "SECONDS_TO_SETTLE", 3600.0)  # it may still be written
    assert look(instance) == []
    monkeypatch.setattr(rebuild, "SECONDS_TO_SETTLE", 0.0)
    assert look(instance) == ["recipe_prompts", "recipe_sampling", "recipe_gold"]
    assert set(stale(instance)) == {"prompts", "sampled_responses", "gold_rewards"}
