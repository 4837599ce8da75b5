"""What is known of a recipe without running it: what the store holds, rows of files, shapes of models, the device here."""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from rm_assets.backends.machine import has_gpu
from rm_assets.core.errors import DataError, ModelError, RecipeError, StoreError
from rm_assets.core.planning.model_shape import ModelShape, shape_from_config
from rm_assets.core.planning.recipe_counts import Known, Made
from rm_assets.core.recipe import (
    SMALL_BATCHES,
    ClassifierGold,
    FileSource,
    ModelRef,
    PolicySampling,
    Recipe,
    RecordedResponses,
    TaskName,
    scorers_of,
)
from rm_assets.core.stages import STAGES, asset_of
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.model_configs import find_config, read_config
from rm_assets.storage.sources import read_rows
from rm_assets.storage.store import Store
from rm_assets.tasks.benchmarks import read_benchmark

SYSTEM = sys.platform


def small_batches(recipe: Recipe, notes: list[str]) -> set[str]:
    """The tasks whose device is a CPU or Apple's GPU, on which a forward pass has fewer tokens.

    With `device: auto` that is what the task's executor asks for, or else what is here.
    """
    execution = recipe.execution
    if execution.device != "auto":
        return set(get_args(TaskName) if execution.device in SMALL_BATCHES else ())
    is_small_here = not has_gpu() or SYSTEM == "darwin"
    has_accelerator = {task: execution.executor_of(task).has_accelerator for task in get_args(TaskName)}
    place = execution.executor_of("train").kind
    if has_accelerator["train"] is False:
        notes.append(f"the training is given no GPU or TPU (by {place}), so its plan is for a CPU")
    elif has_accelerator["train"] is None and not has_gpu():
        what = "no GPU is here" if place == "local" else f"what the training has there (by {place}) is not known here"
        notes.append(f"execution.device is auto and {what}, so the plan is for a CPU: set it to cuda to plan for a GPU")
    return {task for task, has in has_accelerator.items() if has is False or (has is None and is_small_here)}


def find_known(recipe: Recipe, model_config: Path | None, notes: list[str], store: Store | None = None) -> Known:
    """All that the plan can use; `notes` gets what could not be found out, and why."""
    made = _made(store or Store(find_home()), recipe, notes)
    rows = _rows_of_files(recipe, notes) if "prompts" not in made else {}
    shapes = _shapes(recipe, model_config, notes)
    recorded = None
    if "evaluation_report" not in made and isinstance(recipe.sampling, RecordedResponses):
        recorded = _recorded_of_files(recipe, recipe.sampling, notes)
        if recorded is None and "implicit_pairs" not in made:
            notes.append(
                "recorded responses are counted when they are read: "
                f"`rm-assets run {recipe.name} --select '*implicit_pairs'` needs no model unless gold is one"
            )
    return Known(
        made=made, num_source_rows=rows.get("source"), num_test_rows=rows.get("test"), recorded=recorded, shapes=shapes,
        num_benchmark_responses=None if "evaluation_report" in made else _benchmark_responses(recipe, notes),
        small_batches=small_batches(recipe, notes),
    )  # fmt: skip


def _made(store: Store, recipe: Recipe, notes: list[str]) -> dict[str, Made]:
    """What is committed as the recipe wants it now. A missing source is a note: the plan stands without it."""
    fingerprint: Callable[[str], str] = functools.cache(
        Fingerprints(store.home / "fingerprints", remembers=False).of
    )  # fmt: skip
    made: dict[str, Made] = {}
    assets = dict.fromkeys(STAGES, recipe) | STAGES["evaluation_report"].reads(recipe)
    for name, of in assets.items():
        try:
            manifest = wanted(store, of, asset_of(name), fingerprint).manifest
        except (DataError, RecipeError) as error:
            notes.append(f"{name}: {error.what}")
            break
        except StoreError as error:
            if error.code != "STORE_002":
                raise
            continue  # what it reads is not made
        if manifest is not None:
            made[name] = Made(manifest.counts, manifest.facts, manifest.work)
    return made


def _rows_of_files(recipe: Recipe, notes: list[str]) -> dict[str, int]:
    """Rows of the prompts' files: the most prompts that they can give."""
    rows: dict[str, int] = {}
    for name, source in (("source", recipe.prompts.source), ("test", recipe.prompts.test)):
        if isinstance(source, FileSource):
            try:
                rows[name] = sum(1 for _ in read_rows(source))
            except (DataError, RecipeError) as error:
                notes.append(f"prompts: {error.what}")
        elif source is not None and source.kind == "dataset" and recipe.prompts.max_prompts is None:
            notes.append(
                f"prompts: the rows of {source.dataset} are counted when it is read; set max_prompts for a bound"
            )
    return rows


def _benchmark_responses(recipe: Recipe, notes: list[str]) -> int | None:
    """Answers of all benchmarks of the evaluation; None where one is not in files."""
    number = 0
    for benchmark in recipe.evaluation.benchmarks:
        if not isinstance(benchmark.source, FileSource):
            notes.append("evaluation: the answers of a benchmark on the Hub are counted when it is read")
            return None
        try:
            number += sum(len(row.conversations) for row in read_benchmark(benchmark))
        except (DataError, RecipeError) as error:
            notes.append(f"evaluation: {error.what}")
            return None
    return number


def _recorded_of_files(
    recipe: Recipe, section: RecordedResponses, notes: list[str]
) -> tuple[list[int], list[int]] | None:
    """Responses of each prompt in the rows, as `Known` has them; None where they or the test prompts are in no file."""
    prompts, source = recipe.prompts, section.source
    if not isinstance(source, FileSource) or not isinstance(prompts.test, FileSource | None):
        return None
    test_field = prompts.prompt_field if section.align == "prompt" else prompts.id_field
    try:
        test = (
            {row.optional_text(test_field) for row in read_rows(prompts.test)}
            if isinstance(prompts.test, FileSource)
            else set()
        )
        rows = Counter(
            str(number) if section.align == "row" else row.optional_text(section.prompt_field)
            for number, row in enumerate(read_rows(source))
        )
    except (DataError, RecipeError) as error:
        notes.append(f"sampled_responses: {error.what}")
        return None
    of_row = len(section.response_fields)
    return (
        [of_row * number for prompt, number in rows.items() if prompt not in test],
        [of_row * number for prompt, number in rows.items() if prompt in test],
    )


def _shapes(recipe: Recipe, model_config: Path | None, notes: list[str]) -> dict[str, ModelShape]:
    """Shapes of the recipe's models by location; `model_config` is that of the base."""
    refs: list[ModelRef] = [recipe.training.base]
    refs += [recipe.sampling.policy] if isinstance(recipe.sampling, PolicySampling) else []
    refs += [gold.model for gold in scorers_of(recipe.gold).values() if isinstance(gold, ClassifierGold)]
    shapes: dict[str, ModelShape] = {}
    if model_config is not None:
        shapes[recipe.training.base.location] = shape_from_config(read_config(model_config))
    for ref in refs:
        if ref.location in shapes:
            continue
        try:
            config = find_config(ref)
            if config is not None:
                shapes[ref.location] = shape_from_config(config)
                continue
            reason = "it is neither on this disk nor in the table of known models"
        except ModelError as error:
            reason = error.what
        fix = ": give --model-config PATH" if ref.location == recipe.training.base.location else ""
        notes.append(f"shape of {ref.location} unknown ({reason}){fix}")
    return shapes
