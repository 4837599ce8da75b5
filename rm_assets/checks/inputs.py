"""Checks of what a reward model would read of the pairs, from one examination. With severity `error`, no model is trained on a faulty text."""

import warnings
from collections.abc import Iterator

import dagster as dg

from rm_assets.checks.data import description_of
from rm_assets.checks.recipe_check import SEVERITIES, check_result, made_asset
from rm_assets.core.checks.finding import TURNED_OFF
from rm_assets.core.checks.inputs import INPUT_CHECKS, judge
from rm_assets.resources.compute import Compute, errors_as_failures
from rm_assets.resources.examination import examination
from rm_assets.resources.partitions import RECIPES

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
    with errors_as_failures("the checks of what the model reads", context.partition_key):
        recipe, store = compute.recipe(context.partition_key), compute.store()
        settings = {key.name: getattr(recipe.checks, key.name) for key in context.selected_asset_check_keys}
        found = None
        if any(check.severity != "ignore" for check in settings.values()):
            found = examination(store, recipe, made_asset(context, store, recipe, "implicit_pairs"))
    for name in (name for name in INPUT_CHECKS if name in settings):
        check = settings[name]
        if found is None or check.severity == "ignore":
            result = check_result(TURNED_OFF)
        else:
            result = check_result(judge(name, found, check), SEVERITIES[check.severity])
        yield result._replace(check_name=name, asset_key=dg.AssetKey("implicit_pairs"))
