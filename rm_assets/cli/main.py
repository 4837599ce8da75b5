"""`rm-assets`: build a recipe, look at recipes and results. Everything it builds is a run in Dagster."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from rm_assets import __version__
from rm_assets.cli import recipes, results
from rm_assets.core.errors import RmAssetsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reward-model development as a graph of versioned assets.",
)
app.add_typer(recipes.app, name="recipes")
LOG_LEVELS = ("debug", "info", "warning", "error")


@app.callback()
def common(
    context: typer.Context, log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info"
) -> None:
    """Options of all commands."""
    if log_level.lower() not in LOG_LEVELS:
        raise typer.BadParameter(f"'{log_level}' is none of {', '.join(LOG_LEVELS)}", param_hint="--log-level")
    context.obj = log_level.upper()


@app.command()
def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of the recipe, as `rm-assets recipes list` shows it.")],
    select: Annotated[
        str,
        typer.Option(
            help="Assets to make, in Dagster's selection syntax, for example `*implicit_pairs`: it and all before it."
        ),
    ] = "*",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few prompts and ten steps: shows that every part works.")
    ] = False,
) -> None:
    """Make what is out of date of a recipe: prompts to released reward model."""
    from rm_assets.cli.run import build

    if not build(recipe, select=select, smoke=smoke, log_level=context.obj):
        raise typer.Exit(1)


@app.command()
def show(
    asset: Annotated[str, typer.Argument(help="One of the seven assets.")],
    recipe: Annotated[str, typer.Option(help="Name of the recipe.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: report.json for evaluation_report, else manifest and path.")
    ] = False,
) -> None:
    """What a recipe's asset holds, as it is now."""
    found = results.find(recipe, asset)
    if as_json:
        json.dump(found.as_json(), sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        found.print(Console())


@app.command()
def version() -> None:
    """The version of rm_assets."""
    print(__version__)


def main() -> None:
    """Entry point: errors that a user can mend are one message and exit status 1, not a traceback."""
    try:
        app(standalone_mode=True)
    except RmAssetsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
