"""The schedules: what each asks for, by a real instance and store, and that the jobs do it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.automation import rebuild as rebuilding
from rm_assets.automation.jobs import compare_with_production, prune_store
from rm_assets.automation.rebuild import PARTITION_TAG, STATE_TAG
from rm_assets.automation.schedules import nightly_comparison, retention, weekly_rebuild
from rm_assets.definitions import defs
from rm_assets.resources.compute import Compute
from rm_assets.storage.kept import results
from rm_assets.storage.registry import Registry
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.planted import Planted, training

AUTO = {"automation": {"rebuild": "auto"}}
SUNDAY = datetime(2026, 11, 22, 4, tzinfo=UTC)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    made = Planted(tmp_path)
    made.write_toy()
    save_causal(made.folder / "recipes" / "base")
    made.be_all(monkeypatch)
    monkeypatch.setattr(rebuilding, "SECONDS_TO_SETTLE", 0.0)
    monkeypatch.setattr(rebuilding, "RECIPES", dg.StaticPartitionsDefinition(["toy", "other", "third"]))
    return made


def asked(
    bench: Planted, schedule: dg.ScheduleDefinition, instance: dg.DagsterInstance | None = None
) -> tuple[list[dg.RunRequest], str]:
    """What a schedule asks for, and what it says where that is nothing."""
    compute = {"compute": Compute(home=str(bench.home))}
    with dg.build_schedule_context(
        instance=instance or dg.DagsterInstance.ephemeral(), scheduled_execution_time=SUNDAY, resources=compute
    ) as context:
        found = schedule(context)
    return ([], str(found.skip_message)) if isinstance(found, dg.SkipReason) else (found, "")


def test_each_schedule_is_stopped_until_somebody_starts_it() -> None:
    for schedule in (nightly_comparison, weekly_rebuild, retention):
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_nightly_compares_what_was_built_since_with_what_is_in_production(bench: Planted) -> None:
    assert asked(bench, nightly_comparison) == ([], "no recipe has a release in production")
    for name in ("toy", "other", "third"):
        bench.recipe(name, **training(0.1 if name == "toy" else 0.2))
        release = bench.release(name)
        if name != "third":
            Registry(bench.store).move(release, "production", why="it is good")
    # Where nothing has changed, too: only so the asset, which gets old by the clock, is fresh in the healthiest state.
    assert [r.run_key for r in asked(bench, nightly_comparison)[0]] == ["other 2026-11-22", "toy 2026-11-22"]
    bench.recipe("toy", **training(0.3))
    assert [request.run_key for request in asked(bench, nightly_comparison)[0]] == ["other 2026-11-22"]
    bench.build("toy", to="reward_model")
    bench.recipe("other", **training(0.2), prompts={"source": {"kind": "files", "files": ["gone.jsonl"]}})
    ((request,), _) = asked(bench, nightly_comparison)
    assert request.run_config == {
        "ops": {"model_comparison": {"config": {"on": "toy", "models": ["toy", "toy@production"]}}}
    }
    job = defs.resolve_job_def(compare_with_production.name)
    assert dg.validate_run_config(job, request.run_config)


def ended(instance: dg.DagsterInstance, request: dg.RunRequest, cause: Callable[[], Any]) -> None:
    """A run with the tags of a request, in whose only step something happens."""

    @dg.op
    def step() -> None:
        cause()

    @dg.job
    def work() -> None:
        step()

    tags = {PARTITION_TAG: str(request.partition_key), **request.tags}
    work.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_weekly_asks_once_more_for_what_the_sensor_has_given_up(bench: Planted) -> None:
    def fail() -> None:
        raise dg.Failure("no", metadata={"rm/error_code": "DATA_005"}, allow_retries=False)

    bench.recipe("toy", **AUTO)
    bench.recipe("other", automation={"rebuild": "notify"})
    bench.recipe("third", automation={"rebuild": "auto", "max_operations": 1.0})
    with dg.DagsterInstance.local_temp() as instance:
        ((request,), _) = asked(bench, weekly_rebuild, instance)
        assert request.partition_key == "toy" and request.tags[STATE_TAG] in str(request.run_key)
        assert request.asset_selection == [
            dg.AssetKey(asset)
            for asset in (
                "prompts", "sampled_responses", "gold_rewards", "implicit_pairs", "reward_model", "evaluation_report",
                "hub_release",
            )
        ]  # fmt: skip
        ended(instance, request, fail)
        assert [r.partition_key for r in asked(bench, weekly_rebuild, instance)[0]] == ["toy"]
        run = instance.create_run_for_job(nothing, tags={PARTITION_TAG: "toy", **request.tags})
        instance.report_run_canceling(run)
        instance.report_run_canceled(run)
        requests, said = asked(bench, weekly_rebuild, instance)
        assert requests == [] and "toy: the last run of it was cancelled" in said
        assert "third:" in said and "above the ceiling of 1;" in said


@dg.job
def nothing() -> None:
    """A job without a step."""


def test_retention_prunes_by_its_job(bench: Planted) -> None:
    for n in range(3):
        bench.recipe("toy", **training(0.1 * (n + 1)))
        bench.build("toy", to="reward_model", days_ago=100 - n)
    before = len(results(bench.store))
    result = prune_store.execute_in_process(resources={"compute": Compute(home=str(bench.home))})
    assert result.success and len(results(bench.store)) == before - 1
    assert retention.job_name == prune_store.name
