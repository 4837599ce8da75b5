"""gold_rewards: the label of each response: from a gold model, a rule-based verifier, people's rankings, or recorded; in the order of the responses."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute


@stage_asset("gold_rewards", kinds={"parquet", "torch"})
def gold_rewards(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """The label of each response: from a gold model, a rule-based verifier, people's rankings, or recorded; in the order of the responses."""
    return materialize_result(compute.make(context))
