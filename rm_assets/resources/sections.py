"""What Dagster knows of a recipe's sections, so that it calls stale what a changed section has made so.

Each section that decides an asset's content is an external asset of the graph; its data version is the digest of its settings.
"""

import dagster as dg

from rm_assets.core.digests import digest
from rm_assets.core.stages import STAGES
from rm_assets.storage.store import Manifest

DATA_VERSION = "dagster/data_version"


def section_key(asset: str) -> dg.AssetKey:
    """The key of the section that decides the content of `asset`: `recipe_training` for reward_model."""
    return dg.AssetKey(f"recipe_{STAGES[asset].section}")


def observation(asset: str, partition: str, version: str) -> dg.AssetObservation:
    """That the section of `asset` is now of this version."""
    return dg.AssetObservation(section_key(asset), partition=partition, tags={DATA_VERSION: version})


def observed(instance: dg.DagsterInstance, asset: str, partitions: list[str] | None = None) -> dict[str, str]:
    """The version that was last observed of the section of `asset`, by recipe; without those never observed."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        section_key(asset), dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION], asset_partitions=partitions
    )
    return {partition: found[DATA_VERSION] for partition, found in tags.items() if DATA_VERSION in found}


def observe_made(context: dg.AssetExecutionContext, asset: str, manifest: Manifest) -> None:
    """Observes the settings of which the asset was made, unless they are known, before Dagster notes what it was made from.

    Without it the first look at the recipe after a run without the daemon would make everything stale.
    """
    version = digest(manifest.settings)
    if observed(context.instance, asset, [context.partition_key]).get(context.partition_key) != version:
        context.log_event(observation(asset, context.partition_key, version))
        # What a step reads from is noted at its start, which was before this observation.
        context.op_execution_context.get_step_execution_context().fetch_external_input_asset_version_info()
