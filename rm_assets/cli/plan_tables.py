"""The plan of a recipe for people: stages, training, memory, devices, warnings."""

import functools

from rich.console import Console
from rich.table import Column, Table

from rm_assets.core.planning.arithmetic import InferenceMemory, TrainingMemory
from rm_assets.core.planning.recipe_counts import Count
from rm_assets.core.planning.recipe_plan import RecipePlan
from rm_assets.core.planning.training_plan import TrainingPlan

SECONDS_OF_A_MINUTE, SECONDS_OF_AN_HOUR = 60, 3600


def print_plan(plan: RecipePlan, console: Console) -> None:
    """Everything that the JSON says."""
    done = "nothing was run" if plan.training.peak_bytes is None else "only ten optimizer steps were run"
    console.print(
        f"plan of {plan.recipe}: what is not marked 'at most' was counted in the store; {done}", soft_wrap=True
    )
    console.print(_stages(plan))
    console.print(_training(plan.training))
    if plan.curve:
        steps = functools.reduce(Count.plus, (training.optimizer_steps for training in plan.curve.values()))
        console.print(
            f"learning curve: {len(plan.curve)} more trainings, {steps} optimizer steps; time and cost of a device are of all",
            soft_wrap=True,
        )
    if plan.training.memory_kept and plan.training.memory_recomputed:
        console.print(_memory(plan.training, plan.training.memory_kept, plan.training.memory_recomputed))
    console.print(_devices(plan))
    console.print("dated list prices: check them, or name your own in RM_ASSETS_PRICES")
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning.text}", soft_wrap=True)


def _stages(plan: RecipePlan) -> Table:
    table = Table(
        Column("stage", no_wrap=True), "made", "makes", "tokens", "operations at most", "device memory, estimated"
    )
    for stage in plan.stages:
        if stage.asset == "evaluation_report":
            for name, training in {"reward_model": plan.training, **plan.curve}.items():
                table.add_row(
                    name, _yes(training.made), f"{training.pairs} pairs trained on",
                    str(training.tokens), _flops(training.flops), _chosen_total(training),
                )  # fmt: skip
        has_model = stage.model is not None
        table.add_row(
            stage.asset, _yes(stage.made), f"{stage.items} {stage.unit}", str(stage.tokens) if stage.tokens else "",
            _flops(stage.flops) if has_model else "", _total(stage.memory) if has_model else "",
        )  # fmt: skip
    return table


def _training(training: TrainingPlan) -> Table:
    table = Table("training", training.base)
    size = f"{training.num_parameters:,}" if training.num_parameters is not None else "unknown"
    table.add_row("parameters", size)
    if training.num_trained_parameters not in (None, training.num_parameters):
        table.add_row("parameters trained", f"{training.num_trained_parameters:,}")
    if training.num_devices > 1:
        table.add_row("devices", str(training.num_devices))
    table.add_row("optimizer steps of an epoch", str(training.steps_per_epoch))
    table.add_row("optimizer steps", str(training.optimizer_steps))
    table.add_row("warm-up steps", str(training.warmup_steps))
    table.add_row("tokens", str(training.tokens))
    table.add_row("tokens of a forward pass", f"at most {training.tokens_per_forward:,}")
    table.add_row("operations at most", _flops(training.flops))
    table.add_row("time of the training, saving apart", _time(training, training.seconds))
    if training.peak_bytes is not None:
        table.add_row("memory of the probe, at its peak", _bytes(training.peak_bytes))
    return table


def _memory(training: TrainingPlan, kept: TrainingMemory, recomputed: TrainingMemory) -> Table:
    chosen = {"never": "", "always": "", training.gradient_checkpointing: " (this recipe)"}
    if training.gradient_checkpointing == "auto":
        chosen = {"never": " (this recipe if it fits)", "always": " (this recipe if not)"}
    table = Table(
        "device memory of the training, estimated"
        + (f", of each of {training.num_devices} devices" if training.num_devices > 1 else ""),
        "gradient_checkpointing never" + chosen["never"],
        "always" + chosen["always"],
    )
    for part, value in kept.as_json().items():
        table.add_row(part, _bytes(value), _bytes(recomputed.as_json()[part]))
    return table


def _devices(plan: RecipePlan) -> Table:
    table = Table("device", "memory", "training fits", "USD an hour", "as of", "training time", "training cost")
    number = f"{plan.training.num_devices} x " if plan.training.num_devices > 1 else ""
    for device in plan.devices:
        table.add_row(
            number + device.device,
            f"{device.memory_gb:g} GB" if device.memory_gb is not None else "",
            "unknown" if device.fits is None else _yes(device.fits),
            f"{device.usd_per_hour:.2f}",
            device.as_of,
            _time(plan.training, device.hours and device.hours * 3600),
            _measured(plan.training, None if device.usd is None else f"{device.usd:,.2f} USD"),
        )
    return table


def _time(training: TrainingPlan, seconds: float | None) -> str:
    return _measured(training, None if seconds is None else _duration(seconds))


def _duration(seconds: float) -> str:
    if seconds < SECONDS_OF_A_MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < SECONDS_OF_AN_HOUR else f"{seconds / 3600:,.1f} h"


def _measured(training: TrainingPlan, value: str | None) -> str:
    """Time or cost, as sure as the number of steps that it is of."""
    if training.optimizer_steps.value is None:
        return "steps unknown"
    if value is None:
        return "needs a probe"
    return ("" if training.optimizer_steps.basis == "made" else "at most ") + value


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _flops(value: int | None) -> str:
    return "unknown" if value is None else f"{value:.2e}"


def _chosen_total(training: TrainingPlan) -> str:
    """With `auto`, activations are recomputed only where they would not fit, so it may be more."""
    is_least = training.memory is not None and training.gradient_checkpointing == "auto"
    return ("at least " if is_least else "") + _total(training.memory)


def _total(memory: TrainingMemory | InferenceMemory | None) -> str:
    return _bytes(None if memory is None else memory.total)


def _bytes(value: int | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.2f} MB"
