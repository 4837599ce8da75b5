"""The recipes that are there: those that ship with the package, and the user's."""

import os
from pathlib import Path

from rm_assets.core.recipe_files import RecipeBook


def recipe_book() -> RecipeBook:
    """The shipped recipes and those in the folder RM_ASSETS_RECIPES."""
    folder = os.environ.get("RM_ASSETS_RECIPES")
    return RecipeBook(Path(folder).expanduser() if folder else None)
