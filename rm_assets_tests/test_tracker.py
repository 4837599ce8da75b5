"""The tracker: runs that wandb itself can read, nothing broken without W&B, no key anywhere."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rm_assets.core.recipe import Recipe
from rm_assets.resources import tracker
from rm_assets.resources.compute import Made
from rm_assets.resources.tracker import Tracker, without_credentials
from rm_assets.storage.metrics_log import MetricsLog
from rm_assets.storage.store import Store
from rm_assets_tests.fakes import save_causal
from rm_assets_tests.tasks.conftest import Bench, files

KEY = "0123456789abcdef0123456789abcdef01234567"


class Tracked:
    """A trained model and a report in a store, and what the tracker said of them."""

    def __init__(self, folder: Path) -> None:
        self.bench, self.store = Bench(folder), Store(folder / "home")
        self.said: list[str] = []
        self.warned: list[str] = []
        log = MetricsLog(
            self.folder("reward_model") / "metrics.jsonl", recipe="toy", asset="reward_model", digest="d1", run_id="r"
        )
        log.training_begins(2, "cpu")
        log.metrics(1, {"loss": 0.75, "accuracy": 0.5})
        log.metrics(2, {"loss": 0.25, "accuracy": 1.0})
        (self.folder("evaluation_report") / "report.html").write_text("<p>The report of <b>toy</b></p>")
        self.made = {
            asset: Made(
                self.store.commit(
                    {"asset": asset, "digest": "d1", "recipe": "toy", "stage_version": 1, "settings": {}, "inputs": {}, "work": {},
                     "counts": {"test_pairs": 4}, "facts": {"match_rate": 0.875, "verdict": "good"}},
                    self.folder(asset), [],
                ),
                self.folder(asset), was_there=False,
            )
            for asset in ("reward_model", "evaluation_report")
        }  # fmt: skip

    def folder(self, asset: str) -> Path:
        folder = self.store.folder(asset, "d1")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def recipe(self, **wandb: Any) -> Recipe:
        # An address with a password and a signature in it, as it may stand in a recipe.
        source = files(f"https://me:{KEY}@host/answers.jsonl?signature={KEY}")
        return self.bench.recipe(sampling={"kind": "recorded", "source": source}, tracking={"wandb": wandb})

    def track(self, asset: str = "reward_model", timeout_seconds: float = 60, **wandb: Any) -> dict[str, Any]:
        return Tracker(timeout_seconds=timeout_seconds).track(
            self.recipe(**wandb), self.made[asset], store=self.store, say=self.said.append, warn=self.warned.append
        )

    def assert_says_no_key(self) -> None:
        assert KEY not in " ".join(self.said + self.warned)
        assert not [f for f in self.store.home.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


@pytest.fixture
def tracked(tmp_path: Path) -> Tracked:
    return Tracked(tmp_path)


def records(folder: Path) -> dict[str, Any]:
    """Steps, configuration and summary of an offline run, as wandb reads them when it syncs."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("run-*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    found: dict[str, Any] = {"steps": [], "config": {}, "summary": {}}
    while data := store.scan_data():
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found["steps"].append(row)
        elif kind == "run":
            found["run"] = record.run
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            found["summary"] |= {
                "".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update
            }
    store.close()
    return found


