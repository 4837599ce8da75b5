"""Making a release: behind the gate, registered, and what is refused is kept with its reason."""

from rm_assets.core.errors import ReleaseError
from rm_assets.core.recipe import Recipe
from rm_assets.resources.compute import Compute, Made, Say
from rm_assets.resources.gate import require_passed
from rm_assets.storage.lineage import wanted
from rm_assets.storage.registry import Registry, Release, release_name
from rm_assets.storage.store import Manifest, Store

FAULTS = ("RELEASE_001", "RELEASE_002", "RELEASE_005", "RELEASE_006", "RELEASE_009")
"""Of the release itself, unlike a network that fails."""


def make_release(compute: Compute, recipe: Recipe, asset: str, *, say: Say, debug: Say, run_id: str = "") -> Made:
    """As `Compute.make_asset` of hub_release, if the gate lets it through. A smoke run is not registered.

    Raises: ReleaseError RELEASE_004 if the gate refuses; RmAssetsError.
    """
    store = compute.store()
    require_passed(store, recipe)
    registry = Registry(store)
    try:
        made = compute.make_asset(recipe, asset, say=say, debug=debug, run_id=run_id)
    except ReleaseError as error:
        if error.code in FAULTS:
            report = wanted(store, recipe, "evaluation_report").digest
            registry.refuse(recipe.name, report, error.code, f"{error.what}; {error.why}")
        raise
    if not compute.smoke:
        registry.add(_release(store, recipe, made.manifest))
    return made


def _release(store: Store, recipe: Recipe, manifest: Manifest) -> Release:
    report = manifest.inputs["evaluation_report"]["digest"]
    judged = store.manifest("evaluation_report", report)
    facts = judged.facts if judged else {}
    return Release(
        name=release_name(recipe.name, manifest.digest),
        line=recipe.name,
        digest=manifest.digest,
        report=report,
        form=recipe.release.form,
        match_rate={
            "value": facts.get("match_rate"), "low": facts.get("match_rate_low"), "high": facts.get("match_rate_high"),
        },
        at=manifest.made["at"],
        hub=manifest.facts.get("hub"),
    )  # fmt: skip
