"""The picture of a training, as PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rm_assets.core.report.figure import CHOSEN, INK, REJECTED, as_png, new_figure, set_titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss (left) and accuracy (right) against optimizer steps; an empty history says so."""
    figure = new_figure(12, 3.8)
    left, right = figure.subplots(1, 2)
    losses = {"loss": ("training", CHOSEN), "eval_loss": ("validation", REJECTED)}
    drawn = _draw_curves(left, history, losses | {"validation_loss": ("validation", REJECTED)})
    reference = left.axhline(0.6931, color=INK, linewidth=0.9, linestyle=":")
    left.legend(
        [*drawn, reference], [*(line.get_label() for line in drawn), "guessing (log 2)"], frameon=False, fontsize=8
    )
    left.set_ylim(bottom=0)
    set_titles(left, "Loss", "optimizer step", "loss of the objective, mean of a pair")
    rates = {"accuracy": ("training", CHOSEN), "eval_accuracy": ("validation", REJECTED)}
    drawn = _draw_curves(right, history, rates | {"validation_accuracy": ("validation", REJECTED)})
    reference = right.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
    right.legend([*drawn, reference], [*(line.get_label() for line in drawn), "guessing"], frameon=False, fontsize=8)
    right.set_ylim(top=1.02)
    set_titles(right, "Accuracy", "optimizer step", "share of pairs ordered as by gold")
    return as_png(figure)


def _draw_curves(axes: "Axes", history: Sequence[Mapping[str, Any]], names: Mapping[str, tuple[str, str]]) -> list[Any]:
    """A line a key of `names` that some row of the history has; long histories also get a running mean."""
    import numpy as np

    lines = []
    for key, (label, colour) in names.items():
        points = [
            (row["step"], row[key]) for row in history if row.get(key) is not None and row.get("step") is not None
        ]
        if not points:
            continue
        steps, values = (np.asarray(column, dtype=float) for column in zip(*points, strict=True))
        width = len(values) // 20
        marker = "o" if len(values) < 25 else ""
        (line,) = axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=label)
        if width > 1:
            line.set(alpha=0.25, linewidth=1.0)
            window = np.ones(width)
            means = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
            (line,) = axes.plot(steps, means, color=colour, linewidth=1.8, label=f"{label} (mean of {width})")
        lines.append(line)
    if not lines:
        axes.text(0.5, 0.4, "not recorded", transform=axes.transAxes, ha="center", color=INK)
    return lines
