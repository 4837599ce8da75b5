"""`rm-assets plan`: finds out what is known of a recipe without running it, and prints the plan."""

import functools
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.cli.plan_tables import print_plan
from rm_assets.core.errors import DataError, ModelError, PlanError, RecipeError, StoreError
from rm_assets.core.guidance import SERVICE_GUIDANCE, PlanWarning, pair_warnings, service_warnings
from rm_assets.core.model_shape import ModelShape, shape_from_config
from rm_assets.core.plan import Probe, num_optimizer_steps
from rm_assets.core.prices import LIST_PRICES, DevicePrice, parse_prices
from rm_assets.core.recipe import ClassifierGold, FileSource, ModelRef, PolicySampling, Recipe, RecordedResponses
from rm_assets.core.recipe_counts import Known, Made
from rm_assets.core.recipe_plan import RecipePlan, plan_recipe
from rm_assets.core.stages import STAGES
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.home import find_home
from rm_assets.storage.lineage import wanted
from rm_assets.storage.model_configs import find_config, read_config
from rm_assets.storage.sources import read_rows
from rm_assets.storage.store import Store


@dataclass(frozen=True)
class StepQuestion:
    """The numbers of a training that is no recipe."""

    pairs: int | None
    prompts: int | None
    batch_size: int
    reward_epochs: float | None
    rl_epochs: float | None
    model: str | None


def print_steps(question: StepQuestion, *, as_json: bool) -> None:
    """Optimizer steps from plain numbers; warnings go to stderr or into the JSON. Raises: PlanError PLAN_001."""
    if question.pairs is None and question.prompts is None:
        raise PlanError(
            "PLAN_001", "there is nothing to plan", why="neither a recipe nor --pairs nor --prompts was given",
            fix="name a recipe, or give --pairs with --reward-epochs, or --prompts with --rl-epochs",
        )  # fmt: skip
    if question.model is not None and question.model not in SERVICE_GUIDANCE:
        raise PlanError(
            "PLAN_001", f"there is no guidance for the model '{question.model}'",
            fix=f"one of {', '.join(SERVICE_GUIDANCE)}, or leave --model out",
        )  # fmt: skip
    reward_steps = _steps("pairs", question.pairs, "--reward-epochs", question.reward_epochs, question.batch_size)
    rl_steps = _steps("prompts", question.prompts, "--rl-epochs", question.rl_epochs, question.batch_size)
    warnings = [
        *(pair_warnings(question.pairs) if question.pairs is not None else []),
        *service_warnings(
            reward_epochs=question.reward_epochs,
            rl_epochs=question.rl_epochs,
            model=question.model,
            reward_steps=reward_steps,
        ),
    ]
    if not as_json:
        _print_steps_table(question, reward_steps, rl_steps)
        _print_warnings(warnings)
        return
    found: dict[str, Any] = {"reward_model_steps": reward_steps, "reinforcement_learning_steps": rl_steps}
    if question.model is not None:
        found["guidance"] = asdict(SERVICE_GUIDANCE[question.model])
    if warnings:
        found["warnings"] = [asdict(warning) for warning in warnings]
    print(json.dumps(found))


def _steps(what: str, number: int | None, option: str, epochs: float | None, batch_size: int) -> int | None:
    if number is None and epochs is not None:
        raise PlanError(
            "PLAN_001", f"{option} has no --{what} with it", why="steps are epochs times steps of an epoch",
            fix=f"give --{what}, or leave {option} out",
        )  # fmt: skip
    if number is None:
        return None
    if epochs is None or not 0 < epochs < float("inf"):
        raise PlanError(
            "PLAN_001", f"--{what} {number} has no number of epochs above 0 with it",
            why="steps are epochs times steps of an epoch", fix=f"give {option}, for example {option} 10",
        )  # fmt: skip
    return num_optimizer_steps(number, batch_size, epochs)


def _print_steps_table(question: StepQuestion, reward_steps: int | None, rl_steps: int | None) -> None:
    table = Table("training", "examples", "a step", "epochs", "optimizer steps")
    rows = (
        ("reward model", question.pairs, question.reward_epochs, reward_steps),
        ("reinforcement learning", question.prompts, question.rl_epochs, rl_steps),
    )
    for name, number, epochs, steps in rows:
        if number is not None:
            table.add_row(name, f"{number:,}", str(question.batch_size), f"{epochs:g}", f"{steps:,}")
    Console().print(table)
    if question.model:
        entry = SERVICE_GUIDANCE[question.model]
        print(
            f"recommended for {entry.model}: {entry.steps[0]:,} to {entry.steps[1]:,} reward-model steps, learning-rate "
            f"multiplier {entry.learning_rate_multiplier:g}, KL coefficient {entry.kl_coefficient:g}"
        )


def _print_warnings(warnings: list[PlanWarning]) -> None:
    for warning in warnings:
        print(f"warning: {warning.text}", file=sys.stderr)


def refuse(options: Mapping[str, object], why: str) -> None:
    """Raises PlanError PLAN_001 where one of these options is given: none is dropped silently."""
    for name, value in options.items():
        if value is not None:
            raise PlanError("PLAN_001", f"{name} {why}", fix="leave out one of the two")


