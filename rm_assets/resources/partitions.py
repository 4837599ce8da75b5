"""Recipes as Dagster partitions: the set of recipe files when the code location loads.

Apart from `recipes.py`, so that a command that only reads recipes can say what is wrong with their folder.
"""

import dagster as dg

from rm_assets.resources.recipes import recipe_book

RECIPES = dg.StaticPartitionsDefinition(recipe_book().partition_keys())
