"""The rebuild sensor: one run for each recipe that is out of date, with the assets that are, in the order of the graph.

It compares what a recipe wants with what is committed, so it starts nothing after a run without the daemon, asks for
the tail once when several things have changed, and asks again for what failed.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from rm_assets.automation.jobs import build_reward_model
from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError, RmAssetsError
from rm_assets.core.planning.recipe_plan import operations_left
from rm_assets.core.rebuilding import Decision, Try, decide
from rm_assets.core.recipe import Recipe
from rm_assets.resources.compute import AIM_TAG, Compute
from rm_assets.resources.known import find_known
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.recipes import keys_in_use, recipe_book
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.outdated import Outdated, aim, find_outdated, reasons
from rm_assets.storage.source_files import matching_files
from rm_assets.storage.store import Store

SECONDS_TO_SETTLE = 10.0
"""A source file that was changed so lately may still be written."""
SECONDS_AHEAD = 24 * 3600.0
"""That a file may be dated after now by another machine's clock or time zone; a later date is a wrong one."""
MOST_AT_ONCE = 4
"""Unfinished runs of this sensor. An instance without a queue starts at once whatever it is asked for."""
STATE_TAG = "rm_assets/state"
PARTITION_TAG = "dagster/partition"
STARTED_AGAIN_TAG = "dagster/auto_retry_run_id"


_PLANNED: dict[str, float] = {}
"""Operations by recipe, aim and state: a plan reads the rows of its files, which is too much for every look."""


@dataclass(frozen=True)
class Finding:
    """A recipe that is out of date, and what is done about it. `aim` is that of its work, empty unless it is automatic."""

    recipe: Recipe
    outdated: Outdated
    decision: Decision
    tries: list[Try]
    aim: str

    def request(self, name: str | int) -> dg.RunRequest:
        """A run that makes it, once under each name."""
        key, state = self.recipe.name, self.outdated.state
        return dg.RunRequest(
            run_key=f"{key} {self.aim} {state} {name}",
            partition_key=key,
            asset_selection=[dg.AssetKey(asset) for asset in self.outdated.to_run],
            tags={STATE_TAG: state, AIM_TAG: self.aim},
        )


@dg.sensor(
    job=build_reward_model,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes what is out of date of recipes with `automation.rebuild: auto`, and proposes it for the others "
    "(an observation of the asset): accept a proposal by materializing its partition, or by `rm-assets run RECIPE`.",
)
def rebuild(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SensorResult:
    """One look at all recipes."""
    store, proposed = compute.store(), json.loads(context.cursor or "{}")
    requests: list[dg.RunRequest] = []
    observations: list[dg.AssetObservation] = []
    said: list[str] = []
    now_proposed: dict[str, str] = {}
    room = MOST_AT_ONCE - _num_unfinished(context.instance)
    for key, found in look(context.instance, store, said):
        if found is None:
            now_proposed |= {key: proposed[key]} if key in proposed else {}
            continue
        first, state = found.outdated.assets[0], found.outdated.state
        is_late = found.decision.action == "launch" and len(requests) >= room
        why = f"after other runs ({MOST_AT_ONCE} at once)" if is_late else found.decision.why
        said.append(f"{key}: {'wait' if is_late else found.decision.action} from {first} on, {why}")
        if found.decision.action == "launch" and not is_late:
            requests.append(found.request(len(found.tries)))
        elif found.decision.action == "propose":
            now_proposed[key] = state
            if proposed.get(key) != state:
                observations.append(_proposal(store, key, found))
    # Everything is looked at every time, so the sentences of this look are all there is to say.
    for line in said:
        context.log.info(line)
    return dg.SensorResult(
        run_requests=requests,
        asset_events=observations,
        cursor=json.dumps(now_proposed),
        skip_reason=None if requests else dg.SkipReason("; ".join(said) or "every recipe is up to date"),
    )


def _num_unfinished(instance: dg.DagsterInstance) -> int:
    mine = {"dagster/sensor_name": rebuild.name}
    return instance.get_runs_count(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES), tags=mine))


