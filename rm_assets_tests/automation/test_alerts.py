"""The sensor `alerts`: a real instance whose runs end as they may, and a real receiver that sometimes does not take them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from rm_assets.automation import alerts as module
from rm_assets.automation.alerts import alerts
from rm_assets.core.errors import SetupError, StoreError
from rm_assets.resources.compute import Compute
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Store
from rm_assets_tests.automation.alert_receiver import Receiver, receiving
from rm_assets_tests.storage.test_registry import built

RECIPES = dg.StaticPartitionsDefinition(["toy", "other"])
RATES = (0.68, 0.69, 0.70, 0.71, 0.72)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@dataclass
class Bench:
    """An instance, a store, and the sensor with its cursor."""

    instance: dg.DagsterInstance
    store: Store
    cursor: str | None = None
    says: str = ""

    def look(self) -> None:
        """One tick."""
        compute = {"compute": Compute(home=str(self.store.home))}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=compute) as context:
            result = alerts(context)
        if isinstance(result, dg.SkipReason):
            self.says = str(result.skip_message)
            return
        assert isinstance(result, dg.SensorResult) and result.skip_reason is not None and not result.run_requests
        self.cursor, self.says = result.cursor or self.cursor, str(result.skip_reason.skip_message)

    def make(self, recipe: str = "toy", checks: tuple[dg.AssetCheckResult, ...] = (), **metadata: Any) -> str:
        """A run that makes an evaluation_report, and its id."""

        @dg.asset(partitions_def=RECIPES, check_specs=[dg.AssetCheckSpec("is_good", asset="evaluation_report")])
        def evaluation_report():  # type: ignore[no-untyped-def]  # Dagster reads an annotation as one output
            return dg.MaterializeResult(metadata=metadata, check_results=checks or (good(True),))

        return dg.materialize([evaluation_report], instance=self.instance, partition_key=recipe).run_id

    def release(self, digest: str) -> None:
        @dg.asset(partitions_def=RECIPES)
        def hub_release() -> dg.MaterializeResult[Any]:
            return dg.MaterializeResult(metadata={"rm/digest": digest})

        assert dg.materialize([hub_release], instance=self.instance, partition_key="toy").success

    def report(self, recipe: str = "toy", **metadata: Any) -> None:
        """An evaluation_report that no run has made."""
        made = dg.AssetMaterialization("evaluation_report", partition=recipe, metadata=metadata)
        self.instance.report_runless_asset_event(made)

    def die(self, why: str) -> str:
        """A run that somebody else reports as failed, and its id."""
        run = self.instance.create_run_for_job(work, tags={"dagster/partition": "toy"})
        self.instance.report_run_failed(run, why)
        return run.run_id

    def fail(self, error: Exception) -> str:
        @dg.asset(partitions_def=RECIPES)
        def reward_model() -> None:
            raise error

        return dg.materialize([reward_model], instance=self.instance, partition_key="toy", raise_on_error=False).run_id


@dg.job
def work() -> None:
    """A job without a step."""


def good(passed: bool, text: str = "match rate 0.51; it must be above 0.6") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, check_name="is_good", description=text, severity=dg.AssetCheckSeverity.WARN
    )


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """SQLite in files, as by default. It is one for all tests: each begins at the newest event."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as made:
        yield made


@pytest.fixture
def bench(instance: dg.DagsterInstance, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("RM_ASSETS_ALERT_WEBHOOK", receiver.address)
    monkeypatch.setenv("RM_ASSETS_URL", "http://dagster.example")
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 0.0)
    return Bench(instance, Store(tmp_path / "home"))


def test_what_happened_before_the_first_look_is_not_sent(bench: Bench, receiver: Receiver) -> None:
    bench.fail(ValueError("old"))
    bench.look()
    bench.look()
    assert receiver.asked == []
    bench.fail(ValueError("new"))
    bench.look()
    assert [body["text"].partition("\n")[0] for body in receiver.taken] == ["ValueError: new"]


def test_a_failed_run_says_code_recipe_asset_and_fix_and_leads_to_its_run(bench: Bench, receiver: Receiver) -> None:
    bench.look()
    text = "reward_model of recipe 'toy': [MODEL_003] no template.\n  Fix: add one."
    run = bench.fail(dg.Failure(text, metadata={"rm/error_code": "MODEL_003"}, allow_retries=False))
    bench.look()
    assert receiver.taken == [
        {
            "key": f"run_failed:{run}", "kind": "run_failed", "title": "toy: reward_model failed [MODEL_003]",
            "text": text, "url": f"http://dagster.example/runs/{run}", "recipe": "toy", "asset": "reward_model",
            "code": "MODEL_003",
        }
    ]  # fmt: skip


