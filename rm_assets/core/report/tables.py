"""The tables of the evaluation report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_assets.core.evaluation.diagnosis import is_existing
from rm_assets.core.report.texts import count_text, decimal, interval_text, percent, points

BREAKDOWNS = {
    "Match rate by what differs": ("by_difference", "the responses differ in"),
    "Match rate by gold margin": ("by_gold_margin", "gold margin"),
    "Match rate by length": ("by_length", "the better response is"),
    "Match rate by source": ("by_source", "source"),
}
"""Title of the table: key in the report, head of the first column."""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column is left-aligned, the others right. `lead` is what it shows, `note` how to read it."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    lead: str = ""


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """Every table of the report, in reading order."""
    return [
        _headline_table(report),
        *(
            Table(title, (first, "match rate", "95 % interval", "n"), _rate_rows(report[key]))
            for title, (key, first) in BREAKDOWNS.items()
            if len(report[key]) > 1  # of one part the headline says all
        ),
        _calibration_table(report["calibration"]),
        *([_best_of_n_table(report["best_of_n"])] if report["best_of_n"] else []),
        *([_component_table(report["component_accuracy"])] if report["component_accuracy"] else []),
        *([] if is_existing(report) else [_training_table(report)]),
        *([_learning_curve_table(report["learning_curve"])] if "learning_curve" in report else []),
        *(_benchmark_table(found) for found in report["benchmarks"]),
        _distribution_table(report["distributions"]),
        Table(
            "Rank correlation of reward and gold reward",
            ("over", "Spearman", "Kendall", "n"),
            _correlation_rows(report["rank_correlation"]),
            "Training teaches the order within prompts; rewards of different prompts need not be comparable.",
        ),
    ]


def _rate_rows(rates: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(name, percent(rate["value"]), interval_text(rate), count_text(rate["n"])) for name, rate in rates.items()]


def _headline_table(report: Mapping[str, Any]) -> Table:
    match = report["match_rate"]
    rows = [("match rate with gold", percent(match["value"]), interval_text(match), "", count_text(match["n"]))]
    for key, name in (("length_baseline", "length alone"), ("format_baseline", "format alone")):
        baseline = report[key]
        if baseline:
            gain = baseline["model_advantage"]
            advantage = f"{points(gain['value'])} ({points(gain['low'])} to {points(gain['high'])})"
            label = f"{name}: {baseline['rule']}"
            rows.append(
                (label, percent(baseline["value"]), interval_text(baseline), advantage, count_text(baseline["n"]))
            )
    matched, balanced = report["without_length"]["matched"], report["without_length"]["balanced"]
    same = f"responses of one length (within {percent(matched['largest_difference'])})"
    rows.append((same, percent(matched["value"]), interval_text(matched), "", count_text(matched["n"])))
    if balanced:
        label = "length-balanced: better longer and better shorter count the same"
        rows.append((label, percent(balanced["value"]), interval_text(balanced), "", count_text(balanced["n"])))
    total = match["n"] + match["num_ties"]
    drawn = (
        "every pair of responses" if match["pairs"] == "all" else "one pair a prompt, drawn before gold is looked at"
    )
    note = (
        f"Test prompts only ({count_text(report['num_test_prompts'])}, of which "
        f"{count_text(report['num_single_response_prompts'])} with a single response; "
        f"{count_text(report['num_test_responses'])} responses): {drawn}. "
        f"{count_text(match['num_ties'])} of {count_text(total)} pairs ({percent(match['tie_rate'])}) are ties in gold. "
        f"Tie rule: {match['tie_rule']}; {count_text(match['num_equal_rewards'])} pairs have equal rewards. "
        f"Interval: {match['interval']}; of the distance: 95 % bootstrap over prompts."
    )
    header = ("agreement with gold", "value", "95 % interval", "model is ahead by (points)", "n")
    return Table("Match rate", header, rows, note)


def _calibration_table(found: Mapping[str, Any]) -> Table:
    error = found["expected_calibration_error"]
    rows = [
        (percent(part["confidence"]), percent(rate["value"]), interval_text(rate), count_text(rate["n"]))
        for part in found["bins"]
        for rate in [part["match_rate"]]
    ]
    temperature = found["temperature"]
    fit = (
        "No temperature fits best: the smaller, or the larger, the better."
        if temperature is None
        else f"Divided by the temperature {decimal(temperature)}, rewards would fit these pairs best (loss {decimal(found['loss'])} "
        f"becomes {decimal(found['loss_at_temperature'])} nats); above 1 the model is too sure, below 1 not sure enough."
    )
    note = (
        f"Expected calibration error: {100 * error['value']:.1f} points; a perfectly calibrated model would show "
        f"{100 * error['by_chance']:.1f} with as many pairs. {fit}"
    )
    return Table("Calibration", ("the model is sure to", "and right in", "95 % interval", "n"), rows, note)


def _best_of_n_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            count_text(point["n"]),
            decimal(point["kl"]),
            decimal(point["gold"]["value"]),
            f"{decimal(point['gold']['low'])} to {decimal(point['gold']['high'])}",
            decimal(point["oracle"]),
            decimal(point["proxy"]),
        )
        for point in found["points"]
    ]
    note = (
        f"Mean over {count_text(found['num_prompts'])} test prompts, every draw of n of their responses counted "
        f"({count_text(found['num_prompts_left_out'])} prompts with fewer responses left out). KL = ln n - (n - 1) / n nats. "
        f"{_peak_text(found['fit'])}"
    )
    header = ("best of n", "KL", "gold of the model's choice", "95 % interval", "gold of gold's choice", "its reward")
    return Table("Best of n", header, rows, note)


def _peak_text(fit: Mapping[str, Any] | None) -> str:
    if fit is None:
        return "A curve needs at least three values of n: raise sampling.num_test_responses to 8 or more."
    curve = f"Fitted d ({decimal(fit['alpha'])} - {decimal(fit['beta'])} d), d = sqrt(KL)"
    if fit["peak_kl"] is None:
        return f"{curve}: gold does not fall."
    bounds = [decimal(fit["peak_kl_low"]), "no end" if fit["peak_kl_high"] is None else decimal(fit["peak_kl_high"])]
    where = "measured" if fit["peak_was_measured"] else f"beyond the largest measured KL, {decimal(fit['largest_kl'])}"
    return f"{curve}: gold peaks at KL {decimal(fit['peak_kl'])} ({bounds[0]} to {bounds[1]}), {where}."


def _component_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (name, *(percent(found[who][name]) for who in ("policy", "best_by_model", "best_by_gold")))
        for name in found["policy"]
    ]
    header = ("component", "policy", f"best of {found['n']} by the model", f"best of {found['n']} by gold")
    return Table("Verified answers", header, rows, f"Means over {count_text(found['num_prompts'])} test prompts.")


def _benchmark_table(found: Mapping[str, Any]) -> Table:
    """The score, then its parts; in RewardBench each section before its subsets."""
    intervals = found["intervals"]
    rows = [
        (name, percent(value), interval_text(intervals["sections"][name]), "")
        for name, value in found["sections"].items()
    ]
    rows += [
        (name, percent(value), interval_text(intervals["subsets"][name]), count_text(found["n"][name]))
        for name, value in found["subsets"].items()
    ]
    score = ("score", percent(found["score"]), interval_text(intervals["score"]), count_text(sum(found["n"].values())))
    cut = (
        f" {count_text(found['num_truncated'])} of {count_text(found['num_responses'])} answers were cut at max_length."
    )
    return Table(found["title"], ("part", "score", "95 % interval", "n"), [score, *rows], found["rule"] + cut)


def _training_table(report: Mapping[str, Any]) -> Table:
    train, gap, training = report["train_accuracy"], report["generalization_gap"], report["training"]
    steps = training.get("num_optimizer_steps")
    loss = report["distributions"]["loss"]
    gap_range = "–" if gap["low"] is None else f"{points(gap['low'])} to {points(gap['high'])}"
    rows = [
        ("accuracy on training pairs", percent(train["value"]), interval_text(train), count_text(train["n"])),
        ("accuracy on validation pairs", percent(report["validation_accuracy"]["value"]), "", ""),
        ("training minus test, points", points(gap["value"]), gap_range, count_text(gap["num_test_pairs"])),
        ("final training loss", decimal(training.get("final_loss")), "", ""),
        ("loss on test pairs", decimal(loss["value"]), "", count_text(loss["n"])),
        ("optimizer steps", "–" if steps is None else count_text(steps), "", ""),
        ("training pairs", count_text(report["num_train_pairs"]), "", ""),
    ]
    note = "Loss in nats a pair; guessing gives 0.69. The pair policy can make training pairs easier than test pairs."
    return Table("Training", ("figure", "value", "95 % interval", "n"), rows, note)


def _learning_curve_table(curve: Mapping[str, Any]) -> Table:
    """A row for each share; how far the whole model is ahead of it is paired, on the same test pairs."""
    rows = []
    for point in curve["points"]:
        match, train = point["match_rate"], point["train_accuracy"]
        ahead = point["whole_is_ahead"]["difference"] if "whole_is_ahead" in point else None
        rows.append(
            (
                percent(point["share"]),
                count_text(point["num_pairs"]),
                count_text(point["num_optimizer_steps"]),
                percent(match["value"]),
                interval_text(match),
                f"{points(ahead['value'])} ({points(ahead['low'])} to {points(ahead['high'])})" if ahead else "",
                percent(train["value"]),
                percent(point["validation_accuracy"]),
            )
        )
    note = (
        f"All are judged on the same {count_text(curve['points'][-1]['match_rate']['n'])} test pairs, after as many passes "
        'over their own pairs; "on its pairs" is the accuracy there. Each is one training: intervals hold the chance of '
        "the test prompts, not that of another seed."
    )
    header = (
        "prompts", "pairs", "steps", "match rate", "95 % interval", "all ahead by (points)", "on its pairs", "validation",
    )  # fmt: skip
    return Table("Learning curve: label more or train longer?", header, rows, note, curve["answer"])


def _distribution_table(spread: Mapping[str, Any]) -> Table:
    rows = []
    names = (
        ("reward", "reward"),
        ("gold_reward", "gold reward"),
        ("reward_margin", "reward margin"),
        ("gold_margin", "gold margin"),
    )
    for key, name in names:
        part = spread[key]
        quantiles = [decimal(part["quantiles"][q]) for q in ("0.05", "0.5", "0.95")]
        within = decimal(spread["within_prompt_sd"][key]["value"]) if key in spread["within_prompt_sd"] else ""
        rows.append((name, decimal(part["mean"]), decimal(part["sd"]), within, *quantiles, count_text(part["n"])))
    small, barely = spread["compression"], spread["compression"]["barely_separated"]
    note = (
        f"Margins are chosen minus rejected. Mean |reward margin|: {decimal(small['mean_abs_reward_margin'])} log "
        f"odds; such margins claim a match rate of {percent(small['implied_match_rate'])}. "
        f"{percent(barely['value'])} of {count_text(barely['n'])} pairs are barely separated "
        f"(less than {barely['threshold']})."
    )
    return Table("Distributions", ("", "mean", "sd", "sd within prompts", "5 %", "median", "95 %", "n"), rows, note)


def _correlation_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    inner = found["per_prompt"]
    overall, length, gold = found["spearman"], found["reward_with_length"], found["gold_reward_with_length"]
    return [
        (
            "all test responses",
            decimal(overall["value"]),
            decimal(found["kendall"]["value"]),
            count_text(overall["n"]),
        ),
        (
            "within prompts, mean",
            decimal(inner["spearman"]),
            decimal(inner["kendall"]),
            f"{count_text(inner['n'])} prompts",
        ),
        ("reward with length instead", decimal(length["value"]), "", count_text(length["n"])),
        ("gold reward with length instead", decimal(gold["value"]), "", count_text(gold["n"])),
    ]
