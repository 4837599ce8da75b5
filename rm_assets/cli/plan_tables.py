"""The plan of a recipe for people: stages, training, memory, devices, warnings."""

from rich.console import Console
from rich.table import Table

from rm_assets.core.plan import InferenceMemory, TrainingMemory
from rm_assets.core.recipe_plan import RecipePlan, TrainingPlan


def print_plan(plan: RecipePlan, console: Console) -> None:
    """Everything that the JSON says."""
    console.print(f"plan of {plan.recipe}: what is not marked 'at most' was counted in the store; nothing was run")
    console.print(_stages(plan))
    console.print(_training(plan.training))
    if plan.training.memory_kept and plan.training.memory_recomputed:
        console.print(_memory(plan.training, plan.training.memory_kept, plan.training.memory_recomputed))
    console.print(_devices(plan))
    console.print("dated list prices: check them, or name your own in RM_ASSETS_PRICES")
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning.text}", soft_wrap=True)


def _stages(plan: RecipePlan) -> Table:
    table = Table("stage", "made", "makes", "tokens", "operations at most", "device memory, estimated")
    for stage in plan.stages:
        if stage.asset == "evaluation_report":
            table.add_row(
                "reward_model", _yes(plan.training.made), f"{plan.training.pairs} pairs trained on",
                str(plan.training.tokens), _flops(plan.training.flops),
                _total(plan.training.memory),
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
    table.add_row("optimizer steps of an epoch", str(training.steps_per_epoch))
    table.add_row("optimizer steps", str(training.optimizer_steps))
    table.add_row("warm-up steps", str(training.warmup_steps))
    table.add_row("tokens", str(training.tokens))
    table.add_row("tokens of a forward pass", f"at most {training.tokens_per_forward:,}")
    table.add_row("operations at most", _flops(training.flops))
    table.add_row("time", _measured(training, training.seconds and training.seconds / 3600, "h"))
    if training.peak_bytes is not None:
        table.add_row("memory of the probe, at its peak", _bytes(training.peak_bytes))
    return table


def _memory(training: TrainingPlan, kept: TrainingMemory, recomputed: TrainingMemory) -> Table:
    chosen = " (this recipe)"
    table = Table(
        "device memory of the training, estimated",
        "gradient_checkpointing never" + (chosen if training.gradient_checkpointing == "never" else ""),
        "always" + (chosen if training.gradient_checkpointing == "always" else ""),
    )
    for part, value in kept.as_json().items():
        table.add_row(part, _bytes(value), _bytes(recomputed.as_json()[part]))
    return table


def _devices(plan: RecipePlan) -> Table:
    table = Table("device", "memory", "training fits", "USD an hour", "as of", "time", "cost")
    for device in plan.devices:
        table.add_row(
            device.device,
            f"{device.memory_gb:g} GB" if device.memory_gb is not None else "",
            "unknown" if device.fits is None else _yes(device.fits),
            f"{device.usd_per_hour:.2f}",
            device.as_of,
            _measured(plan.training, device.hours, "h"),
            _measured(plan.training, device.usd, "USD"),
        )
    return table


def _measured(training: TrainingPlan, value: float | None, unit: str) -> str:
    """Time or cost, as sure as the number of steps that it is of."""
    if training.optimizer_steps.value is None:
        return "steps unknown"
    if value is None:
        return "needs a probe"
    return ("" if training.optimizer_steps.basis == "made" else "at most ") + f"{value:,.2f} {unit}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _flops(value: int | None) -> str:
    return "unknown" if value is None else f"{value:.2e}"


def _total(memory: TrainingMemory | InferenceMemory | None) -> str:
    return _bytes(None if memory is None else memory.total)


def _bytes(value: int | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.2f} MB"
