"""gold_rewards: the label of each response: from a gold model, a rule-based verifier, people's rankings, or recorded; in the order of the responses."""

from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES


@dg.asset(
    deps=["sampled_responses"],
    partitions_def=RECIPES,
    code_version=str(STAGES["gold_rewards"].version),
    group_name="reward_modeling",
    kinds={"parquet", "torch"},
    owners=OWNERS,
    description="The label of each response: from a gold model, a rule-based verifier, people's rankings, or recorded; in the order of the responses.",
)
def gold_rewards(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """The label of each response: from a gold model, a rule-based verifier, people's rankings, or recorded; in the order of the responses."""
    return materialize_result(compute.make(context))
