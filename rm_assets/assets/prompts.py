"""prompts: prompts, normalised and deduplicated, with ids by content and a split that no prompt can be on two sides of."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES


@dg.asset(
    partitions_def=RECIPES,
    code_version=str(STAGES["prompts"].version),
    group_name="reward_modeling",
    kinds={"parquet"},
    owners=OWNERS,
    description="Prompts, normalised and deduplicated, with ids by content and a split that no prompt can be on two sides of.",
)
def prompts(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """Prompts, normalised and deduplicated, with ids by content and a split that no prompt can be on two sides of."""
    return materialize_result(compute.make(context))
