"""The rebuild sensor: what it asks for after which change, by a real instance and real tasks."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterAssetCheckFailedError

from rm_assets.assets.prompts import prompts
from rm_assets.automation import rebuild as module
from rm_assets.automation.rebuild import PARTITION_TAG, rebuild
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets_tests.fakes import save_causal, save_classifier
from rm_assets_tests.tasks.conftest import TOY, Bench, files, in_this_process

NOT_THE_SUBJECT = {"severity": "ignore"}
PASSES = {
    "match_rate_is_high": NOT_THE_SUBJECT, "length_is_not_the_reason": NOT_THE_SUBJECT,
    "confidence_is_calibrated": NOT_THE_SUBJECT,
}  # fmt: skip
AUTO = {"automation": {"rebuild": "auto"}, "gate": PASSES}
WITHOUT_MODEL = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")


@dataclass
class Daemon:
    """Looks as the daemon does, and does what it is asked for, with a clock that tests can turn."""

    bench: Bench
    instance: dg.DagsterInstance
    cursor: str | None = None
    observed: list[dg.AssetObservation] = field(default_factory=list)

    def look(self) -> list[dg.RunRequest]:
        """One tick."""
        resources = {"compute": Compute(home=str(self.bench.home))}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources) as context:
            result = rebuild(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.observed += [event for event in result.asset_events if isinstance(event, dg.AssetObservation)]
        self.says = str(result.skip_reason.skip_message if result.skip_reason else "")
        return list(result.run_requests or [])

    def asked(self) -> dict[str, list[str]]:
        """The assets that the next tick asks for, by recipe."""
        return {
            str(request.partition_key): [key.to_user_string() for key in request.asset_selection or []]
            for request in self.look()
        }

    def obey(self, most: tuple[str, ...] = tuple(STAGES)) -> list[str]:
        """Makes what is asked for, and says which assets a task worked on."""
        before = len(self.bench.said)
        for key, assets in self.asked().items():
            recipe = module.recipe_book().load(key)
            self.bench.make(recipe, *(asset for asset in assets if asset in most))
        return [line.partition(":")[0] for line in self.bench.said[before:] if line.endswith(" starts")]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    bench = Bench(tmp_path)
    bench.write_toy()
    save_causal(bench.folder / "recipes" / "base")
    bench.be_all(monkeypatch)
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 0.0)
    monkeypatch.setattr(module, "RECIPES", dg.StaticPartitionsDefinition(["toy", "other", "third"]))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(bench, instance)


def recipe(daemon: Daemon, name: str = "toy", **changes: Any) -> Recipe:
    return daemon.bench.recipe(name, **{**AUTO, **changes})


def test_a_new_recipe_is_made_as_a_whole_and_then_left_alone(daemon: Daemon) -> None:
    recipe(daemon)
    assert daemon.asked() == {"toy": list(STAGES)}
    assert daemon.obey(WITHOUT_MODEL) == list(WITHOUT_MODEL)
    # The pairs are not made again, but what refused them looks again.
    assert daemon.asked() == {"toy": ["implicit_pairs", "reward_model", "evaluation_report", "hub_release"]}


def test_what_was_made_without_the_daemon_is_not_made_again(daemon: Daemon) -> None:
    daemon.bench.make(recipe(daemon), *WITHOUT_MODEL)
    assert daemon.asked() == {"toy": ["implicit_pairs", "reward_model", "evaluation_report", "hub_release"]}


@pytest.mark.slow
def test_each_change_makes_exactly_what_depends_on_it(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of docs/automation.md, line by line."""
    bench, folder = daemon.bench, daemon.bench.folder / "recipes"
    save_classifier(folder / "gold")
    gold: dict[str, Any] = {"kind": "classifier", "model": {"path": "gold"}, "max_length": 100, "dtype": "float32"}
    bench.write_toy(100, 20)
    settings: dict[str, Any] = {"gold": gold}
    recipe(daemon, **settings)
    recipe(daemon, "other", **settings, automation={"rebuild": "off"})
    made = ["reward_model", "evaluation_report", "hub_release"]
    assert daemon.obey() == list(STAGES)

    def after(change: Callable[[], object]) -> list[str]:
        change()
        worked = daemon.obey()
        assert daemon.asked() == {}, daemon.says
        return worked

    def change(**more: Any) -> Callable[[], object]:
        def write() -> None:
            settings.update(more)
            recipe(daemon, **settings)

        return write

    training = TOY["training"]
    assert after(lambda: None) == []
    assert after(change(gold=gold | {"max_length": 99})) == ["gold_rewards"]  # the same rewards: the tail is cut off
    assert after(lambda: save_classifier(folder / "gold", seed=7)) == ["gold_rewards", "implicit_pairs", *made]
    assert after(change(pairs={"min_margin": 1e-9})) == ["implicit_pairs"]
    assert after(change(training=training | {"learning_rate": 0.02})) == made
    assert after(change(evaluation={"num_canaries": 2})) == ["evaluation_report", "hub_release"]
    version = STAGES["evaluation_report"].version
    newer = replace(STAGES["evaluation_report"], version=version + 1)
    assert after(lambda: monkeypatch.setitem(STAGES, "evaluation_report", newer)) == ["evaluation_report"]  # the same
    assert after(change(execution={**TOY["execution"], "token_budget": 999})) == []
    assert after(lambda: (folder / "toy.yaml").write_text("# a comment\n" + (folder / "toy.yaml").read_text())) == []
    assert after(lambda: recipe(daemon, "other", **settings, automation={"rebuild": "off"}, description="x")) == []

    def add(prompt: str) -> None:
        answers = "".join(json.dumps({"prompt": prompt, "response": t, "gold_reward": 0}) + "\n" for t in ("x", "y y"))
        for name, rows in (("prompts.jsonl", json.dumps({"prompt": prompt}) + "\n"), ("answers.jsonl", answers)):
            bench.write(name, (folder / name).read_text("utf-8") + rows)

    assert after(lambda: add("a new one")) == list(STAGES)
    manifests = Compute(home=str(bench.home)).store().manifests("gold_rewards")
    newest = max(manifests, key=lambda m: m.counts["gold_rewards"])
    assert newest.work["responses scored"] == 2  # of 242

    def prompts_and_training() -> None:
        add("another one")
        change(training=training | {"learning_rate": 0.03})()

    assert after(prompts_and_training) == list(STAGES)  # the tail once


