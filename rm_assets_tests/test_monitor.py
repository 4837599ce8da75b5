"""`rm-assets monitor`: which trainings it shows, what of them, and what it exports."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from rm_assets.cli.monitor import Watched, select, watch
from rm_assets.cli.monitor_view import sparkline, view
from rm_assets.core.errors import StoreError
from rm_assets.storage.metrics_log import MetricsLog, Run
from rm_assets.storage.store import Store

RECORD = {
    "asset": "reward_model", "recipe": "r", "stage_version": 1, "settings": {}, "inputs": {}, "counts": {}, "work": {},
}  # fmt: skip
TRAIN = """
import sys
from pathlib import Path
from rm_assets.storage.metrics_log import MetricsLog
from rm_assets.storage.store import Store
store = Store(Path(sys.argv[1]))
log = MetricsLog(store.folder("reward_model", "live") / "metrics.jsonl", recipe="new", asset="reward_model", digest="live", run_id="")
with store.lease("reward_model", "live"), log.ending():
    log.training_begins(3, "cpu")
    for step in (1, 2, 3):
        print("step", flush=True)
        sys.stdin.readline()
        log.metrics(step, {"loss": 1 / step, "accuracy": 0.5, "eta_seconds": 61.0})
    print("over", flush=True)
    sys.stdin.readline()
"""


def trained(
    store: Store, recipe: str, digest: str, losses: list[float], *, num_steps: int = 4, is_made: bool = True
) -> Path:
    """A training with these losses that is over, or was killed."""
    folder = store.folder("reward_model", digest)
    folder.mkdir(parents=True)
    log = MetricsLog(folder / "metrics.jsonl", recipe=recipe, asset="reward_model", digest=digest, run_id="run")
    log.training_begins(num_steps, "cpu")
    for step, loss in enumerate(losses, 1):
        log.metrics(step, {"loss": loss, "accuracy": 0.75, "margin": 1.5, "learning_rate": 1e-5, "eta_seconds": 1.0})
    if is_made:
        store.commit(RECORD | {"digest": digest}, folder, [])
    return folder / "metrics.jsonl"


def shown(runs: Watched, width: int = 100, now: datetime | None = None) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view(runs, width, now))
    return console.export_text()


def test_two_runs_stand_side_by_side_with_their_figures(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trained(store, "one", "a1", [0.7, 0.6, 0.5, 0.25])
    trained(store, "two", "b2", [0.9, 0.8], is_made=False)
    lines = shown(select(store, [])).splitlines()
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:4]] for line in lines if "│" in line
    }
    assert rows["run"] == ["reward_model a1", "reward_model b2"]
    assert rows["state"] == ["finished", "interrupted"]
    assert rows["step"] == ["4 of 4", "2 of 4"]
    assert rows["loss"] == ["0.2500", "0.8000"]
    assert rows["margin"] == ["1.500", "1.500"] and rows["learning rate"] == ["1.00e-05", "1.00e-05"]
    assert "time left" not in rows and "valid loss" not in rows  # none of the two has them


@pytest.mark.parametrize("width", [28, 40, 60, 110, 250])
def test_no_line_is_wider_than_the_terminal_and_no_run_is_lost(tmp_path: Path, width: int) -> None:
    store = Store(tmp_path)
    for name in ("alpha", "beta", "gamma", "delta"):
        trained(store, name, name * 8, [0.5] * 100, num_steps=100, is_made=False)
    text = shown(select(store, [], all_runs=True), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert all(name in text for name in ("alpha", "beta", "gamma", "delta"))


def test_a_sparkline_has_a_bar_for_each_value_and_the_mean_of_each_stretch() -> None:
    assert sparkline([0, 7], 10) == "▁█"
    assert sparkline([0, 2, 7, 7, 3, 4], 3) == "▁█▄"  # means 1, 7, 3.5; 2.5 / 6 * 7 is 2.9
    assert sparkline([3, 3], 2) == "▁▁" and sparkline([], 5) == ""


def test_a_recipe_is_its_newest_run_of_each_seed_and_a_digest_is_one_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for recipe, digest in (("r@1", "aa1"), ("r@2", "bb1"), ("r@1", "aa2"), ("other", "cc1")):
        trained(store, recipe, digest, [0.5])

    def digests(*names: str, all_runs: bool = False) -> list[str]:
        return [run.digest for run, _ in select(store, names, all_runs=all_runs)]

    assert digests("r") == ["bb1", "aa2"] and digests("r@1") == ["aa2"]
    assert digests("aa1", "other") == ["aa1", "cc1"]
    assert digests() == ["bb1", "aa2", "cc1"] and len(digests(all_runs=True)) == 4
    with pytest.raises(StoreError, match=r"(?s)no training of 'nope'.*other, r@1, r@2") as caught:
        digests("nope")
    assert caught.value.code == "STORE_002"


def test_a_run_that_another_process_writes_is_followed_to_its_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder("reward_model", "live").mkdir(parents=True)
    writer = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None and writer.stdout is not None
    writer.stdout.readline()
    seen: list[tuple[str, int]] = []

    def look() -> Watched:
        """One step of the writer between two looks."""
        runs = select(store, [])
        ((run, state),) = runs
        seen.append((state, len(run.steps)))
        if state == "running":
            print(file=writer.stdin, flush=True)
            if writer.stdout and not writer.stdout.readline():
                writer.wait()
        return runs

    out = io.StringIO()
    with writer:
        watch(look, follow=None, console=Console(file=out, force_terminal=True, width=80), seconds_between_looks=0)
    assert seen == [("running", 0), ("running", 1), ("running", 2), ("running", 3), ("finished", 3)]
    assert "first step to come" in out.getvalue() and "1 min 01 s" in out.getvalue() and "3 of 3" in out.getvalue()


def test_a_run_that_says_nothing_any_more_is_marked(tmp_path: Path) -> None:
    run = Run("r", "reward_model", "d", "", "cpu", 4, "2026-01-01T00:00:00+00:00")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert "silent" not in shown([(run, "running")], now=now + timedelta(seconds=60))
    assert "silent 1 min 01 s" in shown([(run, "running")], now=now + timedelta(seconds=61))
    assert "silent" not in shown([(run, "interrupted")], now=now + timedelta(hours=1))


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", "import sys; from rm_assets.cli.main import main; main()", "monitor"]


def test_the_command_prints_once_into_a_pipe_and_exports_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("RM_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")

    def monitor(*arguments: str) -> str:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert "no training has begun" in monitor()
    store = Store(tmp_path / "home")
    logs = [trained(store, "one", "a1", [0.7, 0.6]), trained(store, "two", "b2", [0.9, 0.8, 0.7])]
    text = monitor("one", "two")
    assert "one" in text and "two" in text and "finished" in text

    written = [[json.loads(line) for line in file.read_text().splitlines()] for file in logs]
    steps = [[{k: v for k, v in e.items() if k != "event"} for e in log if e["event"] == "step"] for log in written]
    exported = json.loads(monitor("--json"))
    assert [(run["recipe"], run["state"], run["steps"]) for run in exported] == [
        ("one", "finished", steps[0]), ("two", "finished", steps[1]),
    ]  # fmt: skip
    assert "5 rows written" in monitor("--csv", "steps.csv")
    with open(tmp_path / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == ["one", "one", "two", "two", "two"]
    back = [{name: row[name] if name == "time" else float(row[name]) for name in steps[0][0]} for row in rows]
    assert back == steps[0] + steps[1]
