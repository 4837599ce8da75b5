"""Whether this machine, its installation and the recipes are fit for work, each thing as one condition.

Nothing is changed: what a check writes, it removes. What is set in the environment is told, what it is set to is not.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from rm_assets.core.errors import RecipeError, RmAssetsError, SetupError
from rm_assets.core.health import Condition, Status, faulty, sound
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_needs import needs_of
from rm_assets.resources.health import installation, machine, network, recipes
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.store import Store


def examine(
    recipe: str | None, *, home: Path, dagster_home: Path, is_set: bool, load_definitions: Callable[[], str]
) -> Iterator[Condition]:
    """The conditions of everything, or of what one recipe needs. `is_set`: whether DAGSTER_HOME names `dagster_home`."""
    yield installation.python()
    yield from installation.packages()
    yield machine.processor()
    yield from machine.gpus()
    yield from machine.store(home)
    yield machine.executors()
    yield machine.dagster_instance(dagster_home, is_set=is_set)
    yield _definitions(load_definitions)
    yield from _recipes(recipe, home)


def _definitions(load: Callable[[], str]) -> Condition:
    try:
        return sound("definitions", load())
    except RmAssetsError as error:
        return faulty("definitions", error)
    except Exception as error:  # noqa: BLE001  whatever an installed package brings about when it is imported
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        fix = "mend the packages that are named above; `dagster definitions validate` shows the whole traceback"
        return faulty("definitions", SetupError("SETUP_007", "the definitions do not load", why=said, fix=fix))


def _recipes(named: str | None, home: Path) -> Iterator[Condition]:
    """The recipes, or one, and what they need from the network. For one that is named, what is missing is an error."""
    book, loaded = recipe_book(), list[Recipe]()
    try:
        loaded, conditions = recipes.load_all(book, [named] if named else book.partition_keys())
    except RecipeError as error:
        conditions = [faulty("recipes", error)]
    yield from conditions
    needs = [needs_of(recipe) for recipe in loaded]
    status: Status = "error" if named else "warning"
    yield from network.credentials(needs, status)
    questions = [network.hub(needs), *network.wandb(needs), *network.servers(needs, status)]
    if named and loaded:
        yield from installation.extras(needs[0].extras)
        yield from recipes.on_disk(needs[0])
        yield from recipes.elsewhere(loaded[0], Store(home))
        yield from recipes.fit(loaded[0])
        questions += recipes.on_hub(needs[0])
    yield from network.ask_all(questions)