def look(instance: dg.DagsterInstance, store: Store, said: list[str]) -> Iterator[tuple[str, Finding | None]]:
    """Every recipe that is out of date; None for one that is being made, or cannot be judged, and why is `said`.

    A recipe that ships with the package is left alone until something of it has been made.
    """
    busy = {
        run.tags.get(PARTITION_TAG) for run in instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))
    }
    book = recipe_book()
    keys, there = set(RECIPES.get_partition_keys()), book.partition_keys()
    if new := [key for key in there if key not in keys]:
        said.append(f"new: {', '.join(new)}; reload the code location to see them")
    fingerprint = cache(settled(Fingerprints(store.home / "fingerprints").of))
    for key in keys_in_use(book, store):
        if key not in keys:
            continue
        if key in busy:
            yield key, None
            continue
        try:
            found = _judge(instance, store, book.load(key), fingerprint)
        except RmAssetsError as error:
            said.append(f"{key}: [{error.code}] {error.what}")
            yield key, None
            continue
        if found is not None:
            yield key, found


def _judge(
    instance: dg.DagsterInstance, store: Store, recipe: Recipe, fingerprint: Callable[[str], str]
) -> Finding | None:
    if recipe.automation.rebuild == "off" or (found := find_outdated(store, recipe, fingerprint)) is None:
        return None
    tries, named, operations = list[Try](), "", None
    if recipe.automation.rebuild == "auto":
        named = aim(recipe, fingerprint)
        tries = tries_of(instance, recipe.name, named, found.state)
        if recipe.automation.max_operations is not None:
            operations = _operations(store, recipe, [named, found.state])
    decision = decide(recipe.automation, tries, operations=operations, now=time.time())
    return Finding(recipe, found, decision, tries, named)


def _operations(store: Store, recipe: Recipe, work: list[str]) -> float | None:
    key = digest([recipe.model_dump(mode="json"), work])
    if key not in _PLANNED:
        planned = operations_left(recipe, find_known(recipe, None, [], store))
        if planned is None:  # it may be known at the next look
            return None
        _PLANNED[key] = planned
    return _PLANNED[key]


def settled(fingerprint: Callable[[str], str]) -> Callable[[str], str]:
    """The fingerprint of files that are not being written. Raises: DataError DATA_002 of one that may be."""

    def of(location: str) -> str:
        for file in matching_files(location):
            changed = (file.stamp() or {}).get("mtime_ns")
            if changed is not None and -SECONDS_AHEAD < time.time() - changed / 1e9 < SECONDS_TO_SETTLE:
                raise DataError("DATA_002", f"{file.label} may still be written", fix="nothing: the sensor looks again")
        return fingerprint(location)

    return of


def tries_of(instance: dg.DagsterInstance, key: str, named: str, state: str) -> list[Try]:
    """The finished runs for this aim and state of a recipe, in the order in which they ended.

    The last one for the aim counts whoever started it and however far it came, if it was cancelled or refused. Of a run that
    Dagster has started again, since its process died, only the last one counts: each went on where it was.
    """
    records = instance.get_run_records(dg.RunsFilter(tags={AIM_TAG: named, PARTITION_TAG: key}))
    ended = [
        (record.end_time, record.dagster_run)
        for record in records
        if record.end_time is not None and STARTED_AGAIN_TAG not in record.dagster_run.tags
    ]
    ended.sort(key=lambda pair: pair[0])
    tries = [_try(instance, run, end) for end, run in ended if run.tags.get(STATE_TAG) == state]
    if ended and ended[-1][1].tags.get(STATE_TAG) != state:
        end, run = ended[-1]
        last = _try(instance, run, end)
        tries += [last] if last.is_last_word else []
    return tries


def _try(instance: dg.DagsterInstance, run: dg.DagsterRun, ended_at: float) -> Try:
    if run.status == dg.DagsterRunStatus.SUCCESS:
        return Try("done", ended_at)
    if run.status == dg.DagsterRunStatus.CANCELED:
        return Try("cancelled", ended_at)
    failures = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for record in failures:
        event = record.event_log_entry.dagster_event
        cause = event.step_failure_data if event else None
        if cause and cause.user_failure_data and "rm/error_code" in cause.user_failure_data.metadata:
            return Try("failed", ended_at, str(cause.user_failure_data.metadata["rm/error_code"].value))
        if cause and cause.error and cause.error.cls_name == "DagsterAssetCheckFailedError":
            return Try("refused", ended_at)
    return Try("failed", ended_at)


def _proposal(store: Store, key: str, found: Finding) -> dg.AssetObservation:
    why = reasons(store, found.recipe, found.outdated)
    return dg.AssetObservation(
        asset_key=found.outdated.assets[0],
        partition=key,
        description=f"out of date: {'; '.join(why)}",
        metadata={
            "proposal": f"make {', '.join(found.outdated.assets)}",
            "why": "; ".join(why),
            "not_started_because": found.decision.why,
            "accept": f"materialize the partition {key} of job build_reward_model, or run `rm-assets run {key}`",
        },
    )
