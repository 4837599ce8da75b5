"""What a recipe wants of each asset (a digest) and what of it is committed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from rm_assets.core.digests import asset_digest
from rm_assets.core.errors import StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.store import Manifest, Store

SAME_FOR_ALL_SEEDS = tuple(takewhile(lambda asset: asset != "reward_model", STAGES))


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
    for name, of in stage.reads(recipe).items():
        manifest = wanted(store, of, asset_of(name), fingerprint).manifest
        if manifest is None:
            raise StoreError(
                "STORE_002",
                f"{asset} of recipe '{recipe.name}' needs {name}, which has not been made as the recipe wants it now",
                fix=f"run `rm-assets run {recipe.name}`, or materialize {name if of is recipe else asset} first",
            )
        inputs[name] = manifest
    settings = stage.settings(recipe, fingerprint or Fingerprints(store.home / "fingerprints").of)
    of_digest = asset_digest(
        asset, stage.version, settings, {name: m.version_read_by(asset) for name, m in inputs.items()}
    )
    return Wanted(asset, of_digest, settings, inputs, store.manifest(asset, of_digest))


def ancestors(store: Store, inputs: Mapping[str, str]) -> dict[str, Manifest]:
    """The manifests of all assets that something with these inputs (name and digest) comes from, each once, first ones first."""
    found: dict[str, Manifest] = {}

    def visit(name: str, of_digest: str) -> None:
        manifest = store.manifest(asset_of(name), of_digest)
        if manifest and name not in found:
            for read, entry in manifest.inputs.items():
                visit(read, entry["digest"])
            found[name] = manifest

    for name, of_digest in inputs.items():
        visit(name, of_digest)
    return found


def committed(store: Store, recipe: Recipe, asset: str) -> Manifest | None:
    """`asset` as `recipe` wants it now, or None while it, or something that it reads, has not been made. Raises: as `wanted`."""
    try:
        return wanted(store, recipe, asset).manifest
    except StoreError as error:
        if error.code == "STORE_002":
            return None
        raise


def is_of(manifest: Manifest, key: str) -> bool:
    """Whether the recipe of this key made it: what no training enters is made once for all seeds, under the name of the first."""
    if manifest.asset in SAME_FOR_ALL_SEEDS:
        return _without_seed(manifest.recipe) == _without_seed(key)
    return manifest.recipe == key


def _without_seed(name: str) -> str:
    """A smoke run, trial or share of a seed is still none of the recipe itself."""
    return re.sub(r"@\d+", "", name, count=1)


def earlier(store: Store, recipe: Recipe, want: Wanted) -> Manifest | None:
    """The version before: what the recipe's name made last of this asset, apart from the present content.

    By the same version of the stage: another one's table can have other columns.
    """
    content, version = want.manifest.data_version if want.manifest else None, STAGES[want.asset].version
    mine = [m for m in store.manifests(want.asset) if is_of(m, recipe.name) and m.stage_version == version]
    others = [m for m in mine if m.data_version != content]
    return max(others, key=lambda m: (m.made.get("at", ""), m.digest), default=None)
