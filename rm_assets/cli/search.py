"""`rm-assets search`: trials of other training settings, their table, and the best ones as a recipe file."""

import json
import math
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.cli.json_output import print_json
from rm_assets.cli.run import build
from rm_assets.core.errors import SearchError
from rm_assets.core.planning.training_plan import plan_training
from rm_assets.core.recipe import Recipe, SearchSection
from rm_assets.core.search import Trial, best_recipe_text, longest_trials, num_ties
from rm_assets.resources.compute import Compute
from rm_assets.resources.known import find_known
from rm_assets.resources.recipes import recipe_book
from rm_assets.resources.search import Searched, folder_of, run_search, search_of
from rm_assets.storage.files import write_text


def search(name: str, trials: int | None, *, force: bool, as_json: bool, log_level: str) -> bool:
    """Searches, prints the trials and writes the best one's recipe; False where it was cancelled or its data failed.

    Raises: RmAssetsError.
    """
    recipe, compute = recipe_book().load(name), Compute()
    section, store = search_of(recipe), compute.store()
    num_trials = trials or section.num_trials
    _say(f"store: {store.home}")
    _say(cost_line(recipe, section, num_trials))
    try:
        # Also where the pairs are made: nothing is trained on what a check refuses.
        with redirect_stdout(sys.stderr):  # the result of this command is the search
            if not build(name, select="*implicit_pairs", smoke=False, log_level=log_level):
                return False
        debug = _say if log_level == "DEBUG" else _ignore
        found = run_search(compute, recipe, num_trials=num_trials, say=_say, debug=debug)
    except KeyboardInterrupt:
        _say(f"cancelled: what is committed stays, `rm-assets search {name}` goes on")
        return False
    file = best_file(recipe)
    text = best_recipe_text(
        recipe, found.best, study=found.study, num_trials=len(found.trials), num_pairs=found.num_pairs
    )
    if as_json:
        _print_json(recipe, found, file)
    else:
        _print(recipe, found, Console(highlight=False))
    write_best(file, text, folder_of(store, recipe) / "best.yaml", force=force)
    _say(f"written: {file}; `rm-assets run {file.stem}` evaluates it on the test pairs, its model is made")
    return True


def cost_line(recipe: Recipe, search: SearchSection, num_trials: int) -> str:
    """What the search may cost at most, by the planner."""
    known = find_known(recipe, None, [])
    # What is made says what this recipe's own training took, and a trial's may take more.
    known = replace(known, made={asset: made for asset, made in known.made.items() if asset != "reward_model"})
    plans = [plan_training(longest, known, None) for longest in longest_trials(recipe, search)]
    num_trainings = int(min(num_trials, search.num_settings))
    most_steps = _most([plan.optimizer_steps.value for plan in plans])
    most_flops = _most([plan.flops for plan in plans])
    each = "an unknown number of" if most_steps is None else f"{most_steps:,}"
    total = "" if most_steps is None else f", {num_trainings * most_steps:,} in all"
    work = "" if most_flops is None else f"; {num_trainings * most_flops:.2e} operations"
    return (
        f"at most {num_trainings} training{'s' * (num_trainings > 1)} of {each} optimizer steps{total}{work}; "
        f"seconds of a step: `rm-assets plan {recipe.name} --probe`; each complete trial keeps its model in the store"
    )


def _most(values: list[int | None]) -> int | None:
    """The largest; None where one is unknown."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def best_file(recipe: Recipe) -> Path:
    """Beside the recipe's own file."""
    name = recipe.name.partition("@")[0]
    return recipe_book().files()[name].with_name(f"{name}-best.yaml")


def write_best(file: Path, text: str, kept: Path, *, force: bool) -> None:
    """Writes the recipe file; `kept` remembers what the search wrote last, so that no other file is overwritten.

    Raises: SearchError SEARCH_004.
    """
    if file.exists() and not force:
        there = file.read_text("utf-8")
        if there != text and not (kept.is_file() and there == kept.read_text("utf-8")):
            raise SearchError(
                "SEARCH_004", f"{file} is there, and not as the search has written it",
                why="somebody has written or changed it", fix="rename it, or give --force to overwrite it",
            )  # fmt: skip
    write_text(file, text)
    write_text(kept, text)


def _print(recipe: Recipe, found: Searched, console: Console) -> None:
    table = Table("trial", *found.best.settings, "accuracy", "", "seconds", title=f"search of {recipe.name}")
    for column in table.columns:
        column.overflow = "fold"
    for trial in found.trials:
        is_best = trial == found.best
        table.add_row(
            str(trial.number), *(_shown(trial.settings.get(name)) for name in found.best.settings),
            "" if trial.value is None else f"{trial.value:.4f}", "best" if is_best else _how(trial),
            "" if trial.seconds is None else f"{trial.seconds:.1f}", style="bold" if is_best else None,
        )  # fmt: skip
    console.print(table)
    if found.importance:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in found.importance.items())
        console.print(f"what tells good trials from bad (PED-ANOVA, sums to 1): {shares}", soft_wrap=True)
    ties, value = num_ties(found.trials, found.best), found.best.value or 0.0
    error = math.sqrt(value * (1 - value) / found.num_pairs)  # as if no two pairs shared a prompt
    console.print(
        f"best: trial {found.best.number}, {value:.4f} on {found.num_pairs:,} validation pairs, standard error at least {error:.3f}"
        + (f"; {ties} more have this value, and computed no fewer tokens" if ties else ""),
        soft_wrap=True,
    )


def _how(trial: Trial) -> str:
    if trial.state == "pruned":
        return f"pruned at {10 * (trial.tenths or 0)} %"
    if trial.state == "failed":
        return f"failed, {trial.error}"
    return "made before" if trial.was_there else ""


def _shown(value: Any) -> str:
    """A setting in few characters: of a mapping its kind, and its other keys."""
    if isinstance(value, dict):
        return ", ".join(v if key == "kind" else f"{key} {_shown(v)}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _print_json(recipe: Recipe, found: Searched, file: Path) -> None:
    plain = {
        "recipe": recipe.name, "study": found.study, "study_file": str(found.file), "num_validation_pairs": found.num_pairs,
        "trials": [trial.as_json() for trial in found.trials], "best": found.best.number,
        "importance": found.importance, "recipe_file": str(file),
    }  # fmt: skip
    print_json(plain)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _ignore(message: str) -> None:
    pass
