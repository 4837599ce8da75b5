"""evaluation_report: how far the model agrees with gold on test prompts, with intervals, baselines and its worst mistakes."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.tracker import Tracker


@dg.asset(
    deps=["gold_rewards", "implicit_pairs", "reward_model"],
    partitions_def=RECIPES,
    code_version=str(STAGES["evaluation_report"].version),
    group_name="reward_modeling",
    kinds={"torch", "markdown"},
    owners=OWNERS,
    description="How far the model agrees with gold on test prompts, with intervals, baselines and its worst mistakes.",
)
def evaluation_report(
    context: dg.AssetExecutionContext, compute: Compute, tracker: Tracker
) -> dg.MaterializeResult[Any]:
    """How far the model agrees with gold on test prompts, with intervals, baselines and its worst mistakes."""
    made = compute.make(context)
    return materialize_result(made, tracker.links(context, compute, made))