def probe_of(seconds_per_step: float | None, device: str | None) -> Probe | None:
    """The measurement that the two options give together. Raises: PlanError PLAN_001."""
    if seconds_per_step is None and device is None:
        return None
    if seconds_per_step is None or device is None or not 0 < seconds_per_step < float("inf"):
        raise PlanError(
            "PLAN_001", "a measured step needs --seconds-per-step above 0 and --device",
            why="a step takes another time on every device", fix="for example `--seconds-per-step 1.9 --device H100`",
        )  # fmt: skip
    return Probe(seconds_per_step, device)


def print_recipe_plan(name: str, *, model_config: Path | None, probe: Probe | None, as_json: bool) -> None:
    """The plan of a recipe, as tables or as one JSON object. Raises: RecipeError, ModelError, PlanError, StoreError."""
    plan = make_plan(recipe_book().load(name), model_config=model_config, probe=probe)
    if as_json:
        print(json.dumps(plan.as_json(), indent=2))
    else:
        print_plan(plan, Console(highlight=False))


def print_probed_plan(name: str, device: str, *, model_config: Path | None, as_json: bool) -> None:
    """As `print_recipe_plan`, after ten real optimizer steps on this machine. Raises also what a training raises."""
    from rm_assets.cli.probe import measure

    _require_price(device, _prices())
    probe = measure(recipe_book().load(name), device)
    print_recipe_plan(name, model_config=model_config, probe=probe, as_json=as_json)


def _require_price(device: str, prices: tuple[DevicePrice, ...]) -> None:
    if device not in [price.device for price in prices]:
        raise PlanError(
            "PLAN_001", f"the price list has no device '{device}'",
            fix=f"one of {', '.join(p.device for p in prices)}; RM_ASSETS_PRICES names a list of your own",
        )  # fmt: skip


def make_plan(recipe: Recipe, *, model_config: Path | None = None, probe: Probe | None = None) -> RecipePlan:
    """Reads store, sources and configurations, writing and locking nothing. A `probe` brings time and cost."""
    prices = _prices()
    if probe is not None:
        _require_price(probe.device, prices)
    notes: list[str] = []
    recipe = _with_device(recipe, notes)
    made = _made(Store(find_home()), recipe, notes)
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
    known = Known(
        made=made, num_source_rows=rows.get("source"), num_test_rows=rows.get("test"), recorded=recorded, shapes=shapes
    )
    return plan_recipe(recipe, known, prices=prices, probe=probe, notes=notes)


def _with_device(recipe: Recipe, notes: list[str]) -> Recipe:
    """The recipe with `device: auto` made out: on a CPU, a forward pass has fewer tokens."""
    if recipe.execution.device != "auto" or _has_gpu():
        return recipe
    notes.append(
        "execution.device is auto and no GPU is here, so the plan is for a CPU: set it to cuda to plan for a GPU"
    )
    return recipe.model_copy(update={"execution": recipe.execution.model_copy(update={"device": "cpu"})})


def _has_gpu() -> bool:
    """Whether PyTorch is likely to find one; asking it would take seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def _prices() -> tuple[DevicePrice, ...]:
    named = os.environ.get("RM_ASSETS_PRICES")
    if not named:
        return LIST_PRICES
    try:
        text = Path(named).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise PlanError(
            "PLAN_002", f"the price file {named} cannot be read", why=str(error),
            fix="correct or unset RM_ASSETS_PRICES",
        ) from None  # fmt: skip
    return parse_prices(text, named)


def _made(store: Store, recipe: Recipe, notes: list[str]) -> dict[str, Made]:
    """What is committed as the recipe wants it now. A missing source is a note: the plan stands without it."""
    fingerprint: Callable[[str], str] = functools.cache(
        Fingerprints(store.home / "fingerprints", remembers=False).of
    )  # fmt: skip
    made: dict[str, Made] = {}
    for asset in STAGES:
        try:
            manifest = wanted(store, recipe, asset, fingerprint).manifest
        except (DataError, RecipeError) as error:
            notes.append(f"{asset}: {error.what}")
            break
        except StoreError as error:
            if error.code != "STORE_002":
                raise
            break  # nothing after an asset that is not made can be made
        if manifest is not None:
            made[asset] = Made(manifest.counts, manifest.facts, manifest.work)
    return made


def _rows_of_files(recipe: Recipe, notes: list[str]) -> dict[str, int]:
    """Rows of the prompts' files: the most prompts that they can give."""
    rows: dict[str, int] = {}
    for name, source in (("source", recipe.prompts.source), ("test", recipe.prompts.test)):
        if isinstance(source, FileSource):
            try:
                rows[name] = sum(1 for _ in read_rows(source))
            except (DataError, RecipeError) as error:
                note = f"prompts: {error.what}"
                notes += [note] if note not in notes else []
        elif source is not None and source.kind == "dataset" and recipe.prompts.max_prompts is None:
            note = f"prompts: the rows of {source.dataset} are counted when it is read; set max_prompts for a bound"
            notes += [note] if note not in notes else []
    return rows


def _recorded_of_files(
    recipe: Recipe, section: RecordedResponses, notes: list[str]
) -> tuple[list[int], list[int]] | None:
    """Responses of each prompt in the rows, as `Known` has them; None where they or the test prompts are in no file."""
    prompts = recipe.prompts
    sources = [section.source] if prompts.test is None else [section.source, prompts.test]
    if not all(isinstance(source, FileSource) for source in sources):
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
            for number, row in enumerate(read_rows(section.source))
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
    refs += [recipe.gold.model] if isinstance(recipe.gold, ClassifierGold) else []
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
        note = f"shape of {ref.location} unknown ({reason}){fix}"
        notes += [note] if note not in notes else []
    return shapes
