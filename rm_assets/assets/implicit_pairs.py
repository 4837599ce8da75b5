"""implicit_pairs: chosen and rejected by gold reward, in TRL's conversational format; every candidate is kept or counted."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute


@stage_asset("implicit_pairs", kinds={"parquet"})
def implicit_pairs(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """Chosen and rejected by gold reward, in TRL's conversational format; every candidate is kept or counted."""
    return materialize_result(compute.make(context))
