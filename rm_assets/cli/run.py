"""`rm-assets run`: one recipe through the graph, as a Dagster run in this process, and what came of it."""

import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.core.errors import RecipeError
from rm_assets.core.recipe import LimitedCheck, LocalExecutor, Recipe
from rm_assets.core.recipe_faults import suggestion
from rm_assets.core.smoke import smoke_recipe
from rm_assets.core.stages import STAGES
from rm_assets.executors.readiness import require_ready
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.files import write_text
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home, find_workspace
from rm_assets.storage.lineage import committed
from rm_assets.storage.store import Store


def build(recipe: str, *, select: str, smoke: bool, log_level: str) -> bool:
    """Runs the graph and prints a result table; True when every step went well. Raises: RmAssetsError."""
    loaded = recipe_book().load(recipe)  # a faulty recipe is one clear sentence, before anything starts
    console = Console(stderr=True, highlight=False)
    console.print(f"store: {Store(find_home())}")
    started = time.monotonic()
    result = _execute(recipe, select=select, smoke=smoke, log_level=log_level, console=console)
    waits = False
    for event in result.filter_events(lambda e: e.is_step_failure):
        cause = event.step_failure_data
        if cause.error and cause.error.cls_name == "DagsterExecutionInterruptedError":
            print("cancelled: what is committed stays, run again to go on", file=sys.stderr)
            continue
        if cause.error and cause.error.cls_name == "DagsterAssetCheckFailedError":
            continue  # the check says below what it found
        said = cause.user_failure_data
        text = (said and said.description) or (cause.error and cause.error.message) or "failed"
        is_waiting = "[DATA_013]" in text
        waits = waits or is_waiting
        print(f"{'waiting' if is_waiting else 'error'}: {text}", file=sys.stderr)
    if smoke:
        print("SMOKE RUN: it shows that every part works; its numbers mean nothing.")
    end = "done" if result.success else "waiting" if waits else "failed"
    _print_results(result, loaded, Console(), f"{end} after {time.monotonic() - started:.0f} s")
    return bool(result.success)


def _require_sources(recipe: Recipe, assets: set[str]) -> None:
    """Finds every local file and checkpoint that the recipe names, and what its executors need, before hours go into what comes
    before it.

    Raises: DataError DATA_001, RecipeError RECIPE_003, ExecutorError EXECUTOR_001 to EXECUTOR_003.
    """
    store = Store(find_home())
    fingerprints = Fingerprints(store.home / "fingerprints")
    for asset in assets:
        STAGES[asset].settings(recipe, fingerprints.of)
    for asset in assets:
        executor = recipe.execution.executor_of(STAGES[asset].task)
        if not isinstance(executor, LocalExecutor) and committed(store, recipe, asset) is None:
            require_ready(executor, store)


def _execute(recipe: str, *, select: str, smoke: bool, log_level: str, console: Console) -> Any:
    import dagster as dg

    from rm_assets.definitions import defs

    if smoke:
        instance = dg.DagsterInstance.ephemeral()
    else:
        point_dagster_home(console)
        instance = dg.DagsterInstance.get()
    try:
        selection = dg.AssetSelection.assets(*STAGES) if select == "*" else dg.AssetSelection.from_string(select)
        selected = selection.resolve(defs.resolve_asset_graph())
    except dg.DagsterError:
        near = next(
            filter(None, (suggestion(word, STAGES) for word in re.findall(r"\w+", select) if word not in STAGES)), ""
        )
        raise RecipeError(
            "RECIPE_003", f"--select: {select!r} selects nothing", why=near or "Dagster cannot read it",
            fix=f"assets are {', '.join(STAGES)}; `*prompts` is one and all before it, `key:prompts or key:gold_rewards` are two",
        ) from None  # fmt: skip
    # What follows from several recipes, such as their comparison, is no part of the run of one.
    keys = {key for key in selected if key.to_user_string() in STAGES}
    if not keys:
        raise RecipeError(
            "RECIPE_003",
            f"--select: {select!r} selects no asset of a recipe",
            fix=f"assets are {', '.join(STAGES)}; models of several recipes are compared by `rm-assets compare`",
        )
    loaded = recipe_book().load(recipe)
    _require_sources(smoke_recipe(loaded) if smoke else loaded, {key.to_user_string() for key in keys})
    job = defs.resolve_job_def("build_reward_model")
    with instance:
        return job.execute_in_process(
            run_config={
                "loggers": {"plain": {"config": {"log_level": log_level}}},
                "resources": {"compute": {"config": {"smoke": smoke}}},
            },
            instance=instance,
            partition_key=recipe,
            asset_selection=sorted(keys),
            raise_on_error=False,
        )


