"""The sensor that tells when a model or dataset on the Hub has moved under a recipe that names a branch and no commit."""

import json
from functools import cache

import dagster as dg

from rm_assets.core.errors import HubError, RmAssetsError
from rm_assets.core.recipe_needs import needs_of
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.resources.partitions import RECIPES
from rm_assets.resources.recipes import keys_in_use, recipe_book
from rm_assets.storage.hub_access import commit_of, is_offline
from rm_assets.storage.lineage import is_of
from rm_assets.storage.store import Store

TIMEOUT_SECONDS = 10.0
ASSET_OF = {stage.section: asset for asset, stage in STAGES.items()}


@dg.sensor(
    minimum_interval_seconds=3600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks the Hub for the commits of models and datasets that recipes name without one, and proposes to pin the "
    "new commit where a branch has moved (an observation of the asset that reads it). It starts nothing.",
)
def hub_revisions(context: dg.SensorEvaluationContext, compute: Compute) -> dg.SensorResult:
    """One look at what the recipes in use name on the Hub; the cursor holds the commits that were heard last.

    What was not heard before is compared with what the recipe was made from last, where that is recorded.
    """
    if is_offline():
        return dg.SensorResult(skip_reason=dg.SkipReason("HF_HUB_OFFLINE is set"))
    known: dict[str, str] = json.loads(context.cursor or "{}")
    now: dict[str, str] = {}
    said: list[str] = []
    moved: list[dg.AssetObservation] = []
    ask = cache(lambda kind, repo, revision: commit_of(kind, repo, revision, TIMEOUT_SECONDS))
    book, keys, store = recipe_book(), set(RECIPES.get_partition_keys()), compute.store()
    for key in keys_in_use(book, store):
        if key not in keys:
            continue
        try:
            moving = needs_of(book.load(key)).moving
        except RmAssetsError as error:
            said.append(f"{key}: [{error.code}] {error.what}")
            continue
        for field, (kind, repo, revision) in moving.items():
            name = f"{kind} {repo}@{revision}"
            try:
                now[name] = ask(kind, repo, revision)
            except HubError as error:
                if error.code == "HUB_001":  # the others would only wait for it, too
                    return dg.SensorResult(skip_reason=dg.SkipReason(f"[{error.code}] {error.what}"))
                said.append(f"{name}: [{error.code}] {error.what}")
                continue
            before = known.get(name) or _commit_made_from(store, key, field, repo, revision)
            if before and before != now[name]:
                moved.append(_moved(key, field, name, before, now[name]))
    said += [f"{event.partition}: {event.description}" for event in moved]
    return dg.SensorResult(
        asset_events=moved,
        cursor=json.dumps(known | now),  # also of a recipe that cannot be read just now
        skip_reason=dg.SkipReason("; ".join(said) or f"nothing has moved ({len(now)} asked for)"),
    )


def _commit_made_from(store: Store, key: str, field: str, repo: str, revision: str) -> str | None:
    """Recorded are the commits of datasets, and of a model that is taken as it is."""
    mine = [manifest for manifest in store.manifests(_asset_of(field)) if is_of(manifest, key)]
    if not mine:
        return None
    facts = max(mine, key=lambda m: (m.made.get("at", ""), m.digest)).facts
    if field == "training.model":
        return facts.get("commit") if facts.get("model") == repo else None
    read: dict[str, str] = facts.get("dataset_commits", {})
    return read.get(f"{repo}@{revision}") or (read.get(repo) if revision == "main" else None)


def _asset_of(field: str) -> str:
    return ASSET_OF[field.split(".", 1)[0]]


def _moved(key: str, field: str, name: str, old: str, new: str) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=_asset_of(field),
        partition=key,
        description=f"{field}: {name} has moved from {old[:12]} to {new[:12]}",
        metadata={
            "proposal": f"pin the new commit of {name}",
            "why": f"it has moved from {old} to {new}",
            "not_started_because": "a branch enters no digest; what was made stays what it is",
            "accept": f"write `revision: {new}` at {field} of recipe {key}: it is then out of date, and rebuilt",
        },
    )
