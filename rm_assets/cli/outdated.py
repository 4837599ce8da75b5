"""`rm-assets outdated`: which recipes are out of date, since what changed, and what making them takes."""

from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.core.errors import RecipeError, RmAssetsError
from rm_assets.core.planning.recipe_plan import operations_left
from rm_assets.resources.known import find_known
from rm_assets.resources.recipes import keys_in_use, recipe_book
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home
from rm_assets.storage.outdated import find_outdated, reasons
from rm_assets.storage.store import Store


def find(names: list[str]) -> list[dict[str, Any]]:
    """What is out of date of these recipes, of all that are in use without names; plain data. Raises: RecipeError RECIPE_001."""
    book, store = recipe_book(), Store(find_home())
    named = [key for key in book.partition_keys() if key in names or key.partition("@")[0] in names]
    keys = named if names else keys_in_use(book, store)
    known = {name for key in keys for name in (key, key.partition("@")[0])}
    if missing := [name for name in names if name not in known]:
        raise RecipeError(
            "RECIPE_001",
            f"there is no recipe '{missing[0]}'",
            fix=f"{book.did_you_mean(missing[0])}`rm-assets recipes list` shows them",
        )
    fingerprint = cache(Fingerprints(store.home / "fingerprints").of)
    found: list[dict[str, Any]] = []
    for key in keys:
        try:
            recipe = book.load(key)
            outdated = find_outdated(store, recipe, fingerprint)
            if outdated is not None:
                found.append(
                    {
                        "recipe": key,
                        "rebuild": recipe.automation.rebuild,
                        "assets": outdated.assets,
                        "why": reasons(store, recipe, outdated),
                        "operations_at_most": operations_left(recipe, find_known(recipe, None, [])),
                    }
                )
        except RmAssetsError as error:
            found.append({"recipe": key, "error": error.to_dict()})
    return found


def show(found: list[dict[str, Any]], console: Console) -> None:
    """One line a recipe."""
    if not found:
        console.print("every recipe in use is up to date; a shipped one is in use once something of it was made")
        return
    table = Table("recipe", "out of date", "why", "operations at most", "automation")
    for column in table.columns:
        column.overflow = "fold"
    for each in found:
        if "error" in each:
            table.add_row(each["recipe"], "cannot be told", _sentence(each["error"]), "", "")
            continue
        left, assets = each["operations_at_most"], each["assets"]
        what = assets[0] if len(assets) == 1 else f"{assets[0]} to {assets[-1]}"
        table.add_row(
            each["recipe"], what, "; ".join(each["why"]), "unknown" if left is None else f"{left:.2e}", each["rebuild"]
        )
    console.print(table)
    console.print("`rm-assets run RECIPE` makes what is out of date of a recipe.")


def _sentence(error: dict[str, Any]) -> str:
    return f"[{error['code']}] {error['what']}" + (f". Fix: {error['fix']}" if error["fix"] else "")
