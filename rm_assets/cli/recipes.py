"""`rm-assets recipes`: list, show, validate, schema."""

import json
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe_files import json_schema
from rm_assets.resources.recipes import recipe_book

app = typer.Typer(no_args_is_help=True, help="Look at recipes.")


@app.command("list")
def list_recipes() -> None:
    """Every recipe with its description; a broken one says so."""
    book = recipe_book()
    table = Table("recipe", "description")
    for key in book.partition_keys():
        try:
            table.add_row(key, escape(book.load(key).description))
        except RecipeError as error:
            table.add_row(key, f"not valid, {error.code}: rm-assets recipes validate {key}", style="red")
    Console().print(table)


@app.command()
def show(recipe: Annotated[str, typer.Argument(help="Name of the recipe.")]) -> None:
    """A recipe as it is used: with what it extends and every default filled in."""
    print(
        yaml.safe_dump(recipe_book().load(recipe).model_dump(mode="json"), sort_keys=False, allow_unicode=True), end=""
    )


@app.command()
def validate(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes to check; all when none is named.")] = None,
) -> None:
    """Check recipes without running them; exit status 1 if one is not valid."""
    book = recipe_book()
    broken = 0
    for key in names or book.partition_keys():
        try:
            book.load(key)
            print(f"{key}: valid")
        except RecipeError as error:
            broken += 1
            print(f"{key}: {error}")
    if broken:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """The JSON schema of a recipe file, for editors."""
    print(json.dumps(json_schema(), indent=2))
