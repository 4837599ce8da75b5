"""`rm-assets evaluate` and `rm-assets compare`: any reward models on the test responses of a recipe."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.cli.json_output import print_json
from rm_assets.core.recipe import DatasetSource, FileSource, Recipe, RewardBench
from rm_assets.core.report.comparison_table import (
    HEADER,
    as_csv,
    conclusion,
    disagreement_texts,
    left_out_text,
    text_rows,
)
from rm_assets.core.report.markdown import render_comparison
from rm_assets.core.report.plots import forest
from rm_assets.core.report.texts import count_text, interval_text, percent
from rm_assets.resources.comparison import compare_models_on
from rm_assets.resources.judgement import Judged, find_models, judge, load_first
from rm_assets.storage.files import whole_file, write_text
from rm_assets.storage.home import find_home
from rm_assets.storage.store import Store

ON_THE_HUB = {
    "reward_bench": DatasetSource(kind="dataset", dataset="allenai/reward-bench", split="filtered"),
    "reward_bench_2": DatasetSource(kind="dataset", dataset="allenai/reward-bench-2", split="test"),
}


def evaluate(
    models: Sequence[str], on: str, *, benchmarks: dict[str, str], max_length: int | None, as_json: bool
) -> None:
    """Scores the models and prints how each does; `benchmarks` are files of rows, or `hub`, by kind."""
    recipe = _with_benchmarks(load_first(on), benchmarks)
    store = Store(find_home())
    found = judge(
        store, recipe, find_models(store, recipe, models, max_length=max_length), needs_reports=True, say=_say
    )
    if as_json:
        rows = [{"model": each.candidate.name, "report": each.report} for each in found]
        print_json({"on": on, "models": rows})
    else:
        _print_evaluation(found, Console(highlight=False))


def _with_benchmarks(recipe: Recipe, benchmarks: dict[str, str]) -> Recipe:
    given = [
        RewardBench.model_validate(
            {
                "kind": kind,
                "source": ON_THE_HUB[kind]
                if where == "hub"
                else FileSource(kind="files", files=[str(Path(where).resolve())]),
            }
        )
        for kind, where in benchmarks.items()
    ]
    if not given:
        return recipe
    evaluation = recipe.evaluation.model_copy(update={"benchmarks": [*recipe.evaluation.benchmarks, *given]})
    return recipe.model_copy(update={"evaluation": evaluation})


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _print_evaluation(found: Sequence[Judged], console: Console) -> None:
    table = Table(
        "model", "match rate", "95 % interval", "n", "length-balanced", "calibration error", "train", "validation"
    )
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for each in found:
        report = each.report
        match, balanced = report["match_rate"], report["without_length"]["balanced"]
        error = report["calibration"]["expected_calibration_error"]["value"]
        table.add_row(
            each.candidate.name, percent(match["value"]), interval_text(match), count_text(match["n"]),
            percent(balanced and balanced["value"]), f"{100 * error:.1f} points",
            percent(report["train_accuracy"]["value"]), percent(report["validation_accuracy"]["value"]),
        )  # fmt: skip
    length = found[0].report["length_baseline"]
    table.add_row(length["rule"], percent(length["value"]), interval_text(length), count_text(length["n"]))
    console.print(table)
    _print_benchmarks(found, console)
    for each in found:
        if left_out := each.report["num_test_prompts_over_length"]:
            console.print(
                f"{each.candidate.name}: {left_out:,} test prompts leave it no room for a response and are left out"
            )
    for each in found:
        console.print(f"\n[bold]{each.candidate.name}[/bold]: {each.report['verdict']}", soft_wrap=True)
        for sign in each.report["diagnosis"]:
            console.print(
                f"  {sign['severity']}: [bold]{sign['sign']}[/bold]: {sign['evidence']}. Remedy: {sign['remedy']}.",
                soft_wrap=True,
            )


def _print_benchmarks(found: Sequence[Judged], console: Console) -> None:
    """A table a benchmark, a column a model."""
    for place, first in enumerate(found[0].report["benchmarks"]):
        table = Table(first["title"], *(each.candidate.name for each in found))
        results = [each.report["benchmarks"][place] for each in found]
        table.add_row("score", *(f"{percent(r['score'])} ({interval_text(r['intervals']['score'])})" for r in results))
        for part in ("sections", "subsets"):
            for name in first[part]:
                table.add_row(f"  {name}" if part == "subsets" else name, *(percent(r[part][name]) for r in results))
        console.print(table)


def compare(
    models: Sequence[str],
    on: str,
    *,
    max_length: int | None,
    as_json: bool,
    as_markdown: bool,
    csv_file: Path | None,
    plot: Path | None,
) -> None:
    """Compares the models on the same pairs and prints, best first, how far each is behind."""
    recipe, store = load_first(on), Store(find_home())
    found, _ = compare_models_on(store, recipe, models, max_length=max_length, say=_say)
    if csv_file is not None:
        write_text(csv_file, as_csv(found))
    if plot is not None:
        with whole_file(plot) as temporary:
            temporary.write_bytes(forest(found, length=found["length"]))
    if as_json:
        print_json({"on": on, **found, "conclusion": conclusion(found)})
    elif as_markdown:
        print(render_comparison(found), end="")
    else:
        _print_comparison(found, Console(highlight=False))


def _print_comparison(found: dict[str, Any], console: Console) -> None:
    table = Table(*HEADER)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for row in text_rows(found):
        table.add_row(*row)
    console.print(table)
    for sentence in (conclusion(found), *disagreement_texts(found), *left_out_text(found)):
        console.print(sentence, soft_wrap=True)
