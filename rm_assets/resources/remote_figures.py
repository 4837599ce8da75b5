"""Figures of a training that works elsewhere, kept here while they come in: monitor, TensorBoard and W&B look for them here."""

from collections.abc import Callable
from typing import Any

from rm_assets.core.recipe import Recipe
from rm_assets.executors.output import OnEvent, TaskEnd
from rm_assets.storage.metrics_log import METRICS_LOG, MetricsLog
from rm_assets.storage.store import Store
from rm_assets.tasks.event_files import EventFiles


def keep_figures(
    run: Callable[[OnEvent], TaskEnd], hear: OnEvent, store: Store, recipe: Recipe, request: dict[str, Any]
) -> TaskEnd:
    """Runs a task, and writes what it would write beside its asset if it worked here.

    That is the metrics log, and TensorBoard's files where the recipe asks for them. Of several processes of this machine that
    wait for the same task one does. A task that another has begun is heard from its first line on, where its engine keeps them.
    """
    asset, of_digest = request["asset"], request["digest"]
    if store.is_heard(asset, of_digest):
        return run(hear)
    folder = store.home / asset / of_digest
    about = {"recipe": recipe.name, "asset": asset, "digest": of_digest, "run_id": request["run_id"]}
    log, error = MetricsLog(folder / METRICS_LOG, **about), None
    events = [EventFiles(store.event_files(recipe.name, of_digest))] if recipe.tracking.tensorboard else []

    def keep(event: dict[str, Any]) -> None:
        nonlocal error
        if event["event"] == "training":
            folder.mkdir(parents=True, exist_ok=True)
            log.training_begins(event["num_steps"], event["device"])
        elif event["event"] == "metrics":
            log.metrics(event["step"], event["values"])
            for each in events:
                each.metrics(event["step"], event["values"])
        elif event["event"] == "error":
            error = event["error"]["what"]
        hear(event)

    with store.hearing(asset, of_digest):
        try:
            end = run(keep)
        except Exception as failure:
            log.ended(str(failure) or repr(failure))
            raise
        if end.status == 0 or error:  # one that was killed has no last word
            log.ended(error)
    return end
