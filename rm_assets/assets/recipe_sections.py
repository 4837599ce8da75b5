"""The recipe's sections as external assets: a changed one makes its asset stale in the web UI."""

import dagster as dg

from rm_assets.assets.declaration import GROUP, OWNERS
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.sections import section_key

RECIPE_SECTIONS = [
    dg.AssetSpec(
        section_key(asset),
        partitions_def=RECIPES,
        group_name=GROUP,
        kinds={"yaml"},
        owners=OWNERS,
        description=f"The recipe's section `{stage.section}`, which decides the content of {asset}. "
        f"{Recipe.model_fields[stage.section].description or ''}",
    )
    for asset, stage in STAGES.items()
]
"""One for each stage; observed when its asset is made and when the recipe changes, never materialized."""