@pytest.mark.slow
def test_other_gold_for_test_prompts_alone_trains_nothing(daemon: Daemon) -> None:
    rows = (daemon.bench.folder / "recipes" / "answers.jsonl").read_text("utf-8")
    daemon.bench.write("gold.jsonl", rows)
    recipe(daemon, gold={**TOY["gold"], "source": files("gold.jsonl")})
    assert daemon.obey() == list(STAGES)
    daemon.bench.write(
        "gold.jsonl",
        rows.replace(
            'even", "response": "bad bad", "gold_reward": 0', 'even", "response": "bad bad", "gold_reward": 0.5'
        ),
    )
    assert daemon.obey() == ["gold_rewards", "implicit_pairs", "evaluation_report", "hub_release"]
    assert daemon.asked() == {}, daemon.says


def test_a_shipped_recipe_is_left_alone_until_something_of_it_was_made(daemon: Daemon) -> None:
    recipe(daemon)
    shipped = daemon.bench.folder / "shipped"
    for file in (daemon.bench.folder / "recipes").iterdir():
        file.rename(shipped / file.name)
    assert daemon.asked() == {} and daemon.says == "every recipe is up to date"
    daemon.bench.make(module.recipe_book().load("toy"), "prompts")
    assert list(daemon.asked()) == ["toy"]


def test_above_the_ceiling_it_is_proposed_once_and_a_person_may_make_it(daemon: Daemon) -> None:
    recipe(daemon, automation={"rebuild": "auto", "max_operations": 1000})
    assert daemon.asked() == {} and daemon.asked() == {}
    (proposal,) = daemon.observed
    assert (proposal.asset_key.to_user_string(), proposal.partition) == ("prompts", "toy")
    assert "operations are above the ceiling of 1e+03" in str(proposal.metadata["not_started_because"].value)
    assert "rm-assets run toy" in str(proposal.metadata["accept"].value)
    recipe(daemon, automation={"rebuild": "auto", "max_operations": 1e15})
    assert list(daemon.asked()) == ["toy"]


