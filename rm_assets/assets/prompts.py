"""prompts: prompts, normalised and deduplicated, with ids by content and a split that no prompt can be on two sides of."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute


@stage_asset("prompts", kinds={"parquet"})
def prompts(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """Prompts, normalised and deduplicated, with ids by content and a split that no prompt can be on two sides of."""
    return materialize_result(compute.make(context))
