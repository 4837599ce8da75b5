"""What of a recipe is out of date, and what has changed since it was made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rm_assets.core.digests import asset_digest, digest
from rm_assets.core.errors import RmAssetsError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.lineage import is_of, wanted
from rm_assets.storage.store import Manifest, Store


@dataclass(frozen=True)
class Outdated:
    """The assets from the first one that is not as the recipe wants it; what follows them may turn out to be up to date.

    `state` names what is wanted: it changes when that does, and only then.
    """

    assets: list[str]
    state: str
    settings: dict[str, Any]
    inputs: dict[str, Manifest]

    @property
    def to_run(self) -> list[str]:
        """`assets` behind the one before them, which costs nothing again, but its checks: they may have refused it, or the
        run may have died before they looked."""
        stages = list(STAGES)
        return stages[max(0, stages.index(self.assets[0]) - 1) :]


def find_outdated(store: Store, recipe: Recipe, fingerprint: Callable[[str], str]) -> Outdated | None:
    """The out-of-date part of a recipe, None where all is as it wants it.

    Raises: DataError or RecipeError if a source is missing.
    """
    made: dict[str, Manifest] = {}
    for place, (asset, stage) in enumerate(STAGES.items()):
        settings = stage.settings(recipe, fingerprint)
        inputs, is_whole = dict[str, Manifest](), True
        for name, of in stage.reads(recipe).items():
            known = made[name] if of is recipe else wanted(store, of, asset_of(name), fingerprint).manifest
            if known is None:
                is_whole = False
            else:
                inputs[name] = known
        versions = {name: manifest.version_read_by(asset) for name, manifest in inputs.items()}
        manifest = None
        if is_whole:
            manifest = store.manifest(asset, asset_digest(asset, stage.version, settings, versions))
        if manifest is None:
            state = digest([asset, stage.version, settings, versions, _limits(recipe)])
            return Outdated(list(STAGES)[place:], state, settings, inputs)
        made[asset] = manifest
    return None


def aim(recipe: Recipe, fingerprint: Callable[[str], str]) -> str:
    """A name of all that a recipe wants, whatever of it is made: it changes when a setting, a source or a limit does.

    A source that is missing is no fault yet: the work goes as far as it can. Raises: DataError of a source that is malformed.
    """

    def found(location: str) -> str:
        try:
            return fingerprint(location)
        except RmAssetsError as error:
            if error.code not in ("DATA_001", "RECIPE_003"):
                raise
            return "missing"

    stages = [[asset, stage.version, stage.settings(recipe, found)] for asset, stage in STAGES.items()]
    return digest([stages, _limits(recipe)])


def _limits(recipe: Recipe) -> list[Any]:
    """What changes no result and may let pass what has failed: limits of checks, of the gate, and of a task's time."""
    return [getattr(recipe, name).model_dump(mode="json") for name in ("checks", "gate", "execution")]


def reasons(store: Store, recipe: Recipe, found: Outdated) -> list[str]:
    """What differs from what the recipe's name made last of the first out-of-date asset, a phrase each."""
    asset = found.assets[0]
    mine = [manifest for manifest in store.manifests(asset) if is_of(manifest, recipe.name)]
    if not mine:
        return [f"{asset} has not been made"]
    last = max(mine, key=lambda m: (m.made.get("at", ""), m.digest))
    version = STAGES[asset].version
    phrases = (
        [f"stage {asset} has version {version}, not {last.stage_version}"] if version != last.stage_version else []
    )
    phrases += [
        f"{name} is another one"
        for name, manifest in found.inputs.items()
        if last.inputs.get(name, {}).get("data_version") != manifest.version_read_by(asset)
    ]
    phrases += sorted(_differences(asset, last.settings, found.settings))
    return phrases or [f"{asset} as it is wanted now has not been made"]


def _differences(place: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            phrase
            for key in dict.fromkeys([*old, *new])
            for phrase in _differences(f"{place}.{key}", old.get(key), new.get(key))
        ]
    return [f"{place}: {_shown(new)}, was {_shown(old)}"]


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
