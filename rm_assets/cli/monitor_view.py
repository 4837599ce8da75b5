"""What `rm-assets monitor` shows: trainings side by side, one column each, as many tables as the terminal's width asks for."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rm_assets.storage.metrics_log import Run

LABEL_WIDTH, RUN_WIDTH = 14, 26
STYLES = {"running": "bold cyan", "finished": "green", "failed": "bold red", "interrupted": "yellow", "pruned": "dim"}
BARS = "▁▂▃▄▅▆▇█"
FIGURES = {
    "accuracy": ("accuracy", "{:.3f}"),
    "margin": ("margin", "{:.3f}"),
    "validation_loss": ("valid loss", "{:.4f}"),
    "validation_accuracy": ("valid accuracy", "{:.3f}"),
    "learning_rate": ("learning rate", "{:.2e}"),
    "grad_norm": ("grad norm", "{:.3f}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "memory_mb": ("memory", "{:,.0f} MB"),
    "peak_memory_mb": ("peak memory", "{:,.0f} MB"),
}
"""Label and form of the figures that have a line of their own, where a run has them."""


def view(runs: Sequence[tuple[Run, str]], width: int, now: datetime | None = None) -> RenderableType:
    """The runs with their states, in tables of at most `width` characters."""
    now = now or datetime.now(UTC)
    at_once = max(1, (width - LABEL_WIDTH - 4) // (RUN_WIDTH + 3))
    run_width = min(RUN_WIDTH, max(6, width - LABEL_WIDTH - 7))
    return Group(*(_table(runs[i : i + at_once], run_width, now) for i in range(0, len(runs), at_once)))


def _table(runs: Sequence[tuple[Run, str]], width: int, now: datetime) -> Table:
    table = Table(show_header=True, header_style="bold")
    table.add_column("", style="dim", no_wrap=True, width=LABEL_WIDTH)
    for run, _ in runs:
        table.add_column(run.recipe, width=width, overflow="fold")
    table.add_row("run", *(f"{run.asset} {run.digest[:8]}" for run, _ in runs))
    table.add_row("state", *(_state(run, state, now) for run, state in runs))
    table.add_row("device", *(run.device for run, _ in runs))
    table.add_row("step", *(f"{_step(run):,} of {run.num_steps:,}" for run, _ in runs))
    table.add_row("", *(_bar(run, STYLES[state], width) for run, state in runs))
    table.add_row("loss", *(_last(run, "loss", "{:.4f}") for run, _ in runs))
    table.add_row("", *(Text(sparkline([step["loss"] for step in run.steps], width), "cyan") for run, _ in runs))
    for name, (label, form) in FIGURES.items():
        if any(name in step for run, _ in runs for step in run.steps):
            table.add_row(label, *(_last(run, name, form) for run, _ in runs))
    table.add_row("time", *(_span(_time(run.last_time) - _time(run.started_at)) for run, _ in runs))
    if any(state == "running" for _, state in runs):
        table.add_row("time left", *(_left(run) if state == "running" else "" for run, state in runs))
    if any(run.end and "error" in run.end for run, _ in runs):
        table.add_row("error", *(Text(run.end.get("error", "") if run.end else "", "red") for run, _ in runs))
    return table


def sparkline(values: Sequence[float], width: int) -> str:
    """One bar for each of at most `width` equal stretches of `values`: the mean of the stretch, lowest to highest."""
    num_bars = min(width, len(values))
    edges = [i * len(values) // num_bars for i in range(num_bars + 1)] if num_bars else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def _step(run: Run) -> int:
    return int(run.steps[-1]["step"]) if run.steps else 0


def _bar(run: Run, style: str, width: int) -> ProgressBar:
    return ProgressBar(
        total=run.num_steps, completed=_step(run), width=width, complete_style=style, finished_style=style
    )


def _last(run: Run, name: str, form: str) -> str:
    """The newest value; validation does not come with every step."""
    value = next((step[name] for step in reversed(run.steps) if name in step), None)
    return "" if value is None else form.format(value)


def _state(run: Run, state: str, now: datetime) -> Text:
    """The state, how often the run was taken up again, and whether it has said nothing for a while."""
    shown, silent = Text(state, STYLES[state]), now - _time(run.last_time)
    if run.num_resumed:
        shown += Text(f", resumed {run.num_resumed} x", "dim")
    if state == "running" and silent > timedelta(minutes=1):
        shown += Text(f", silent {_span(silent)}", "yellow")
    return shown


def _left(run: Run) -> str:
    return _span(timedelta(seconds=run.steps[-1]["eta_seconds"])) if run.steps else "first step to come"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _span(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
