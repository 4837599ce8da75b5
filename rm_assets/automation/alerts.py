"""The sensor `alerts`: what a person must know is sent to a webhook, at least once, each under a key that names it.

Everything is read from two kinds of events: runs that ended, with what was checked and made in them, and proposals of the
sensor `rebuild`. The cursor is the storage id of the last event of which all alerts were taken.
"""

import json
import os
import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any
from urllib.parse import quote

import dagster as dg

from rm_assets.automation.rebuild import PARTITION_TAG
from rm_assets.automation.webhook import Webhook
from rm_assets.core.alerts import Alert, unusual
from rm_assets.core.digests import digest
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Store

ENDS = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_CANCELED)
FIGURES = ("match_rate", "tie_rate", "expected_calibration_error", "spearman")
"""Of a report; all on a scale of about 1."""
MOST_EVENTS = 50
"""That one tick looks at."""
MOST_SECONDS = 20.0
"""After which a tick sends no more; Dagster ends one after 60."""
SECONDS_TO_SETTLE = 2.0
"""An event with a smaller storage id may still be on its way to the database beside one that is so new."""
SECONDS_AHEAD = 60.0
"""That another machine's clock may be ahead; an event from further on was written by a clock that was wrong."""
NUM_REMEMBERED = 200
"""Keys of alerts that were sent and are not sent again."""
NUM_EARLIER = 50
"""Earlier materializations that a new one is compared with."""


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends failed runs and checks, finished releases, proposals of the sensor rebuild and unusual figures of "
    "reports to the webhook RM_ASSETS_ALERT_WEBHOOK; does nothing without it.",
)
def alerts(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SensorResult | dg.SkipReason:
    """One look at what is new.

    Raises: SetupError SETUP_009, or StoreError as Registry, if nothing new could be sent; the next look tries again.
    """
    webhook = Webhook.of(os.environ)
    if webhook is None:
        return dg.SkipReason(
            "nothing is sent: set RM_ASSETS_ALERT_WEBHOOK where the code location runs (docs/automation.md)"
        )
    if context.cursor is None:
        newest = _newest(context.instance)
        said = f"from here on everything new is sent (event {newest})"
        return dg.SensorResult(cursor=_cursor(newest, []), skip_reason=dg.SkipReason(said))
    place = json.loads(context.cursor)
    sent = list[str](place["sent"])
    after, num_sent, why = _send_news(context.instance, compute.store(), webhook, int(place["after"]), sent)
    said = f"{num_sent} alerts sent, up to event {after}{why}"
    context.log.info(said)
    return dg.SensorResult(cursor=_cursor(after, sent), skip_reason=dg.SkipReason(said))


def _send_news(
    instance: dg.DagsterInstance, store: Store, webhook: Webhook, after: int, sent: list[str]
) -> tuple[int, int, str]:
    """Adds the keys of what is sent to `sent`; returns the last event of which nothing is left, how many, and what stopped it."""
    num_sent, until = 0, time.monotonic() + MOST_SECONDS
    for event in _news(instance, after):
        try:
            for alert in _alerts(instance, store, event, sent):
                if alert.key in sent:
                    continue
                if time.monotonic() > until:
                    return after, num_sent, "; the rest at the next look"
                webhook.send(alert)
                sent.append(alert.key)
                num_sent += 1
        except RmAssetsError as error:  # of the webhook, or of the store that releases are read from
            if not num_sent:
                raise  # nothing to remember
            return after, num_sent, f"; then: {error}"
        after = event.storage_id
    return after, num_sent, ""


def _cursor(after: int, sent: list[str]) -> str:
    return json.dumps({"after": after, "sent": sent[-NUM_REMEMBERED:]})


def _fetch(instance: dg.DagsterInstance, after: int | None, limit: int) -> list[dg.EventLogRecord]:
    """Up to `limit` of each kind of event: the first ones `after` an id, or without one the last."""
    how: dict[str, Any] = {"limit": limit, "ascending": after is not None}
    found: list[dg.EventLogRecord] = []
    for end in ENDS:
        of_runs = dg.RunStatusChangeRecordsFilter(end, after_storage_id=after)  # type: ignore[arg-type]
        found += instance.fetch_run_status_changes(of_runs, **how).records
    for asset in STAGES:
        of_asset = dg.AssetRecordsFilter(dg.AssetKey(asset), after_storage_id=after)
        found += instance.fetch_observations(of_asset, **how).records
    return sorted(found, key=lambda record: record.storage_id)


def _newest(instance: dg.DagsterInstance) -> int:
    return max((record.storage_id for record in _fetch(instance, None, 1)), default=0)


def _news(instance: dg.DagsterInstance, after: int) -> Iterator[dg.EventLogRecord]:
    settled = time.time() - SECONDS_TO_SETTLE
    first = _fetch(instance, after, MOST_EVENTS)[:MOST_EVENTS]
    return takewhile(lambda record: not settled < record.timestamp <= settled + SECONDS_AHEAD, first)


def _alerts(instance: dg.DagsterInstance, store: Store, event: dg.EventLogRecord, sent: list[str]) -> Iterator[Alert]:
    if event.asset_observation:
        yield from _proposal(event.asset_observation)
        return
    run = instance.get_run_by_id(event.run_id)
    if run is None:  # deleted since
        return
    what = {
        dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.STEP_FAILURE,
    }  # fmt: skip
    failures: list[dg.DagsterEvent] = []
    for record in instance.get_records_for_run(run.run_id, of_type=what).records:
        happened = record.event_log_entry.get_dagster_event()
        if happened.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            yield from _check(happened.asset_check_evaluation_data, run, sent)
        elif record.asset_materialization:
            yield from _made(instance, store, record, record.asset_materialization)
        else:
            failures.append(happened)
    if run.status == dg.DagsterRunStatus.FAILURE:
        yield _failure(run, failures, event.event_log_entry.get_dagster_event().message or "")


def _failure(run: dg.DagsterRun, failures: list[dg.DagsterEvent], message: str) -> Alert:
    """Of the run's end without a failed step, as of a worker that died, `message` is all that is known."""
    recipe = run.tags.get(PARTITION_TAG)
    code, text, step = None, message, None
    for failure in failures[:1]:
        data, step = failure.step_failure_data, failure.step_key
        if data.user_failure_data:
            named = data.user_failure_data.metadata.get("rm/error_code")
            code, text = (str(named.value) if named else None), data.user_failure_data.description or message
        elif data.error:
            text = (data.error.cause or data.error).message
    title = f"{recipe or run.job_name}: {step or 'the run'} failed" + (f" [{code}]" if code else "")
    return Alert(
        key=f"run_failed:{run.run_id}", kind="run_failed", title=title, text=text.strip(), path=f"/runs/{run.run_id}",
        recipe=recipe, asset=next((asset for asset in STAGES if step and step.startswith(asset)), None), code=code,
    )  # fmt: skip


def _check(found: dg.AssetCheckEvaluation, run: dg.DagsterRun, sent: list[str]) -> Iterator[Alert]:
    """A failure is sent once, until it says something else or the check has passed since."""
    asset, recipe, text = found.asset_key.to_user_string(), run.tags.get(PARTITION_TAG), found.description or ""
    name = f"check_failed:{asset}:{found.check_name}:{recipe}:"
    if found.passed:
        sent[:] = [key for key in sent if not key.startswith(name)]
        return
    yield Alert(
        key=f"{name}{digest(text)[:12]}", kind="check_failed",
        title=f"{recipe or asset}: check {found.check_name} failed", text=f"{found.severity.value} of {asset}: {text}",
        path=f"/runs/{run.run_id}", recipe=recipe, asset=asset,
    )  # fmt: skip


def _made(
    instance: dg.DagsterInstance, store: Store, record: dg.EventLogRecord, made: dg.AssetMaterialization
) -> Iterator[Alert]:
    """Of a release and a report that no earlier materialization has shown."""
    asset, recipe = made.asset_key.to_user_string(), made.partition
    if asset not in ("hub_release", "evaluation_report") or recipe is None:
        return
    of_recipe = dg.AssetRecordsFilter(made.asset_key, [recipe], before_timestamp=record.timestamp)
    before = instance.fetch_materializations(of_recipe, limit=NUM_EARLIER).records
    earlier = {_value(each.asset_materialization, "digest"): each.asset_materialization for each in before}
    name = str(_value(made, "digest"))
    if name in earlier:
        return
    about: dict[str, Any] = {"path": f"/assets/{asset}?partition={quote(recipe)}", "recipe": recipe, "asset": asset}
    if asset == "hub_release":
        release = next((r for r in Registry(store).releases() if (r.line, r.digest) == (recipe, name)), None)
        if release is not None:  # a smoke run's is not registered
            rate = release.match_rate
            text = "match rate {value:.3f} ({low:.3f} to {high:.3f})".format(**rate)
            title = f"{recipe}: released as {release.name}"
            yield Alert(key=f"released:{release.name}", kind="released", title=title, text=text, **about)
        return
    found = unusual(_figures(made), [_figures(each) for each in earlier.values() if each])
    for figure, text in found.items():
        key, title = f"figure_unusual:{recipe}:{figure}:{name[:12]}", f"{recipe}: {figure} is out of its usual range"
        yield Alert(key=key, kind="figure_unusual", title=title, text=text, **about)


def _figures(made: dg.AssetMaterialization) -> dict[str, float]:
    found = {name: _value(made, name) for name in FIGURES}
    return {name: float(value) for name, value in found.items() if isinstance(value, float | int)}


def _value(made: dg.AssetMaterialization | None, name: str) -> Any:
    value = made.metadata.get(f"rm/{name}") if made else None
    return value.value if value else None


def _proposal(seen: dg.AssetObservation) -> Iterator[Alert]:
    if "proposal" not in seen.metadata:  # an observation of something else
        return
    asset, recipe = seen.asset_key.to_user_string(), str(seen.partition)
    said = {name: str(value.value) for name, value in seen.metadata.items()}
    text = f"{said['proposal']}: {said['why']}. Not started: {said['not_started_because']}. To accept: {said['accept']}"
    yield Alert(
        key=f"rebuild_proposed:{recipe}:{digest(said)[:12]}", kind="rebuild_proposed", text=text, recipe=recipe,
        title=f"{recipe}: a rebuild from {asset} on is proposed", asset=asset,
        path=f"/assets/{asset}?partition={quote(recipe)}",
    )  # fmt: skip
