"""sampled_responses: K responses to each prompt: sampled from the policy through its chat template, or recorded."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES


@dg.asset(
    deps=["prompts"],
    partitions_def=RECIPES,
    code_version=str(STAGES["sampled_responses"].version),
    group_name="reward_modeling",
    kinds={"parquet", "torch"},
    owners=OWNERS,
    description="K responses to each prompt: sampled from the policy through its chat template, or recorded.",
)
def sampled_responses(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """K responses to each prompt: sampled from the policy through its chat template, or recorded."""
    return materialize_result(compute.make(context))
