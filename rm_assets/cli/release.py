"""`rm-assets release`: the releases of this store, what `production` and `staging` name, and how to move them."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from rm_assets.cli.json_output import print_json
from rm_assets.core.errors import ReleaseError
from rm_assets.core.recipe import ReleaseSection
from rm_assets.storage.home import find_home
from rm_assets.storage.hub_models import publish_as_main
from rm_assets.storage.registry import ALIASES, Move, Registry, Release
from rm_assets.storage.store import Store, telling

if TYPE_CHECKING:
    from dagster import DagsterInstance

app = typer.Typer(no_args_is_help=True, help="Releases: list, show, publish, promote, roll back.")
Named = Annotated[str, typer.Argument(help="RECIPE-DIGEST, RECIPE@production, RECIPE@staging, or RECIPE: its newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_releases(
    recipe: Annotated[str | None, typer.Argument(help="Only the releases of this recipe.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was released and what was refused, newest first."""
    registry = Registry(Store(find_home()))
    releases = [r for r in registry.releases() if recipe in (None, r.line)]
    refused = [event for event in registry.events("refused") if recipe in (None, event["line"])]
    if as_json:
        print_json({"releases": [_as_json(registry, r) for r in releases], "refused": refused})
        return
    if not releases and not refused:
        print(f"No release{f' of {recipe!r}' if recipe else ''} is in the store {find_home()}, and none was refused.")
        return
    table = Table(Column("release", no_wrap=True), "alias", "match rate", "on the Hub", "built (UTC)")
    for release in releases:
        aliases = ", ".join(_aliases(registry, release))
        table.add_row(release.name, aliases, _rate(release), _place(release), _time(release.at))
    console = Console(highlight=False)
    console.print(table)
    for event in reversed(refused):
        console.print(
            f"refused {_time(event['at'])}: {event['line']}, report {event['report'][:12]}, {event['check']}: {event['why']}",
            soft_wrap=True, markup=False,
        )  # fmt: skip


@app.command()
def show(name: Named, as_json: AsJson = False) -> None:
    """One release: its files, where it lies on the Hub, and how its aliases moved."""
    registry = Registry(Store(find_home()))
    release = registry.find(name)
    moves = [event for event in registry.events("moved") if release.name in (event["before"], event["now"])]
    if as_json:
        print_json({**_as_json(registry, release), "moves": moves})
        return
    table = Table("", release.name)
    for key, value in (
        ("recipe", release.line), ("aliases", ", ".join(_aliases(registry, release))), ("match rate", _rate(release)),
        ("form", release.form), ("on the Hub", _place(release)), ("built", _time(release.at)), ("report", release.report),
    ):  # fmt: skip
        table.add_row(key, value)
    for event in moves:
        moved = f"{event['alias']}: {event['before'] or 'nothing'} -> {event['now']} by {event['who']}: {event['why']}"
        table.add_row(_time(event["at"]), escape(moved))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"path: {_path(release)}", soft_wrap=True, markup=False)


@app.command()
def publish(
    name: Named,
    to: Annotated[
        str | None, typer.Option(help="Repository on the Hub; when not given, the one that the recipe named.")
    ] = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check files and canaries as for a push, and push nothing.")
    ] = False,
) -> None:
    """Push a release to the Hub: one commit on a branch, downloaded again and scored, then its tag."""
    from rm_assets.resources.recipes import recipe_book
    from rm_assets.tasks import release as releasing

    store = Store(find_home())
    registry = Registry(store)
    release = registry.find(name)
    folder, recipe = registry.folder(release), recipe_book().load(release.line)
    manifest = store.manifest("hub_release", release.digest)
    assert manifest is not None, "the registry has just found its files"
    # As it was built: the recipe may name another tag by now.
    recipe = recipe.model_copy(update={"release": ReleaseSection.model_validate(manifest.settings)})
    report = json.loads((folder / "report.json").read_text("utf-8"))
    device = partial(store.device, partial(telling, partial(print, file=sys.stderr)))
    difference = releasing.validate(folder, report, recipe, device)
    print(f"{release.name} is whole; largest difference of a canary's reward: {difference:.2g}")
    if validate_only:
        return
    repo = to or recipe.release.hub_id
    if repo is None:
        raise ReleaseError(
            "RELEASE_003",
            f"{release.name} has nowhere to go",
            why=f"recipe '{release.line}' named no release.hub_id when it was built",
            fix="give --to OWNER/NAME",
        )
    hub = releasing.publish(folder, repo, release.name, report, recipe, device)
    registry.pushed(release, hub)
    print(f"{release.name} is {hub['repo']}, tag {hub['tag']}, commit {hub['commit']}")


