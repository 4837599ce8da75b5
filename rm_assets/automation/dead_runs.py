"""The sensor of dead runs: a run whose process is gone is reported as failed, so that what waits for it goes on."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg

from rm_assets.automation.jobs import build_reward_model
from rm_assets.core.errors import TaskError
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.heartbeat import heartbeat_file, heartbeat_files, missing_sign_of_life

SECONDS_TO_FIRST_BEAT = 300.0
"""A run of ours that says for so long that it works, and never had a heartbeat, is dead."""


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs as failed (as cancelled, if that was asked for) whose process has died: its heartbeat has stopped. "
    "What they committed stays, and the next run goes on from there.",
)
def dead_runs(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SkipReason:
    """One look at all runs that say that they work."""
    said = []
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for record in context.instance.get_run_records(dg.RunsFilter(statuses=statuses)):
        why = _why_dead(record, time.time())
        run = context.instance.get_run_by_id(record.dagster_run.run_id)
        if why is None or run is None or run.is_finished:  # it may have ended between the two looks
            continue
        error = TaskError("TASK_004", "the process of this run has died", why=why, fix="run again: it resumes")
        if run.status == dg.DagsterRunStatus.CANCELING:
            context.instance.report_run_canceled(run, str(error))
        else:
            context.instance.report_run_failed(run, str(error))
        said.append(f"{run.run_id}: {why}")
    for run_id, file in heartbeat_files(compute.store().home):
        ended = context.instance.get_run_by_id(run_id)
        if ended is not None and ended.is_finished:
            if missing_sign_of_life(file, ended.tags, time.time()):
                _end_followers_of_its_log(run_id)
            file.unlink(missing_ok=True)
    return dg.SkipReason("; ".join(said) or "no run has died")


def _end_followers_of_its_log(run_id: str) -> None:
    """Ends each `tail` by which Dagster followed a run's output here; one killed while it began to leaves them without an end."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            command, _, arguments = (process / "cmdline").read_bytes().partition(b"\0")
            if command.rpartition(b"/")[2] == b"tail" and f"/{run_id}/compute_logs/".encode() in arguments:
                os.kill(int(process.name), signal.SIGTERM)


def _why_dead(record: dg.RunRecord, now: float) -> str | None:
    run = record.dagster_run
    if file := heartbeat_file(run):
        return missing_sign_of_life(file, run.tags, now)
    seconds = now - (record.start_time or record.create_timestamp.timestamp())
    is_late = _is_ours(run) and seconds > SECONDS_TO_FIRST_BEAT
    return f"it has had no heartbeat in {seconds:.0f} s" if is_late else None


def _is_ours(run: dg.DagsterRun) -> bool:
    """Whether it is a run of recipes: other code may share the instance."""
    assets = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == build_reward_model.name or bool(assets and assets <= set(STAGES))
