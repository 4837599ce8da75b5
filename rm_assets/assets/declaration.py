"""What Dagster is told of each asset of the graph, from its stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from rm_assets.core.stages import STAGES
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.sections import section_key

GROUP = "reward_modeling"
"""One group, so that the web UI shows the whole lineage at once."""
OWNERS = ["team:reward-models"]
TASKS = Path(__file__).parents[1] / "tasks"


def stage_asset(asset: str, *, kinds: set[str]) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dagster.asset` with all that the stage decides; the asset's description is its docstring."""
    stage = STAGES[asset]
    return dg.asset(
        deps=[*stage.inputs, section_key(asset)],
        partitions_def=RECIPES,
        code_version=str(stage.version),
        group_name=GROUP,
        kinds=kinds,
        owners=OWNERS,
        tags={"task": stage.task},
        # Dagster's own code references are beta, and warn whoever loads them.
        metadata={"code": dg.MetadataValue.path(TASKS / f"{stage.task}.py")},
    )
