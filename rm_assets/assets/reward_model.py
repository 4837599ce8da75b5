"""reward_model: the trained reward model: a checkpoint that AutoModelForSequenceClassification loads."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.tracker import Tracker


@dg.asset(
    deps=["implicit_pairs"],
    partitions_def=RECIPES,
    code_version=str(STAGES["reward_model"].version),
    group_name="reward_modeling",
    kinds={"torch", "huggingface"},
    owners=OWNERS,
    description="The trained reward model: a checkpoint that AutoModelForSequenceClassification loads.",
)
def reward_model(context: dg.AssetExecutionContext, compute: Compute, tracker: Tracker) -> dg.MaterializeResult[Any]:
    """The trained reward model: a checkpoint that AutoModelForSequenceClassification loads."""
    made = compute.make(context)
    return materialize_result(made, tracker.links(context, compute, made))
