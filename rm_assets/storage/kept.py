"""What of the store must stay, and why: what recipes want, what releases were made from, what is in use."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rm_assets.core.errors import RmAssetsError, StoreError
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.lineage import is_of, wanted
from rm_assets.storage.registry import Registry
from rm_assets.storage.store import Manifest, Store

Result = tuple[str, str]
"""Asset and digest: a folder of the store, committed or not."""
DIGEST = re.compile(r"[0-9a-f]{32}")
RECORDS = ("manifest.json", "request.json")
"""What says what a result was made from; the request alone where it is not made."""
NUM_VERSIONS = 2
"""Contents of each asset of each recipe that stay, newest first: drift is measured against the version before."""


def results(store: Store) -> list[Result]:
    """All folders of results. What lies behind a link is none of them."""
    folders = [store.home / asset for asset in STAGES]
    return [
        (folder.name, entry.name)
        for folder in folders
        if folder.is_dir() and not folder.is_symlink()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
        if entry.is_dir(follow_symlinks=False) and DIGEST.fullmatch(entry.name)
    ]


def here(store: Store, result: Result) -> Path:
    """Its folder on this machine. Of a cache nothing is fetched into it, as `Store.folder` would."""
    return store.home.joinpath(*result)


def owner(name: str) -> str:
    """The recipe of a smoke run, a trial of a search or a share of a learning curve, which have names of their own."""
    return name.partition(" (")[0]


def find_kept(
    store: Store, book: RecipeBook, fingerprint: Callable[[str], str], *, gone_recipes: bool
) -> dict[Result, str]:
    """Each result that must stay, with why. What stays keeps all that it was made from.

    A recipe that cannot be judged (it is not valid, or a source is missing) keeps whatever its name made; so does one that
    is not here, but with `gone_recipes`: their folder may only not be mounted.
    Raises: StoreError STORE_003 if the manifest of one of them cannot be read, since then its inputs are not known.
    """
    there, kept = results(store), dict[Result, str]()
    made = {asset: list(store.manifests(asset)) for asset in STAGES}

    def keep(result: Result, why: str) -> None:
        if result not in kept:
            kept[result] = why
            for read in _inputs(store, result):
                keep(read, why)

    for release in Registry(store).releases():
        keep(("hub_release", release.digest), f"release {release.name}")
        keep(("evaluation_report", release.report), f"release {release.name}")
    for key in book.partition_keys():
        of_recipe: list[tuple[Result, str]] = []
        try:
            recipe = book.load(key)
            named = _named(store, recipe.model_dump(mode="json"), there)
            of_recipe += [(result, f"recipe {key} names its folder") for result in named]
            for result in _wanted(store, recipe, fingerprint):
                of_recipe.append((result, f"recipe {key}"))
            of_recipe += [(result, f"recipe {key}, the version before") for result in _newest(made, key)]
        except RmAssetsError as error:
            why = f"recipe {key} cannot be judged [{error.code}]"
            of_recipe += [(result, why) for result in _made_by(made, key)]
        for result, why in of_recipe:
            keep(result, why)
    keys = set(book.partition_keys())
    for result in there:
        if store.is_leased(*result) or store.is_heard(*result):
            keep(result, "being made")
        elif not gone_recipes and (name := made_for(store, result)) and owner(name) not in keys:
            keep(result, f"recipe {owner(name)} is not here")
    for request in store.home.glob(".*/request.json"):  # of work that makes no asset
        with suppress(OSError, ValueError):  # it may just have ended
            for result in _named(store, _read(request), there):
                keep(result, "in use")
    return kept


def made_for(store: Store, result: Result) -> str | None:
    """The name that a result was made under, or was to be made; None where nothing says it."""
    for name in RECORDS:
        with suppress(OSError, ValueError, TypeError, KeyError):
            recipe = _read(here(store, result) / name)["recipe"]
            return str(recipe if isinstance(recipe, str) else recipe["name"])
    return None


def _wanted(store: Store, recipe: Recipe, fingerprint: Callable[[str], str]) -> Iterator[Result]:
    """The whole chain as far as it is made, and the first one that is not, whose state to resume from may be there."""
    for asset, stage in STAGES.items():
        for name, of in {**stage.reads(recipe), asset: recipe}.items():
            try:
                yield asset_of(name), wanted(store, of, asset_of(name), fingerprint).digest
            except StoreError as error:
                if error.code != "STORE_002":
                    raise


def _newest(made: dict[str, list[Manifest]], key: str) -> Iterator[Result]:
    """The newest result of each of the newest contents of each asset; `lineage.earlier` is among them."""
    for manifests in made.values():
        mine = [manifest for manifest in manifests if is_of(manifest, key)]
        contents: dict[str, Manifest] = {}
        for manifest in sorted(mine, key=lambda m: (m.made.get("at", ""), m.digest), reverse=True):
            contents.setdefault(manifest.data_version, manifest)
        yield from [(manifest.asset, manifest.digest) for manifest in contents.values()][:NUM_VERSIONS]


def _made_by(made: dict[str, list[Manifest]], key: str) -> list[Result]:
    """With any seed: what a file that cannot be read says of its seeds is not known."""
    name = owner(key).partition("@")[0]
    manifests = [manifest for of_asset in made.values() for manifest in of_asset]
    return [(m.asset, m.digest) for m in manifests if owner(m.recipe).partition("@")[0] == name]


def _inputs(store: Store, result: Result) -> list[Result]:
    """What a result was made from, or is being made from."""
    folder = here(store, result)
    if store.remote and not (folder / "manifest.json").is_file() and (shared := store.manifest(*result)):
        return [(asset_of(name), str(entry["digest"])) for name, entry in shared.inputs.items()]
    for file in (folder / name for name in RECORDS):
        if file.is_file():
            try:
                inputs = _read(file)["inputs"].items()
                return [(asset_of(name), v if isinstance(v, str) else str(v["digest"])) for name, v in inputs]
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise StoreError(
                    "STORE_003", f"{file} does not say what it was made from", why=repr(error),
                    fix=f"remove {folder} and run again; until then nothing is pruned",
                ) from None  # fmt: skip
    shared = store.manifest(*result)  # of a cache: known, and not here
    return [(asset_of(name), entry["digest"]) for name, entry in shared.inputs.items()] if shared else []


def _named(store: Store, value: Any, there: list[Result]) -> list[Result]:
    """Results whose files are named somewhere in `value` by absolute paths or patterns."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [result for each in inner for result in _named(store, each, there)]
    if not (isinstance(value, str) and os.path.isabs(value)):
        return []
    home, path = store.home.resolve(), Path(value).resolve()
    if not path.is_relative_to(home):
        return []
    pattern = "/".join(path.relative_to(home).parts[:2])
    return [result for result in there if fnmatchcase("/".join(result), pattern)]


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))