def test_an_offline_run_holds_steps_configuration_and_summary(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    links = tracked.track(project="my rewards", tags=["a"])
    folder = Path(links["tracking/wandb"].value)
    assert folder.parent == tracked.store.home / "wandb" and tracked.warned == []
    assert tracked.said == [f"reward_model: W&B run in {folder}; send it with `wandb sync {folder}`"]
    found = records(folder)
    figures = [{name: step[name] for name in ("_step", "loss", "accuracy")} for step in found["steps"]]
    assert figures == [{"_step": 1, "loss": 0.75, "accuracy": 0.5}, {"_step": 2, "loss": 0.25, "accuracy": 1.0}]
    run = found["run"]
    assert (run.project, run.run_id, run.run_group, run.job_type) == ("my rewards", "reward_model-d1", "toy", "train")
    assert list(run.tags) == ["a"]
    assert found["config"]["recipe"]["training"]["learning_rate"] == 0.01
    assert found["config"]["recipe"]["sampling"]["source"]["files"] == ["https://host/answers.jsonl"]
    assert found["summary"]["match_rate"] == 0.875 and found["summary"]["num_test_pairs"] == 4
    assert links["tracking/metrics_log"].value == str(tracked.folder("reward_model") / "metrics.jsonl")
    tracked.assert_says_no_key()


def test_a_report_is_a_run_with_its_page_and_nothing_is_logged_twice(tracked: Tracked) -> None:
    first = tracked.track("evaluation_report")
    (page,) = (tracked.store.home / "wandb").glob("offline-run-*/files/media/html/report_*.html")
    assert page.read_text() == "<p>The report of <b>toy</b></p>"
    assert tracked.track("evaluation_report") == first and len(tracked.said) == 1
    assert len(list((tracked.store.home / "wandb").glob("offline-run-*"))) == 1


def test_without_wandb_in_the_recipe_nothing_is_started(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker.subprocess, "run", None)
    links = Tracker().track(
        tracked.bench.recipe(), tracked.made["reward_model"], store=tracked.store, say=print, warn=tracked.warned.append
    )
    assert links.keys() == {"tracking/metrics_log"} and tracked.warned == []


@pytest.fixture
def silent_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A service that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield


@pytest.mark.usefixtures("silent_service")
def test_a_service_that_does_not_answer_costs_the_time_that_the_recipe_says_and_one_warning(tracked: Tracked) -> None:
    started = time.monotonic()
    links = tracked.track(timeout_seconds=2, mode="online")
    assert time.monotonic() - started < 10
    assert links.keys() == {"tracking/metrics_log"}
    (warning,) = tracked.warned
    assert "[TRACKING_001]" in warning and "no answer in 2 s" in warning
    assert not (tracked.folder("reward_model") / "wandb.json").exists()  # so the next run tries again
    tracked.assert_says_no_key()


def test_a_refused_connection_is_a_warning_that_says_what_the_client_said(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracked.track(mode="online")
    (warning,) = tracked.warned
    assert "[TRACKING_001]" in warning and "AuthenticationError" in warning
    tracked.assert_says_no_key()


def test_online_without_a_key_is_a_warning_at_once(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracked.track(mode="online")
    assert "WANDB_API_KEY is not set" in tracked.warned[0]


def test_a_machine_without_wandb_gets_a_warning(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    (tracked.bench.folder / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    monkeypatch.setenv("PYTHONPATH", str(tracked.bench.folder), prepend=":")
    tracked.track()
    assert "No module named 'wandb'" in tracked.warned[0]


def test_a_run_goes_to_another_place_when_the_recipe_names_another_place(tracked: Tracked) -> None:
    tracked.track("evaluation_report", project="one")
    tracked.track("evaluation_report", project="two")
    assert len(tracked.said) == 2


RUN = """
import json
import dagster as dg
from rm_assets.definitions import defs
result = defs.resolve_job_def("build_reward_model").execute_in_process(
    partition_key="toy", asset_selection=[dg.AssetKey(a) for a in ("prompts", "sampled_responses", "gold_rewards",
    "implicit_pairs", "reward_model", "evaluation_report")], raise_on_error=False)
made = {e.asset_key.to_user_string(): e.materialization.metadata for e in result.get_asset_materialization_events()}
print(json.dumps([result.success, {a: str(m["tracking/wandb"].value) for a, m in made.items() if "tracking/wandb" in m}]))
"""


@pytest.mark.slow
def test_a_run_is_green_without_w_and_b_and_has_its_link_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.write_toy()
    save_causal(bench.folder / "recipes" / "base")
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def run(mode: str) -> tuple[bool, dict[str, str], str]:
        with_four_test_pairs = ("match_rate_is_high", "length_is_not_the_reason", "confidence_is_calibrated")
        gate = {key: {"severity": "warn"} for key in with_four_test_pairs}
        bench.recipe(tracking={"wandb": {"mode": mode}}, gate=gate)
        done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
        success, links = json.loads(done.stdout.splitlines()[-1])
        return success, links, done.stderr

    success, links, said = run("online")
    assert success, said
    assert not links and said.count("[TRACKING_001]") == 2
    success, links, said = run("offline")
    assert success and "TRACKING_001" not in said
    assert links.keys() == {"reward_model", "evaluation_report"}
    assert all(Path(folder).is_dir() for folder in links.values())
    steps = [step["_step"] for step in records(Path(links["reward_model"]))["steps"]]
    assert steps == [1, 2, 3, 4]


def test_addresses_lose_user_password_and_query() -> None:
    value = {"a": ["https://me:pw@host/x?sig=1 and s3://b/c?k=v", 1, None], "b": "plain? yes, a@b"}
    assert without_credentials("https://me:p@ss@host/x") == "https://host/x"
    assert without_credentials(value) == {"a": ["https://host/x and s3://b/c", 1, None], "b": "plain? yes, a@b"}
