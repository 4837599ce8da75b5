"""Jobs over the asset graph, and the one that prunes the store."""

import dagster as dg
from pydantic import Field

from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.retention import plan_retention, prune

build_reward_model = dg.define_asset_job(
    "build_reward_model",
    selection=dg.AssetSelection.assets(*STAGES),
    executor_def=dg.in_process_executor,
    description="All seven assets and their checks for one recipe. What is up to date takes no time.",
)

compare_with_production = dg.define_asset_job(
    "compare_with_production",
    selection=dg.AssetSelection.assets("model_comparison"),
    executor_def=dg.in_process_executor,
    description="Which of several reward models is best on the same test pairs; nightly, today's against the one in production.",
)


class PruneConfig(dg.Config):
    """What is pruned."""

    older_than_days: int = Field(default=30, ge=1, description="Younger results stay.")


@dg.op(description="Removes what no recipe and no release needs.")
def prune_old_results(context: dg.OpExecutionContext, config: PruneConfig, compute: Compute) -> None:
    """As `rm-assets prune --apply`."""
    store = compute.store()
    plan = plan_retention(store, recipe_book(), older_than_days=config.older_than_days)
    done = prune(store, plan, context.log.info)
    context.log.info(f"{done} of {len(plan.removals)} removed, which frees up to {plan.freed_bytes:,} bytes")


@dg.job(executor_def=dg.in_process_executor, description="Removes what no recipe and no release needs.")
def prune_store() -> None:
    """One step."""
    prune_old_results()