def default_dagster_home() -> Path:
    """What stands for DAGSTER_HOME where it is not set: the checkout, else `dagster` in the store."""
    workspace = find_workspace()
    return workspace if workspace and (workspace / "dagster.yaml").is_file() else find_home() / "dagster"


def point_dagster_home(console: Console) -> None:
    """Sets DAGSTER_HOME where it is not set."""
    if not os.environ.get("DAGSTER_HOME"):
        home = default_dagster_home()
        if not (home / "dagster.yaml").is_file():
            write_text(home / "dagster.yaml", (Path(__file__).parent / "dagster.yaml").read_text("utf-8"))
        os.environ["DAGSTER_HOME"] = str(home)
    console.print(f"Dagster instance: {os.environ['DAGSTER_HOME']}")


def _print_results(result: Any, recipe: Recipe, console: Console, end: str) -> None:
    """One line an asset, what the checks found, the verdict on the model, how it ended, and where to look next."""
    made = {
        e.asset_key.to_user_string(): e.materialization.metadata
        for e in result.get_asset_materialization_events()
        if e.asset_key and e.materialization
    }
    table = Table("asset", "rows", "computed in this run", "seconds")
    for asset in STAGES:
        if asset in made:
            metadata = {key: value.value for key, value in made[asset].items()}
            work = [
                f"{value:,} {key.removeprefix('work/').replace('_', ' ')}"
                for key, value in metadata.items()
                if key.startswith("work/")
            ]
            rows = metadata.get("dagster/row_count")
            was_made = metadata["rm/was_made_before"]
            table.add_row(
                asset,
                f"{rows:,}" if rows is not None else "",
                "; ".join(work),
                "made before" if was_made else str(metadata["rm/seconds"]),
            )
    if made:
        console.print(table)
    _print_checks(result, recipe, console)
    if "evaluation_report" in made:
        _print_verdict(Path(str(made["evaluation_report"]["rm/folder"].value)), console)
    if "hub_release" in made:
        console.print(f"release:      {made['hub_release']['rm/path'].value}", soft_wrap=True)
    console.print(end)
    if "hub_release" in made and find_workspace():
        console.print(
            f"next: `make ui` shows the graph; `rm-assets show evaluation_report --recipe {recipe.name}` prints the report",
            soft_wrap=True,
        )


def _print_checks(result: Any, recipe: Recipe, console: Console) -> None:
    """What the checks found and by which limit, how many found nothing, and how many had nothing to look at."""
    evaluations = result.get_asset_check_evaluations()
    failed = [evaluation for evaluation in evaluations if not evaluation.passed]
    for evaluation in sorted(failed, key=lambda e: e.severity.value):
        word = "error" if evaluation.severity.value == "ERROR" else "warning"
        asset = evaluation.asset_key.to_user_string()
        settings = getattr(recipe.checks, evaluation.check_name, None)
        limit = (
            f" (limit {settings.limit:g}; checks.{evaluation.check_name})" if isinstance(settings, LimitedCheck) else ""
        )
        console.print(
            f"{word}: {asset}, {evaluation.check_name}: {evaluation.description}{limit}", soft_wrap=True, markup=False
        )
    idle = Counter(e.description for e in evaluations if not e.metadata["rm/looked"].value)
    if evaluations:
        num_looked = len(evaluations) - idle.total()
        sentence = f"{num_looked - len(failed)} of {num_looked} checks passed"
        if idle:
            reasons = "; ".join(f"{reason} ({number})" for reason, number in idle.most_common())
            sentence += f", {idle.total()} looked at nothing: {reasons}"
        console.print(sentence, soft_wrap=True, markup=False)


def _print_verdict(folder: Path, console: Console) -> None:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    match, length, form = report["match_rate"], report["length_baseline"], report["format_baseline"]
    table = Table("match rate with gold on test prompts", "value", "95 % interval", "n")
    table.add_row(
        "[bold]reward model[/bold]",
        f"[bold]{match['value']:.3f}[/bold]",
        f"{match['low']:.3f} to {match['high']:.3f}",
        str(match["n"]),
    )
    for name, baseline in ((f"length only ({length['rule']})", length), ("format only", form)):
        if baseline:
            table.add_row(
                name, f"{baseline['value']:.3f}", f"{baseline['low']:.3f} to {baseline['high']:.3f}", str(baseline["n"])
            )
    train = report["train_accuracy"]
    if train["n"]:
        table.add_row(
            "training pairs", f"{train['value']:.3f}", f"{train['low']:.3f} to {train['high']:.3f}", str(train["n"])
        )
    console.print(table)
    console.print(f"tie rate {match['tie_rate']:.3f} ({match['num_ties']} pairs with equal gold left out)")
    console.print(report["verdict"])
    if "learning_curve" in report:
        console.print(report["learning_curve"]["answer"])
    console.print(f"report:       {folder / 'report.html'}", soft_wrap=True)
