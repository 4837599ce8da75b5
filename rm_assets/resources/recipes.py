"""The recipes that are there: those that ship with the package, and the user's."""

import os
from pathlib import Path

from rm_assets.core.recipe_files import RecipeBook
from rm_assets.storage.store import Store


def recipe_book() -> RecipeBook:
    """The shipped recipes and those in the folder RM_ASSETS_RECIPES."""
    folder = os.environ.get("RM_ASSETS_RECIPES")
    return RecipeBook(Path(folder).expanduser() if folder else None)


def keys_in_use(book: RecipeBook, store: Store) -> list[str]:
    """The keys of a book but for recipes that ship with the package and of which nothing has been made."""
    made = {manifest.recipe for manifest in store.manifests("prompts")}
    return [key for key in book.partition_keys() if key in made or not book.is_shipped(key)]
