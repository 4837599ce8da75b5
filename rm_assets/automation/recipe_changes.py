"""The sensor that tells Dagster of changed recipes, so that the web UI calls stale what they make so."""

from functools import cache

import dagster as dg

from rm_assets.automation.rebuild import settled
from rm_assets.core.digests import digest
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.recipes import recipe_book
from rm_assets.resources.sections import observation, observed
from rm_assets.storage.fingerprints import Fingerprints


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes the sections of recipes that have changed since they were made. It starts nothing.",
)
def recipe_changes(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SensorResult:
    """One look at the recipes of which something has been made."""
    known = {asset: observed(context.instance, asset) for asset in STAGES}
    fingerprint = cache(settled(Fingerprints(compute.store().home / "fingerprints").of))
    book, keys = recipe_book(), set(RECIPES.get_partition_keys())
    changed: list[dg.AssetObservation] = []
    said: list[str] = []
    for key in book.partition_keys():
        if key not in keys or not any(key in versions for versions in known.values()):
            continue
        try:
            recipe = book.load(key)
            for asset, stage in STAGES.items():
                version = digest(stage.settings(recipe, fingerprint))
                if key in known[asset] and known[asset][key] != version:
                    changed.append(observation(asset, key, version))
        except RmAssetsError as error:
            said.append(f"{key}: [{error.code}] {error.what}")
    return dg.SensorResult(
        asset_events=changed,
        skip_reason=dg.SkipReason(
            "; ".join([*said, *(f"{e.partition}: {e.asset_key.to_user_string()} has changed" for e in changed)])
            or "no recipe has changed"
        ),
    )