def test_a_run_that_somebody_else_reports_as_failed_says_why(bench: Bench, receiver: Receiver) -> None:
    bench.look()
    bench.die("its worker has not been heard of for 60 s")
    bench.look()
    assert [(b["title"], b["text"]) for b in receiver.taken] == [
        ("toy: the run failed", "its worker has not been heard of for 60 s")
    ]


def test_a_failed_check_is_sent_once_until_it_passes_or_finds_something_else(bench: Bench, receiver: Receiver) -> None:
    bench.look()
    for checks in ((good(False),), (good(False),), (good(True),), (good(False),), (good(False, "worse"),)):
        bench.make(checks=checks)
        bench.look()
    assert [(b["kind"], b["title"], b["text"]) for b in receiver.taken] == [
        ("check_failed", "toy: check is_good failed", f"WARN of evaluation_report: {text}")
        for text in (*["match rate 0.51; it must be above 0.6"] * 2, "worse")
    ]


def test_a_release_is_sent_with_its_match_rate_when_it_is_new(bench: Bench, receiver: Receiver) -> None:
    Registry(bench.store).add(built(bench.store, "a" * 32))
    bench.look()
    for digest in ("a" * 32, "a" * 32, "b" * 32):  # the second was there; the third is a smoke run's, in no registry
        bench.release(digest)
    bench.cursor = json.dumps(json.loads(str(bench.cursor)) | {"sent": []})
    bench.look()
    assert [(b["key"], b["text"], b["url"]) for b in receiver.taken] == [
        (
            f"released:toy-{'a' * 12}", "match rate 0.800 (0.700 to 0.900)",
            "http://dagster.example/assets/hub_release?partition=toy",
        )
    ]  # fmt: skip


def test_a_figure_out_of_its_usual_range_is_sent(bench: Bench, receiver: Receiver) -> None:
    names = ("match_rate", "tie_rate", "expected_calibration_error", "spearman")

    def figures(digest: str, value: float) -> dict[str, Any]:
        return {"rm/digest": digest, "rm/anything": value, **{f"rm/{name}": value for name in names}}

    bench.look()
    for number, rate in enumerate((*RATES, 0.70)):
        bench.report(**figures(str(number), rate))
    bench.report("other", **{"rm/digest": "x", "rm/match_rate": 0.1})
    for _ in range(2):  # the second finds it as it was made before
        bench.make(**figures("6", 0.50))
    bench.make("other", **{"rm/digest": "y", "rm/match_rate": 0.5})  # a recipe of its own
    bench.look()
    assert [alert["key"] for alert in receiver.taken] == [f"figure_unusual:toy:{name}:6" for name in names]
    assert receiver.taken[0]["text"] == "match_rate 0.5; the mean of 6 before is 0.7, usual would be 0.6144 to 0.7856"


def test_the_newest_keys_are_remembered() -> None:
    keys = [str(number) for number in range(module.NUM_REMEMBERED + 5)]
    assert json.loads(module._cursor(7, keys)) == {"after": 7, "sent": keys[5:]}


def test_a_proposal_of_the_rebuild_sensor_is_sent_and_other_observations_are_not(
    bench: Bench, receiver: Receiver
) -> None:
    bench.look()
    metadata = {"proposal": "make prompts", "why": "new", "not_started_because": "costly", "accept": "run it"}
    for described in (metadata, {"release/alias": "production"}):
        seen = dg.AssetObservation("prompts", partition="toy@1", metadata=described)
        bench.instance.report_runless_asset_event(seen)
    bench.look()
    (alert,) = receiver.taken
    assert alert["text"] == "make prompts: new. Not started: costly. To accept: run it"
    assert alert["url"] == "http://dagster.example/assets/prompts?partition=toy%401"


