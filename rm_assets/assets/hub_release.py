"""hub_release: the release folder, validated as its user would, and pushed to the Hub where the recipe says so."""

from functools import partial
from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import lineage_cost, materialize_result
from rm_assets.resources.compute import Compute
from rm_assets.resources.releases import make_release


@stage_asset("hub_release", kinds={"huggingface"})
def hub_release(context: dg.AssetExecutionContext, compute: Compute) -> dg.MaterializeResult[Any]:
    """The release folder, built only behind the gate, validated as its user would, registered, and pushed where the recipe says so."""
    made = compute.make(context, by=partial(make_release, compute))
    here = {"rm/path": str(made.folder / "release")}  # the manifest names that of the machine which made it
    return materialize_result(made, here | lineage_cost(compute.store(), made.manifest), page="release/README.md")
