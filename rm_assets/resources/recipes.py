"""Recipes as Dagster partitions: the set of recipe files when the code location loads."""

import os
from pathlib import Path

import dagster as dg

from rm_assets.core.recipe_files import RecipeBook


def recipe_book() -> RecipeBook:
    """The shipped recipes and those in the folder RM_ASSETS_RECIPES."""
    folder = os.environ.get("RM_ASSETS_RECIPES")
    return RecipeBook(Path(folder).expanduser() if folder else None)


RECIPES = dg.StaticPartitionsDefinition(recipe_book().partition_keys())