def test_the_plan_behind_a_ceiling_is_made_once_for_what_is_wanted(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[str] = []

    def find_known(of: Recipe, *rest: Any) -> Any:
        planned.append(of.name)
        return real(of, *rest)

    real = module.find_known
    monkeypatch.setattr(module, "find_known", find_known)
    recipe(daemon, automation={"rebuild": "auto", "max_operations": 999})
    daemon.look(), daemon.look()
    assert planned == ["toy"]
    recipe(daemon, automation={"rebuild": "auto", "max_operations": 999}, training={**TOY["training"], "num_epochs": 3})
    daemon.look()
    assert planned == ["toy", "toy"]


def test_notify_proposes_with_the_reason_and_off_says_nothing(daemon: Daemon) -> None:
    daemon.bench.make(recipe(daemon), *WITHOUT_MODEL)
    recipe(daemon, automation={"rebuild": "notify"}, pairs={"min_margin": 0.5})
    recipe(daemon, "other", automation={"rebuild": "off"})
    assert daemon.asked() == {}
    (proposal,) = daemon.observed
    assert proposal.description == "out of date: implicit_pairs.min_margin: 0.5, was 0.0"
    assert "other" not in daemon.says


def test_a_file_that_may_still_be_written_is_waited_for(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 3600.0)
    recipe(daemon)
    assert daemon.asked() == {} and "prompts.jsonl may still be written" in daemon.says
    for file in (daemon.bench.folder / "recipes").glob("*.jsonl"):
        os.utime(file, (time.time() - 7200,) * 2)
    for file in (daemon.bench.folder / "recipes" / "base").iterdir():
        os.utime(file, (time.time() - 7200,) * 2)
    assert daemon.asked() == {"toy": list(STAGES)}


def test_a_file_that_is_dated_years_ahead_is_not_waited_for(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(daemon)
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 10.0)
    for file in (
        *(daemon.bench.folder / "recipes").glob("*.jsonl"),
        *(daemon.bench.folder / "recipes" / "base").iterdir(),
    ):
        os.utime(file, (time.time() + 1e8,) * 2)
    assert daemon.asked() == {"toy": list(STAGES)}


def test_a_recipe_that_cannot_be_judged_for_a_while_is_not_proposed_again(daemon: Daemon) -> None:
    recipe(daemon, automation={"rebuild": "notify"})
    source = daemon.bench.folder / "recipes" / "prompts.jsonl"
    daemon.look()
    source.rename(source.with_suffix(".away"))
    daemon.look()
    assert "toy: [DATA_001]" in daemon.says
    source.with_suffix(".away").rename(source)
    daemon.look()
    assert len(daemon.observed) == 1


def test_only_some_runs_are_asked_for_at_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    for name in ("toy", "other", "third"):
        recipe(daemon, name)
    assert list(daemon.asked()) == ["other", "third"]  # all that is said when something is asked for goes to the log
    job = dg.JobDefinition(name="work", graph_def=dg.GraphDefinition(name="work"))
    tags = {"dagster/sensor_name": "rebuild", PARTITION_TAG: "other"}
    runs = [daemon.instance.create_run_for_job(job, tags=tags | more) for more in ({}, {PARTITION_TAG: "third"})]
    assert daemon.asked() == {} and "toy: wait from prompts on, after other runs (2 at once)" in daemon.says
    daemon.instance.report_run_failed(runs[0], "it died")
    assert len(daemon.asked()) == 1


def test_a_recipe_with_a_fault_is_named_and_hides_no_other(daemon: Daemon) -> None:
    recipe(daemon)
    (daemon.bench.folder / "recipes" / "other.yaml").write_text("prompts: {}\n")
    assert list(daemon.asked()) == ["toy"]
    (daemon.bench.folder / "recipes" / "toy.yaml").unlink()
    assert daemon.asked() == {} and "other: [RECIPE_003]" in daemon.says


def test_a_recipe_that_came_after_the_definitions_is_named(daemon: Daemon) -> None:
    recipe(daemon, "newcomer")
    assert daemon.asked() == {} and "new: newcomer; reload the code location" in daemon.says


def run_that_ends(daemon: Daemon, request: dg.RunRequest, cause: Callable[[], None]) -> None:
    """A real run with the tags of a request, in whose only step something happens."""

    @dg.op
    def step() -> None:
        cause()

    @dg.job
    def work() -> None:
        step()

    tags = {PARTITION_TAG: str(request.partition_key), **request.tags}
    work.execute_in_process(instance=daemon.instance, tags=tags, raise_on_error=False)


def failing(code: str | None) -> Callable[[], None]:
    def fail() -> None:
        raise dg.Failure("it failed", metadata={"rm/error_code": code} if code else {}, allow_retries=False)

    return fail


def test_what_failed_is_asked_for_again_later_and_not_for_ever(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(daemon)
    now, keys = [time.time()], []
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    for waits in (60, 300, 1800):
        (request,) = daemon.look()
        keys.append(request.run_key)
        run_that_ends(daemon, request, failing("SERVER_001"))
        now[0] += waits / 2
        assert daemon.look() == [] and "the next is in" in daemon.says
        now[0] += waits
    (request,) = daemon.look()
    keys.append(request.run_key)
    run_that_ends(daemon, request, failing(None))
    now[0] += 1e6
    assert daemon.look() == [] and "it failed 4 times" in daemon.says
    assert len(set(keys)) == 4
    recipe(daemon, prompts={**TOY["prompts"], "test": files("prompts.jsonl")})  # other work
    assert len(daemon.look()) == 1


def test_a_run_that_dagster_has_started_again_is_no_try_of_its_own(daemon: Daemon) -> None:
    recipe(daemon)
    (request,) = daemon.look()
    for number in range(4):
        run_that_ends(daemon, request, failing(None))
        (newest, *_) = daemon.instance.get_runs()
        if number < 3:
            daemon.instance.add_run_tags(newest.run_id, {module.STARTED_AGAIN_TAG: "the next one"})
    assert daemon.look() == [] and "try 1 of it failed; the next is in" in daemon.says


@pytest.mark.parametrize("code", ["DATA_005", "MODEL_003", "RELEASE_004", "RECIPE_003"])
def test_what_does_not_pass_by_itself_is_not_tried_again(
    daemon: Daemon, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(daemon)
    (request,) = daemon.look()
    run_that_ends(daemon, request, failing(code))
    monkeypatch.setattr(module.time, "time", lambda: 2e10)
    assert daemon.look() == [] and code in daemon.says
    recipe(daemon, gate={"match_rate_is_high": {"limit": 0.6}})
    assert len(daemon.look()) == 1  # a limit that was changed may let it pass


def test_the_try_that_ended_last_decides(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(daemon)
    (request,) = daemon.look()
    for code in ("SERVER_001", "DATA_005"):
        run_that_ends(daemon, request, failing(code))
    monkeypatch.setattr(module.time, "time", lambda: 2e10)
    assert daemon.look() == [] and "DATA_005" in daemon.says


def cancelled(daemon: Daemon, tags: dict[str, str]) -> None:
    """A run with these tags that a person cancels."""
    job = dg.JobDefinition(name="work", graph_def=dg.GraphDefinition(name="work"))
    run = daemon.instance.create_run_for_job(job, tags=tags)
    daemon.instance.report_run_canceling(run)
    daemon.instance.report_run_canceled(run)


def test_what_was_cancelled_or_refused_is_left_however_far_it_came(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    made = recipe(daemon)
    (request,) = daemon.look()
    daemon.bench.make(made, "prompts")
    cancelled(daemon, {PARTITION_TAG: "toy", **request.tags})
    assert daemon.look() == []
    assert "toy: wait from sampled_responses on, the last run of it was cancelled" in daemon.says
    made = recipe(daemon, training={**TOY["training"], "num_epochs": 3})
    (request,) = daemon.look()

    def refused() -> None:
        daemon.bench.make(made, "sampled_responses")
        raise DagsterAssetCheckFailedError("too short")

    run_that_ends(daemon, request, refused)
    assert daemon.look() == [] and "toy: wait from gold_rewards on, a check refused" in daemon.says
    recipe(daemon, execution={**TOY["execution"], "timeout_seconds": 99})
    assert len(daemon.look()) == 1


def test_what_a_person_started_and_cancelled_is_left_and_a_smoke_run_of_it_counts_nothing(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.setattr(module, "RECIPES", dg.StaticPartitionsDefinition(["embedded"]))  # one that the assets know
    recipe(daemon, "embedded")
    for smoke in (True, False):
        assert len(daemon.look()) == 1
        done = dg.materialize(
            [prompts], partition_key="embedded", instance=daemon.instance,
            resources={"compute": Compute(home=str(daemon.bench.home), smoke=smoke)},
        )  # fmt: skip
        run = daemon.instance.get_run_by_id(done.run_id)
        assert run is not None
        cancelled(daemon, {tag: run.tags[tag] for tag in (PARTITION_TAG, module.AIM_TAG)})
    assert daemon.look() == [] and "the last run of it was cancelled" in daemon.says


def test_more_time_for_a_task_is_tried_at_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe(daemon)
    now = [time.time()]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    for _ in range(4):
        (request,) = daemon.look()
        run_that_ends(daemon, request, failing("TASK_003"))
        now[0] += 1e5
    assert daemon.look() == [] and "it failed 4 times" in daemon.says
    recipe(daemon, execution={**TOY["execution"], "timeout_seconds": 99})
    assert len(daemon.look()) == 1


def test_a_recipe_that_is_being_made_is_left_alone(daemon: Daemon) -> None:
    recipe(daemon)

    @dg.op
    def step() -> None:
        assert daemon.look() == []

    @dg.job
    def work() -> None:
        step()

    assert work.execute_in_process(instance=daemon.instance, tags={PARTITION_TAG: "toy"}).success
    assert len(daemon.look()) == 1
