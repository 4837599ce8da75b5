"""`rm-assets plan`: steps from plain numbers, or the plan of a recipe."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rm_assets.cli.plan_tables import print_plan
from rm_assets.core.errors import PlanError
from rm_assets.core.planning.arithmetic import Probe, num_optimizer_steps
from rm_assets.core.planning.guidance import SERVICE_GUIDANCE, PlanWarning, pair_warnings, service_warnings
from rm_assets.core.planning.prices import DevicePrice
from rm_assets.core.planning.recipe_plan import RecipePlan, plan_recipe
from rm_assets.core.recipe import Recipe
from rm_assets.resources.known import find_known
from rm_assets.resources.recipes import recipe_book
from rm_assets.storage.price_list import price_list


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

    _require_price(device, price_list())
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
    prices = price_list()
    if probe is not None:
        _require_price(probe.device, prices)
    notes: list[str] = []
    known = find_known(recipe, model_config, notes)
    return plan_recipe(recipe, known, prices=prices, probe=probe, notes=list(dict.fromkeys(notes)))
