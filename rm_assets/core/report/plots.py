"""The pictures of an evaluation report and of a comparison, as PNG bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rm_assets.core.evaluation import ComparedPair, ScoredResponse, group_by_prompt
from rm_assets.core.report.figure import CHOSEN, INK, REJECTED, as_png, new_figure, set_titles, short_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 48


def score_plot(test: Sequence[ScoredResponse], pairs: Sequence[ComparedPair], *, num_prompts: int = 8) -> bytes:
    """Two panels: rewards of the first test prompts, one bar a response; rewards of chosen against rejected."""
    figure = new_figure(12, 4.8)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    groups = group_by_prompt(test)
    most = max((len(group) for group in groups), default=1)
    _draw_bars(left, groups[: max(1, min(num_prompts, MOST_BARS // most))])
    _draw_histograms(right, pairs)
    return as_png(figure)


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
    labels = [short_label(group[0].gold.prompt, 26) for group in groups]
    axes.set_xticks(range(len(groups)), labels, rotation=24, ha="right", rotation_mode="anchor", parse_math=False)
    axes.tick_params(axis="x", labelsize=8, length=0)
    set_titles(axes, "Rewards of the first test prompts", "", "reward (log odds, up to a constant)", pad=24)
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
    set_titles(
        axes, f"Chosen against rejected, n = {len(pairs):,} test pairs", "reward (dashed: mean)", "responses", pad=24
    )


def gold_scatter(test: Sequence[ScoredResponse], *, most: int = 4000) -> bytes:
    """Reward against gold reward, a dot a test response; the first `most` responses only."""
    figure = new_figure(6.4, 4.8)
    axes = figure.subplots()
    shown = test[:most]
    alpha = max(0.12, min(0.7, 60 / max(1, len(shown)) ** 0.75))
    gold, rewards = [r.gold.gold_reward for r in shown], [r.reward for r in shown]
    axes.scatter(gold, rewards, s=16, color=CHOSEN, alpha=alpha, linewidths=0)
    count = f"n = {len(shown):,}" if len(shown) == len(test) else f"{len(shown):,} of n = {len(test):,}"
    set_titles(
        axes, f"Reward against gold, {count} test responses", "gold reward", "reward (log odds, up to a constant)"
    )
    return as_png(figure)


def reliability(calibration: Mapping[str, Any]) -> bytes:
    """Match rate against confidence, a dot with its interval for each tenth of the pairs, and the diagonal."""
    figure = new_figure(6.4, 4.8)
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
    set_titles(axes, title, "how sure the model is of its choice", "share in which gold agrees")
    return as_png(figure)


def best_of_n_curve(found: Mapping[str, Any]) -> bytes:
    """Gold reward of the best of n against sqrt(KL), with its interval, the choice of gold itself, and the fit."""
    import numpy as np

    figure = new_figure(6.4, 4.8)
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
    set_titles(
        axes,
        f"Best of n, {found['num_prompts']:,} test prompts",
        "distance from the policy, d = sqrt(KL)",
        "gold reward",
    )
    return as_png(figure)


def match_rate_curve(found: Mapping[str, Any]) -> bytes:
    """Match rate and accuracy on training pairs against the number of training pairs (log scale), with their intervals."""
    figure = new_figure(6.4, 4.8)
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
    set_titles(
        axes,
        f"Learning curve, n = {num_test:,} test pairs",
        "training pairs, log scale",
        "share of pairs ordered as by gold",
    )
    return as_png(figure)


def forest(found: Mapping[str, Any], *, length: str) -> bytes:
    """Match rates of compared models with their intervals, best on top; the model named `length` is a line through all."""
    models = [model for model in found["models"] if model["model"] != length]
    figure = new_figure(7.6, 1.6 + 0.34 * max(2, len(models)))
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
    axes.set_yticks(places, [short_label(model["model"], 44) for model in models], parse_math=False)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    set_titles(axes, f"Match rate with gold on the same {found['num_pairs']:,} test pairs", "95 % interval", "")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return as_png(figure)
