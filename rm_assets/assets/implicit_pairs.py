"""implicit_pairs: chosen and rejected by gold reward, in TRL's conversational format; every candidate is kept or counted."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES


@dg.asset(
    deps=["gold_rewards"],
    partitions_def=RECIPES,
    code_version=str(STAGES["implicit_pairs"].version),
    group_name="reward_modeling",
    kinds={"parquet"},
    owners=OWNERS,
    description="Chosen and rejected by gold reward, in TRL's conversational format; every candidate is kept or counted.",
)
def implicit_pairs(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """Chosen and rejected by gold reward, in TRL's conversational format; every candidate is kept or counted."""
    return materialize_result(compute.make(context))