@pytest.mark.parametrize("status", [302, 404, 503])
def test_what_is_not_taken_is_sent_again_and_nothing_is_lost(bench: Bench, receiver: Receiver, status: int) -> None:
    bench.look()
    bench.make(checks=(good(False),))
    bench.die("second")
    bench.die("third")
    before, receiver.answers = bench.cursor, [status, 200, status]
    with pytest.raises(
        SetupError, match=rf"SETUP_009.*did not take.*check_failed(.|\n)*it answered {status}"
    ) as caught:
        bench.look()
    assert "SECRET" not in str(caught.value) and "SECRET" not in repr(caught.getrepr())
    assert bench.cursor == before and receiver.taken == []
    bench.look()  # the first is taken, the second is not
    assert receiver.kinds() == ["check_failed"] and "1 alerts sent" in bench.says and str(status) in bench.says
    bench.look()
    assert receiver.kinds() == ["check_failed", "run_failed", "run_failed"] and len(receiver.asked) == 5
    assert {body["key"] for body in receiver.taken} == {*(body["key"] for body in receiver.taken)}
    bench.look()
    assert len(receiver.asked) == 5 and "0 alerts sent" in bench.says
    assert "SECRET" not in bench.says + str(bench.cursor)


def test_without_a_connection_nothing_is_lost(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    bench.die("x")
    monkeypatch.setenv("RM_ASSETS_ALERT_WEBHOOK", "http://127.0.0.1:1/services/SECRET")
    with pytest.raises(SetupError, match=r"cannot be reached \(ConnectionRefusedError\)") as caught:
        bench.look()
    assert "SECRET" not in str(caught.value)
    monkeypatch.setenv("RM_ASSETS_ALERT_WEBHOOK", receiver.address)
    bench.look()
    assert receiver.kinds() == ["run_failed"]


@pytest.mark.parametrize("address", ["hooks.slack.com/SECRET", "http://host:SECRET/x", "https://a b/SECRET"])
def test_an_address_that_is_none_is_refused_and_not_shown(
    bench: Bench, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    bench.die("x")
    monkeypatch.setenv("RM_ASSETS_ALERT_WEBHOOK", address)
    with pytest.raises(SetupError, match="SETUP_009") as caught:
        bench.look()
    assert "SECRET" not in str(caught.value)


def test_an_unknown_format_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_ALERT_FORMAT", "xml")
    with pytest.raises(SetupError, match="set it to one of json, slack"):
        bench.look()


def test_slack_gets_its_own_form(bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ASSETS_ALERT_FORMAT", "slack")
    bench.look()
    run = bench.fail(ValueError("x"))
    bench.look()
    ((key, text),) = receiver.taken[0].items()
    assert key == "text" and text.startswith("*toy: reward_model failed*\nValueError: x")
    assert text.endswith(f"\n<http://dagster.example/runs/{run}|open>")


def test_without_a_webhook_the_tick_says_what_to_set(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RM_ASSETS_ALERT_WEBHOOK")
    bench.look()
    assert bench.cursor is None and "set RM_ASSETS_ALERT_WEBHOOK" in bench.says


def test_a_tick_is_bounded_and_the_next_goes_on(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    for number in range(3):
        bench.die(str(number))
    monkeypatch.setattr(module, "MOST_EVENTS", 2)
    bench.look()
    assert len(receiver.taken) == 2
    monkeypatch.setattr(module, "MOST_SECONDS", -1.0)
    bench.look()
    assert len(receiver.taken) == 2 and "the rest at the next look" in bench.says
    monkeypatch.setattr(module, "MOST_SECONDS", 20.0)
    bench.look()
    assert [body["text"] for body in receiver.taken] == ["0", "1", "2"]


def test_while_the_store_does_not_answer_nothing_is_sent_twice(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    bench.die("its process has died")
    bench.release("d" * 32)

    def silent(store: Store) -> Registry:
        raise StoreError("STORE_006", "the store does not answer", fix="wait")

    monkeypatch.setattr(module, "Registry", silent)
    bench.look()
    assert "1 alerts sent" in bench.says and "STORE_006" in bench.says
    with pytest.raises(StoreError):
        bench.look()
    assert receiver.kinds() == ["run_failed"]


def test_an_event_of_a_clock_that_was_wrong_holds_nothing_up(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    bench.die("x")
    real = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: real() - 3600)  # it has been set right since
    bench.look()
    assert len(receiver.taken) == 1


def test_an_event_that_is_very_new_waits_for_the_next_look(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.look()
    bench.die("x")
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 30.0)
    bench.look()
    assert receiver.taken == []
    monkeypatch.setattr(module, "SECONDS_TO_SETTLE", 0.0)
    bench.look()
    assert len(receiver.taken) == 1
