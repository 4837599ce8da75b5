"""What a recipe wants of each asset (a digest) and what of it is committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rm_assets.core.digests import asset_digest
from rm_assets.core.errors import StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.store import Manifest, Store


@dataclass(frozen=True)
class Wanted:
    """One asset as a recipe wants it now; `manifest` is None until it has been made."""

    asset: str
    digest: str
    settings: dict[str, Any]
    inputs: dict[str, Manifest]
    manifest: Manifest | None


def wanted(store: Store, recipe: Recipe, asset: str, fingerprint: Callable[[str], str] | None = None) -> Wanted:
    """`asset` as `recipe` wants it, from the committed state of what it reads.

    Without a `fingerprint` of its own, what it hashes is remembered in the store.
    Raises: StoreError STORE_002 if something it reads has not been made; DataError or RecipeError if a source is missing.
    """
    stage = STAGES[asset]
    inputs: dict[str, Manifest] = {}
    for upstream in stage.inputs:
        manifest = wanted(store, recipe, upstream, fingerprint).manifest
        if manifest is None:
            raise StoreError(
                "STORE_002",
                f"{asset} of recipe '{recipe.name}' needs {upstream}, which has not been made as the recipe wants it now",
                fix=f"run `rm-assets run {recipe.name}`, or materialize {upstream} first",
            )
        inputs[upstream] = manifest
    settings = stage.settings(recipe, fingerprint or Fingerprints(store.home / "fingerprints").of)
    of_digest = asset_digest(asset, stage.version, settings, {name: m.data_version for name, m in inputs.items()})
    return Wanted(asset, of_digest, settings, inputs, store.manifest(asset, of_digest))


def earlier(store: Store, recipe: Recipe, want: Wanted) -> Manifest | None:
    """The version before: what the recipe's name made last of this asset, apart from the present content.

    By the same version of the stage: another one's table can have other columns.
    """
    content, version = want.manifest.data_version if want.manifest else None, STAGES[want.asset].version
    mine = [m for m in store.manifests(want.asset) if m.recipe == recipe.name and m.stage_version == version]
    others = [m for m in mine if m.data_version != content]
    return max(others, key=lambda m: (m.made.get("at", ""), m.digest), default=None)
