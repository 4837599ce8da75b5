"""A run whose process has died: it is told from one that works, reported, asked for again, and goes on where it was."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest

from rm_assets.automation import dead_runs as module
from rm_assets.automation import rebuild as rebuild_module
from rm_assets.automation.dead_runs import dead_runs
from rm_assets.automation.rebuild import rebuild
from rm_assets.resources import heartbeat
from rm_assets.resources.compute import Compute
from rm_assets.resources.heartbeat import ALIVE_TAG, HEARTBEAT_TAG, HOST_TAG, Process, missing_sign_of_life
from rm_assets.storage.files import write_json
from rm_assets_tests.tasks.conftest import Bench

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys, dagster as dg
from rm_assets.definitions import defs
with dg.DagsterInstance.get() as instance:
    defs.resolve_job_def("build_reward_model").execute_in_process(
        instance=instance, partition_key="toy", tags=json.loads(sys.argv[1]),
        asset_selection=[dg.AssetKey(asset) for asset in ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")],
    )
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as there:
        yield there


@pytest.fixture
def shared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, and where recipes and results lie, for this process and those that it starts."""
    bench.write_toy(100)
    monkeypatch.setenv("RM_ASSETS_FORK_TASKS", "off")  # no task of these runs needs what takes long to import
    bench.recipe(automation={"rebuild": "auto"})
    (bench.folder / "recipes" / "base").mkdir()
    monkeypatch.setenv("RM_ASSETS_RECIPES", str(bench.folder / "recipes"))
    monkeypatch.setenv("RM_ASSETS_HOME", str(bench.home))
    monkeypatch.setenv("DAGSTER_HOME", str(bench.folder / "dagster"))
    (bench.folder / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", bench.folder / "dagster")
    with dg.DagsterInstance.get() as there:
        yield there


@dg.op
def does_nothing(compute: Compute) -> None:
    """For the heartbeat alone."""


@dg.job(executor_def=dg.in_process_executor)
def uses_compute() -> None:
    """One step."""
    does_nothing()


def start(tags: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(tags)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def look(instance: dg.DagsterInstance, home: str = "none") -> str:
    with dg.build_sensor_context(instance=instance, resources={"compute": Compute(home=home)}) as context:
        result = dead_runs(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def begun(instance: dg.DagsterInstance, name: str, tags: dict[str, str] | None = None) -> dg.DagsterRun:
    """A run that says that it works; nobody works on it."""
    job = dg.JobDefinition(name=name, graph_def=dg.GraphDefinition(name=name))
    run = instance.create_run_for_job(job, tags=tags)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name=name)
    instance.report_dagster_event(event, run_id=run.run_id)
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status.value


@pytest.mark.slow
def test_a_run_that_was_killed_is_reported_and_asked_for_again_and_resumes(
    bench: Bench, shared: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "SECONDS_TO_SETTLE", 0.0)
    monkeypatch.setattr(rebuild_module, "RECIPES", dg.StaticPartitionsDefinition(["toy"]))

    def asked() -> list[dg.RunRequest]:
        with dg.build_sensor_context(instance=shared, resources={"compute": Compute()}) as context:
            result = rebuild(context)
        assert isinstance(result, dg.SensorResult)
        return list(result.run_requests or [])

    (request,) = asked()
    tags = {rebuild_module.PARTITION_TAG: "toy", **request.tags}
    process = start(tags)
    while not list(bench.home.glob("gold_rewards/*/manifest.json")):
        assert process.poll() is None
        time.sleep(0.01)
    assert look(shared) == "no run has died" and asked() == []
    process.kill()
    process.communicate()
    before = bench.manifests()
    (run,) = shared.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED and Path(run.tags[HEARTBEAT_TAG]).is_file()
    assert look(shared, str(bench.home)).startswith(f"{run.run_id}: process {process.pid} is gone")
    (event,) = shared.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    assert "[TASK_004] the process of this run has died" in event.event_log_entry.message
    assert list((bench.home / "heartbeats").iterdir()) == [] and look(shared) == "no run has died"

    (request,) = asked()  # at once, since it has come further than the state it was asked for with
    # Behind what was committed, whose checks may not have looked.
    assert [key.to_user_string() for key in request.asset_selection or ()][:2] == ["gold_rewards", "implicit_pairs"]
    again = start({rebuild_module.PARTITION_TAG: "toy", **request.tags})
    said = again.communicate()[1]
    assert again.returncode == 0
    assert [line.count("starts") for line in said.splitlines() if ": task " in line] == [1]
    assert before.items() < bench.manifests().items()
    assert look(shared, str(bench.home)) == "no run has died" and list((bench.home / "heartbeats").iterdir()) == []


def test_a_run_that_was_being_cancelled_is_reported_as_cancelled(instance: dg.DagsterInstance) -> None:
    run = begun(instance, "build_reward_model")
    instance.add_run_tags(run.run_id, {HEARTBEAT_TAG: f"{run.run_id}.json", HOST_TAG: socket.gethostname()})
    instance.report_run_canceling(run)
    assert f"{run.run_id}.json is gone" in look(instance)
    assert status(instance, run) == "CANCELED"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
def test_what_followed_the_output_of_a_dead_run_ends_with_it(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Dagster starts `tail` for a run's output, and then what ends it after the run; a kill between the two leaves a `tail`."""
    dead, other = (begun(instance, "build_reward_model") for _ in range(2))
    file = tmp_path / "heartbeats" / f"{dead.run_id}.json"
    write_json(file, asdict(Process(heartbeat._place(), 2**22 + 1, "1")))
    instance.add_run_tags(dead.run_id, {HEARTBEAT_TAG: str(file)})
    followers = []
    for run in (dead, other):
        log = tmp_path / run.run_id / "compute_logs" / "abc.err"
        log.parent.mkdir(parents=True)
        log.touch()
        followers.append(subprocess.Popen(["tail", "-F", "-c", "+0", str(log)]))
    try:
        assert "process 4194305 is gone" in look(instance, str(tmp_path))
        assert followers[0].wait(10) == -signal.SIGTERM and followers[1].poll() is None
    finally:
        for each in followers:
            each.kill()
            each.wait()


def test_a_run_whose_heartbeat_cannot_be_seen_from_here_is_judged_by_its_tag(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another machine that keeps a cache of the same bucket, or of another user."""
    of_another, of_nobody = begun(instance, "build_reward_model"), begun(instance, "build_reward_model")
    now = time.time()
    tags = {HEARTBEAT_TAG: f"{of_another.run_id}.json", HOST_TAG: "elsewhere", ALIVE_TAG: f"{now:.0f}"}
    instance.add_run_tags(of_another.run_id, tags)
    (tmp_path / "file").touch()  # reading below it fails, and not since something is missing
    instance.add_run_tags(of_nobody.run_id, {HEARTBEAT_TAG: str(tmp_path / "file" / f"{of_nobody.run_id}.json")})
    for later, said in (
        (0, "no run has died"),
        (3590, "no run has died"),
        (3610, f"{of_another.run_id}: no sign of life for 361"),
    ):
        monkeypatch.setattr(module.time, "time", lambda now=now + later: now)
        assert look(instance).startswith(said)
    assert (status(instance, of_another), status(instance, of_nobody)) == ("FAILURE", "STARTED")


def test_a_run_that_writes_how_it_ended_still_has_its_heartbeat(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look in this moment finds a run that says it works."""
    looks, real = [], dg.DagsterInstance.handle_new_event

    def look_first(of: dg.DagsterInstance, event: dg.EventLogEntry, **options: object) -> None:
        if event.is_dagster_event and event.get_dagster_event().message.startswith("Finished steps"):
            looks.append(look(of, str(tmp_path)))
        real(of, event, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", look_first)
    ended = uses_compute.execute_in_process(
        instance=instance, resources={"compute": Compute(home=str(tmp_path))}, raise_on_error=False
    )
    assert looks == ["no run has died"] and status(instance, ended.dagster_run) == "SUCCESS"


def test_a_run_that_is_started_again_is_not_judged_by_the_heartbeat_of_the_one_before(
    instance: dg.DagsterInstance,
) -> None:
    begun(instance, "build_reward_model", {HEARTBEAT_TAG: "the-one-before.json"})
    assert look(instance) == "no run has died"


def test_a_run_without_a_heartbeat_has_some_minutes_and_one_of_other_code_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = begun(instance, "build_reward_model"), begun(instance, "other")
    later = time.time()
    monkeypatch.setattr(module.time, "time", lambda: later + 290)
    assert look(instance) == "no run has died"
    monkeypatch.setattr(module.time, "time", lambda: later + 310)
    assert "it has had no heartbeat in 31" in look(instance)
    assert (status(instance, ours), status(instance, other)) == ("FAILURE", "STARTED")


@pytest.mark.parametrize(
    ("process", "age", "why"),
    [
        (Process(heartbeat._place(), os.getpid(), str(heartbeat._started(os.getpid()))), 9_999, None),
        (Process(heartbeat._place(), os.getpid(), "1"), 0, "is gone"),  # its number is another's by now
        (Process("elsewhere boot", os.getpid(), "1"), 119, None),
        (Process("elsewhere boot", 7, "1"), 121, "no heartbeat for 121 s of process 7 on elsewhere"),
    ],
)  # fmt: skip
def test_a_process_is_looked_for_on_its_machine_and_judged_by_its_heartbeat_elsewhere(
    process: Process, age: float, why: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "heartbeat"
    file.write_text(json.dumps(asdict(process)))
    said = missing_sign_of_life(file, {}, file.stat().st_mtime + age)
    assert said == why or (said and why and why in said)


def test_a_heartbeat_goes_on_until_its_end_and_sweeps_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster").mkdir()
    instance = dg.DagsterInstance.local_temp(str(tmp_path / "dagster"))  # one in memory is locked for a second thread
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0.01)
    old, run = tmp_path / "heartbeats" / "old.json", begun(instance, "build_reward_model")
    old.parent.mkdir()
    old.write_text("{}")
    os.utime(old, (1, 1))
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_TAGS", 0.01)

    def alive_at() -> str:
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.tags[ALIVE_TAG]

    with heartbeat.beating(tmp_path, run.run_id, instance):
        instance.add_run_tags(run.run_id, {ALIVE_TAG: "0"})
        (file,) = old.parent.iterdir()
        os.utime(file, (1, 1))
        end = time.monotonic() + 10
        while (file.stat().st_mtime < 2 or alive_at() == "0") and time.monotonic() < end:
            time.sleep(0.01)
        assert float(alive_at()) > time.time() - 10
        assert file.stat().st_mtime > time.time() - 10
    assert list(old.parent.iterdir()) == [file]  # until the run is seen to have ended


def test_a_cancelled_run_that_nobody_interrupts_interrupts_itself(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0.05)
    run = begun(instance, "build_reward_model")
    instance.report_run_canceling(run)
    with pytest.raises(KeyboardInterrupt), heartbeat.beating(tmp_path, run.run_id, instance):
        time.sleep(10)
