"""Schedules, all stopped until somebody starts them: each of them spends or removes something. Times are UTC."""

import dagster as dg

from rm_assets.automation.jobs import build_reward_model, compare_with_production, prune_store
from rm_assets.automation.rebuild import look
from rm_assets.core.errors import RmAssetsError
from rm_assets.resources.compute import Compute
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.lineage import committed
from rm_assets.storage.registry import Registry

Requests = list[dg.RunRequest] | dg.SkipReason


@dg.schedule(
    job=compare_with_production,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Each recipe's model of now against its release in production, on the recipe's test responses of now.",
)
def nightly_comparison(context: dg.ScheduleEvaluationContext, compute: Compute) -> Requests:
    """One comparison for each recipe with a release in production, also where that is its model: so it is known each day."""
    store, said, requests = compute.store(), list[str](), list[dg.RunRequest]()
    registry, book = Registry(store), recipe_book()
    for key in book.partition_keys():
        if "production" not in registry.aliases(key):
            continue
        try:
            model = committed(store, book.load(key), "reward_model")
        except RmAssetsError as error:
            said.append(f"{key}: [{error.code}] {error.what}")
            continue
        if model is None:
            said.append(f"{key}: its model has not been made as the recipe wants it now")
        else:
            config = {"on": key, "models": [key, f"{key}@production"]}
            requests.append(
                dg.RunRequest(
                    run_key=f"{key} {context.scheduled_execution_time:%Y-%m-%d}",
                    run_config={"ops": {"model_comparison": {"config": config}}},
                )
            )
    return requests or dg.SkipReason("; ".join(said) or "no recipe has a release in production")


@dg.schedule(
    job=build_reward_model,
    cron_schedule="0 4 * * 0",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Asks once more for what is out of date of recipes with `automation.rebuild: auto`, also where the sensor "
    "rebuild has given up; not for what is above the ceiling or was cancelled.",
)
def weekly_rebuild(context: dg.ScheduleEvaluationContext, compute: Compute) -> Requests:
    """One run for each such recipe."""
    said, requests = list[str](), list[dg.RunRequest]()
    for key, found in look(context.instance, compute.store(), said):
        if found is None:
            continue
        if found.decision.action == "propose" or (found.tries and found.tries[-1].status == "cancelled"):
            said.append(f"{key}: {found.decision.why}")
            continue
        requests.append(found.request(f"{context.scheduled_execution_time:%Y-%m-%d}"))
    return requests or dg.SkipReason("; ".join(said) or "every recipe is up to date")


retention = dg.ScheduleDefinition(
    name="retention",
    job=prune_store,
    cron_schedule="0 5 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Removes results older than 30 days that no recipe and no release needs, as `rm-assets prune --apply` does.",
)
