"""sampled_responses: K responses to each prompt: sampled from the policy through its chat template, or recorded."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute


@stage_asset("sampled_responses", kinds={"parquet", "torch"})
def sampled_responses(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """K responses to each prompt: sampled from the policy through its chat template, or recorded."""
    return materialize_result(compute.make(context))
