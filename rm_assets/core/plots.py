"""The pictures of an evaluation report, as PNG bytes.

Figures are built without pyplot, so that nothing global changes and any thread may draw. Colours are told apart by
readers with colour-vision deficiency: blue for chosen, orange for rejected, dark to light from best gold to worst.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rm_assets.core.evaluation import ComparedPair, ScoredResponse, group_by_prompt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN, REJECTED, INK, GRID = "#2b6cb0", "#dd8033", "#2d3748", "#e2e8f0"
DPI = 144
MOST_BARS = 48


def score_plot(test: Sequence[ScoredResponse], pairs: Sequence[ComparedPair], *, num_prompts: int = 8) -> bytes:
    """Two panels: rewards of the first test prompts, one bar a response; rewards of chosen against rejected."""
    figure = _figure(12, 4.8)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    groups = group_by_prompt(test)
    most = max((len(group) for group in groups), default=1)
    _draw_bars(left, groups[: max(1, min(num_prompts, MOST_BARS // most))])
    _draw_histograms(right, pairs)
    return _png(figure)


def _draw_bars(axes: "Axes", groups: Sequence[Sequence[ScoredResponse]]) -> None:
    """Best gold first within each prompt: a model that agrees with gold draws falling stairs."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    most = max((len(group) for group in groups), default=1)
    width = 0.84 / most
    last = max(1, max((len({r.gold.gold_reward for r in group}) for group in groups), default=1) - 1)
    shades = [colormaps["viridis"](0.08 + 0.84 * rank / last) for rank in range(last + 1)]
    for place, group in enumerate(groups):
        ranks = {gold: rank for rank, gold in enumerate(sorted({r.gold.gold_reward for r in group}, reverse=True))}
        ordered = sorted(group, key=lambda response: -response.gold.gold_reward)
        left = place - width * (len(ordered) - 1) / 2
        for index, response in enumerate(ordered):
            colour = shades[ranks[response.gold.gold_reward]]
            axes.bar(left + index * width, response.reward, width * 0.92, color=colour)
    axes.axhline(0, color=INK, linewidth=0.8)
    labels = [_label(group[0].gold.prompt, 26) for group in groups]
    axes.set_xticks(range(len(groups)), labels, rotation=24, ha="right", rotation_mode="anchor", parse_math=False)
    axes.tick_params(axis="x", labelsize=8, length=0)
    _title(axes, "Rewards of the first test prompts", "", "reward (log odds, up to a constant)", pad=24)
    axes.grid(axis="x", visible=False)
    shown = range(last + 1) if last < 4 else (0, last)
    names = [
        ("best gold" if rank == 0 else "worst gold" if rank == last else f"gold rank {rank + 1}") for rank in shown
    ]
    patches = [Patch(color=shades[rank], label=name) for rank, name in zip(shown, names, strict=True)]
    axes.legend(handles=patches, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, frameon=False, fontsize=8)


def _draw_histograms(axes: "Axes", pairs: Sequence[ComparedPair]) -> None:
    import numpy as np

    chosen, rejected = [p.chosen.reward for p in pairs], [p.rejected.reward for p in pairs]
    if pairs:
        both = chosen + rejected
        low, high = min(both), max(both)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, min(40, max(8, round(2 * len(both) ** 0.5))) + 1).tolist()
        for rewards, colour, name in ((rejected, REJECTED, "rejected"), (chosen, CHOSEN, "chosen")):
            axes.hist(rewards, bins=edges, color=colour, alpha=0.35)
            axes.hist(rewards, bins=edges, color=colour, histtype="step", linewidth=1.6, label=name)
            axes.axvline(float(np.mean(rewards)), color=colour, linewidth=1.2, linestyle="--")
        handles, names = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1],
            names[::-1],
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=2,
            frameon=False,
            fontsize=8,
        )
    _title(
        axes, f"Chosen against rejected, n = {len(pairs):,} test pairs", "reward (dashed: mean)", "responses", pad=24
    )