@app.command()
def promote(
    name: Named,
    to: Annotated[str, typer.Option(help="production or staging.")],
    why: Annotated[str, typer.Option(help="Reason, for the record.")] = "",
) -> None:
    """Make an alias name this release. Of a pushed one, `production` is also `main` on the Hub."""
    if to not in ALIASES:
        raise typer.BadParameter(f"'{to}' is none of {', '.join(ALIASES)}", param_hint="--to")
    registry = Registry(Store(find_home()))
    release = registry.find(name)
    with _instance() as instance:
        _follow_on_hub(registry, release, to)
        move = registry.move(release, to, why=why)
        if move is None:
            print(f"{to} of '{release.line}' names {release.name} already")
        else:
            _tell(instance, move)


@app.command()
def rollback(
    recipe: Annotated[str, typer.Argument(help="The recipe whose production goes back to the release before.")],
    why: Annotated[str, typer.Option(help="Reason, for the record.")] = "",
) -> None:
    """Make `production` name what it named before."""
    registry = Registry(Store(find_home()))
    before = registry.previous(recipe)
    with _instance() as instance:
        _follow_on_hub(registry, before, "production")
        _tell(instance, registry.roll_back(recipe, why=why))


def _follow_on_hub(registry: Registry, release: Release, alias: str) -> None:
    """The files must be there; `main` of the Hub becomes what production will name, before the alias does."""
    folder: Path = registry.folder(release)
    if alias == "production" and release.hub:
        commit = publish_as_main(folder, release.hub["repo"], release.hub["tag"])
        print(f"{release.hub['repo']}: main is {release.hub['tag']}, commit {commit}")


def _instance() -> "DagsterInstance":
    """Opened before anything moves: a rollback that moved and then failed would be asked for again, and go back twice."""
    from dagster import DagsterInstance

    from rm_assets.cli.run import point_dagster_home

    point_dagster_home(Console(stderr=True, highlight=False))
    return DagsterInstance.get()


def _tell(instance: "DagsterInstance", move: Move) -> None:
    """Says what moved, here and to Dagster, where it is an event of the asset."""
    from dagster import AssetObservation

    said = f"{move.alias}: {move.before or 'nothing'} -> {move.now}"
    print(f"{move.line}: {said}")
    moved = {f"release/{key}": str(value) for key, value in asdict(move).items()}
    instance.report_runless_asset_event(
        AssetObservation("hub_release", partition=move.line, description=said, metadata=moved)
    )


def _as_json(registry: Registry, release: Release) -> dict[str, Any]:
    return {**asdict(release), "aliases": _aliases(registry, release), "path": str(_path(release))}


def _path(release: Release) -> Path:
    return find_home() / "hub_release" / release.digest / "release"


def _place(release: Release) -> str:
    return f"{release.hub['repo']}@{release.hub['tag']}" if release.hub else ""


def _time(at: str) -> str:
    """To the minute, in UTC."""
    return at[:16].replace("T", " ")


def _aliases(registry: Registry, release: Release) -> list[str]:
    return [alias for alias, name in registry.aliases(release.line).items() if name == release.name]


def _rate(release: Release) -> str:
    rate = release.match_rate
    return f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f})"
