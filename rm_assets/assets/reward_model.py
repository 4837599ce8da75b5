"""reward_model: the trained reward model: a checkpoint that AutoModelForSequenceClassification loads."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute
from rm_assets.resources.tracker import Tracker


@stage_asset("reward_model", kinds={"torch", "huggingface"})
def reward_model(context: dg.AssetExecutionContext, compute: Compute, tracker: Tracker) -> dg.MaterializeResult[Any]:
    """The trained reward model: a checkpoint that AutoModelForSequenceClassification loads."""
    made = compute.make(context)
    return materialize_result(made, tracker.links(context, compute, made))