def gold_scatter(test: Sequence[ScoredResponse], *, most: int = 4000) -> bytes:
    """Reward against gold reward, a dot a test response; the first `most` responses only."""
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    shown = test[:most]
    alpha = max(0.12, min(0.7, 60 / max(1, len(shown)) ** 0.75))
    gold, rewards = [r.gold.gold_reward for r in shown], [r.reward for r in shown]
    axes.scatter(gold, rewards, s=16, color=CHOSEN, alpha=alpha, linewidths=0)
    count = f"n = {len(shown):,}" if len(shown) == len(test) else f"{len(shown):,} of n = {len(test):,}"
    _title(axes, f"Reward against gold, {count} test responses", "gold reward", "reward (log odds, up to a constant)")
    return _png(figure)


def reliability(calibration: Mapping[str, Any]) -> bytes:
    """Match rate against confidence, a dot with its interval for each tenth of the pairs, and the diagonal."""
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    bins = calibration["bins"]
    sure = [part["confidence"] for part in bins]
    rates = [part["match_rate"] for part in bins]
    values = [rate["value"] for rate in rates]
    below = [rate["value"] - rate["low"] for rate in rates]
    above = [rate["high"] - rate["value"] for rate in rates]
    axes.plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.9, linestyle=":", label="as right as sure")
    axes.errorbar(sure, values, yerr=[below, above], color=CHOSEN, fmt="o-", markersize=4, linewidth=1.4, capsize=2)
    axes.set_xlim(0.49, 1.01)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    error = calibration["expected_calibration_error"]
    title = f"Calibration error {100 * error['value']:.1f} points, n = {error['n']:,} pairs"
    _title(axes, title, "how sure the model is of its choice", "share in which gold agrees")
    return _png(figure)


def best_of_n_curve(found: Mapping[str, Any]) -> bytes:
    """Gold reward of the best of n against sqrt(KL), with its interval, the choice of gold itself, and the fit."""
    import numpy as np

    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    points = found["points"]
    distance = np.sqrt([point["kl"] for point in points])
    gold = [point["gold"] for point in points]
    values = np.asarray([each["value"] for each in gold])
    axes.plot(
        distance, [point["oracle"] for point in points], color=INK, linewidth=1, linestyle=":", label="chosen by gold"
    )
    axes.plot(distance, values, "o-", color=CHOSEN, linewidth=1.6, markersize=4, label="chosen by the model")
    axes.fill_between(
        distance, [g["low"] for g in gold], [g["high"] for g in gold], color=CHOSEN, alpha=0.18, linewidth=0
    )
    if found["fit"]:
        steps = np.linspace(0, distance[-1], 60)
        fitted = values[0] + steps * (found["fit"]["alpha"] - found["fit"]["beta"] * steps)
        axes.plot(steps, fitted, color=REJECTED, linewidth=1.2, linestyle="--", label="fit d (α − β d)")
    for place, point in zip(distance, points, strict=True):
        axes.annotate(
            f"n = {point['n']}",
            (place, point["gold"]["value"]),
            xytext=(0, -14),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            ha="center",
        )
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _title(
        axes,
        f"Best of n, {found['num_prompts']:,} test prompts",
        "distance from the policy, d = sqrt(KL)",
        "gold reward",
    )
    return _png(figure)


def match_rate_curve(found: Mapping[str, Any]) -> bytes:
    """Match rate and accuracy on training pairs against the number of training pairs (log scale), with their intervals."""
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    points = found["points"]
    numbers = [point["num_pairs"] for point in points]
    curves = (
        ("match_rate", "test pairs", CHOSEN, "o-", 1.0),
        ("train_accuracy", "its own training pairs", REJECTED, "s:", 1.04),
    )
    for key, name, colour, style, beside in curves:
        rates = [point[key] for point in points]
        values = [rate["value"] for rate in rates]
        spans = [[rate["value"] - rate["low"] for rate in rates], [rate["high"] - rate["value"] for rate in rates]]
        places = [beside * number for number in numbers]  # so that one interval does not hide another
        axes.errorbar(
            places, values, yerr=spans, color=colour, fmt=style, markersize=4, linewidth=1.4, capsize=2.5, label=name
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, loc="best")
    num_test = points[-1]["match_rate"]["n"]
    _title(
        axes,
        f"Learning curve, n = {num_test:,} test pairs",
        "training pairs, log scale",
        "share of pairs ordered as by gold",
    )
    return _png(figure)


