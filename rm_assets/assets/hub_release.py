"""hub_release: the release folder, validated as its user would, and pushed to the Hub where the recipe says so."""

from functools import partial
from typing import Any

import dagster as dg

from rm_assets.assets.materialization import OWNERS, materialize_result
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.releases import make_release


@dg.asset(
    deps=["reward_model", "evaluation_report"],
    partitions_def=RECIPES,
    code_version=str(STAGES["hub_release"].version),
    group_name="reward_modeling",
    kinds={"huggingface"},
    owners=OWNERS,
    description="The release folder, validated as its user would, and pushed to the Hub where the recipe says so.",
)
def hub_release(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """The release folder, built only behind the gate, validated as its user would, registered, and pushed where the recipe says so."""
    return materialize_result(compute.make(context, by=partial(make_release, compute)))
