"""Checks of what a reward model would read of the pairs, from one examination. With severity `error`, no model is trained on a faulty text."""

import warnings
from collections.abc import Iterator

import dagster as dg

from rm_assets.checks.data import description_of
from rm_assets.checks.recipe_check import SEVERITIES, check_result
from rm_assets.core.checks.finding import Finding
from rm_assets.core.checks.inputs import INPUT_CHECKS, judge
from rm_assets.resources.compute import Compute
from rm_assets.resources.examination import examination
from rm_assets.resources.recipes import RECIPES

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # as in recipe_check
    SPECS = [
        dg.AssetCheckSpec(
            name, asset="implicit_pairs", blocking=True, description=description_of(name), partitions_def=RECIPES
        )
        for name in INPUT_CHECKS
    ]


# One step for all: a step of its own for each would take longer than what it looks at.
@dg.multi_asset_check(specs=SPECS, can_subset=True)
def input_checks(context: dg.AssetCheckExecutionContext, compute: Compute) -> Iterator[dg.AssetCheckResult]:
    """Each check that is asked for and that the recipe has not turned off."""
    recipe = compute.recipe(context.partition_key)
    settings = {key.name: getattr(recipe.checks, key.name) for key in context.selected_asset_check_keys}
    is_wanted = any(check.severity != "off" for check in settings.values())
    found = examination(compute.store(), recipe) if is_wanted else None
    for name in (name for name in INPUT_CHECKS if name in settings):
        check = settings[name]
        if found is None or check.severity == "off":
            result = check_result(Finding(True, "turned off by the recipe"))
        else:
            result = check_result(judge(name, found, check), SEVERITIES[check.severity])
        yield result._replace(check_name=name, asset_key=dg.AssetKey("implicit_pairs"))