def forest(found: Mapping[str, Any], *, length: str) -> bytes:
    """Match rates of compared models with their intervals, best on top; the model named `length` is a line through all."""
    models = [model for model in found["models"] if model["model"] != length]
    figure = _figure(7.6, 1.6 + 0.34 * max(2, len(models)))
    axes = figure.subplots()
    rates = [model["match_rate"] for model in models]
    values = [rate["value"] for rate in rates]
    spans = [[rate["value"] - rate["low"] for rate in rates], [rate["high"] - rate["value"] for rate in rates]]
    places = range(len(models))
    told = ["behind" in model and model["behind"]["told_apart"] for model in models]
    axes.errorbar(values, places, xerr=spans, fmt="none", ecolor=CHOSEN, elinewidth=1.6, capsize=2.5)
    for kind, name in ((False, "leads, or not told apart from what leads"), (True, "behind the leader")):
        shown = [(value, place) for value, place, is_told in zip(values, places, told, strict=True) if is_told == kind]
        if shown:
            face = "white" if kind else CHOSEN
            axes.scatter(
                [v for v, _ in shown],
                [p for _, p in shown],
                s=34,
                facecolor=face,
                edgecolor=CHOSEN,
                zorder=3,
                label=name,
            )
    alone = next((model["match_rate"]["value"] for model in found["models"] if model["model"] == length), None)
    if alone is not None:
        axes.axvline(alone, color=REJECTED, linewidth=1.4, linestyle="--", label="length alone")
    axes.set_yticks(places, [_label(model["model"], 44) for model in models], parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _title(axes, f"Match rate with gold on the same {found['num_pairs']:,} test pairs", "95 % interval", "")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return _png(figure)


def training_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss (left) and accuracy (right) against optimizer steps; an empty history says so."""
    figure = _figure(12, 3.8)
    left, right = figure.subplots(1, 2)
    losses = {"loss": ("training", CHOSEN), "eval_loss": ("validation", REJECTED)}
    drawn = _draw_curves(left, history, losses | {"validation_loss": ("validation", REJECTED)})
    reference = left.axhline(0.6931, color=INK, linewidth=0.9, linestyle=":")
    left.legend(
        [*drawn, reference], [*(line.get_label() for line in drawn), "guessing (log 2)"], frameon=False, fontsize=8
    )
    left.set_ylim(bottom=0)
    _title(left, "Loss", "optimizer step", "Bradley-Terry loss (nats a pair)")
    rates = {"accuracy": ("training", CHOSEN), "eval_accuracy": ("validation", REJECTED)}
    drawn = _draw_curves(right, history, rates | {"validation_accuracy": ("validation", REJECTED)})
    reference = right.axhline(0.5, color=INK, linewidth=0.9, linestyle=":")
    right.legend([*drawn, reference], [*(line.get_label() for line in drawn), "guessing"], frameon=False, fontsize=8)
    right.set_ylim(top=1.02)
    _title(right, "Accuracy", "optimizer step", "share of pairs ordered as by gold")
    return _png(figure)


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


def _figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12)
    FigureCanvasAgg(figure)
    return figure


def _title(axes: "Axes", title: str, horizontal: str, vertical: str, *, pad: float = 8) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=pad)
    axes.set_xlabel(horizontal, fontsize=9, color=INK)
    axes.set_ylabel(vertical, fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#a0aec0")


def _label(text: str, most: int) -> str:
    """One short line of the text, with a box for characters that the font cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    line = " ".join(text.split())
    line = line if len(line) <= most else line[: most - 1].rstrip() + "…"
    return "".join(character if ord(character) in known else "□" for character in line)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": ""})
    return buffer.getvalue()
