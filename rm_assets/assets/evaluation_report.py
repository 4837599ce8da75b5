"""evaluation_report: how far the model agrees with gold on test prompts, with intervals, baselines and its worst mistakes."""

from typing import Any

import dagster as dg

from rm_assets.assets.declaration import stage_asset
from rm_assets.assets.materialization import materialize_result
from rm_assets.resources.compute import Compute
from rm_assets.resources.tracker import Tracker


@stage_asset("evaluation_report", kinds={"torch", "markdown"})
def evaluation_report(
    context: dg.AssetExecutionContext, compute: Compute, tracker: Tracker
) -> dg.MaterializeResult[Any]:
    """How far the model agrees with gold on test prompts, with intervals, baselines and its worst mistakes."""
    made = compute.make(context)
    return materialize_result(made, tracker.links(context, compute, made), page="report.md")
