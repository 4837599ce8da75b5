"""evaluation_report: scores the test responses with the trained model and judges it against gold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_assets.core.digests import unit_interval
from rm_assets.core.evaluation import ScoredPair, ScoredResponse, build_report, compare_pairs
from rm_assets.core.evaluation.learning_curve import ModelAtShare, learning_curve
from rm_assets.core.planning.stage_plans import SCORED
from rm_assets.core.protocols import ResponseScorer
from rm_assets.core.recipe import ModelRef
from rm_assets.core.records import GoldReward, Messages, Pair, ProxyReward, prompt_messages, response_messages
from rm_assets.core.report.html import render_html
from rm_assets.core.report.markdown import render_markdown
from rm_assets.core.report.plots import best_of_n_curve, gold_scatter, match_rate_curve, reliability, score_plot
from rm_assets.core.report.training_plot import training_curve
from rm_assets.core.shares import at_shares
from rm_assets.core.stages import model_at
from rm_assets.storage.files import write_json, write_text
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.benchmarks import read_benchmark, run_benchmark
from rm_assets.tasks.preview import excerpt
from rm_assets.tasks.scorers import load_scorer
from rm_assets.tasks.session import Product, Task, run_task
from rm_assets.tasks.train import CHECKPOINT, TRAINED_PAIRS_FILE, TRAINING_FILE

REWARDS_FILE = "test_rewards.parquet"

if TYPE_CHECKING:
    from rm_assets.backends.scoring import ConversationScorer


def evaluate(task: Task) -> Product:
    """Scores test responses, trained pairs and the canaries; writes the report in three forms.

    A test prompt that leaves no room for a response within training.max_length is left out whole and counted.
    """
    settings = task.recipe.evaluation
    checkpoint = task.input("reward_model", CHECKPOINT)
    training: dict[str, Any] = json.loads((checkpoint / TRAINING_FILE).read_text("utf-8"))
    trained = set(task.input("reward_model", TRAINED_PAIRS_FILE).read_text("utf-8").split())
    pairs_table = read_table(task.input("implicit_pairs", "pairs.parquet"), Pair)
    # An existing model's training is not known; the recipe's training pairs then only say which length they favour.
    is_existing = training.get("kind") == "existing"
    train_pairs = [p for p in pairs_table if (p.split == "train" if is_existing else p.pair_id in trained)]
    in_order = sorted(
        [] if is_existing else train_pairs, key=lambda p: unit_interval("train pair", settings.seed, p.pair_id)
    )
    drawn = in_order[: settings.max_train_pairs]
    rows = [r for r in read_table(task.input("gold_rewards", "gold_rewards.parquet"), GoldReward) if r.split == "test"]

    # A fault in their rows is found before anything is scored.
    bench_rows = [(section, read_benchmark(section)) for section in settings.benchmarks]
    with task.store.device(task.reporter.waiting):
        scorer = _scorer(task, checkpoint, training["max_length"])
        tested = score_test_responses(scorer, rows)
        gold = [response.gold for response in tested.responses]
        scored_pairs = _score_pairs(scorer, drawn)
        canaries = [_canary(scorer, messages) for messages in _canary_conversations(gold, settings.num_canaries)]
        benchmarks = [run_benchmark(section, of_it, scorer) for section, of_it in bench_rows]
        facts = scorer.facts
        del scorer  # its memory is for the models of the learning curve
        shared = [_at_share(task, share, in_order, gold) for share in at_shares(task.recipe)]
    test = tested.responses
    whole = ModelAtShare(share=1.0, test=test, train_pairs=scored_pairs, training=training)
    report = build_report(
        test=test,
        scored_train_pairs=scored_pairs,
        train_pairs=train_pairs,
        settings=settings,
        canaries=canaries,
        training=training,
        benchmarks=benchmarks,
        learning_curve=learning_curve([*shared, whole], settings) if shared else None,
    )
    kept = (proxy_reward(response.gold, response.reward) for response in test)
    write_table(task.folder / REWARDS_FILE, ProxyReward, kept)
    report |= tested.counts
    pairs, _ = compare_pairs(test, settings)
    plots = {
        "score_plot": score_plot(test, pairs),
        "gold_scatter": gold_scatter(test),
        "reliability": reliability(report["calibration"]),
        **(
            {"best_of_n": best_of_n_curve(curve)} if (curve := report["best_of_n"]) and len(curve["points"]) > 2 else {}
        ),
        **({"learning_curve": match_rate_curve(report["learning_curve"])} if shared else {}),
        **({} if is_existing else {"training_curve": training_curve(training["history"])}),
    }
    num_of_benchmarks = sum(found["num_responses"] for found in benchmarks)
    num_of_models = sum(len(model.test) + 2 * len(model.train_pairs) for model in [*shared, whole])
    return _write(task, report, plots, num_scored=num_of_models + num_of_benchmarks, facts=facts)


def _score_pairs(scorer: ResponseScorer, pairs: Sequence[Pair]) -> list[ScoredPair]:
    """Training pairs with their two rewards."""
    rewards = [s.reward for s in scorer.score([side for p in pairs for side in (p.chosen, p.rejected)])]
    return list(zip(pairs, rewards[::2], rewards[1::2], strict=True))


def _at_share(task: Task, share: float, train_pairs: Sequence[Pair], gold: list[GoldReward]) -> ModelAtShare:
    """A model of the learning curve on the test responses `gold`, and on the first of its own among `train_pairs`."""
    checkpoint = task.input(model_at(share), CHECKPOINT)
    training: dict[str, Any] = json.loads((checkpoint / TRAINING_FILE).read_text("utf-8"))
    trained = set(task.input(model_at(share), TRAINED_PAIRS_FILE).read_text("utf-8").split())
    task.reporter.log(f"scoring with the {model_at(share)}")
    scorer = _scorer(task, checkpoint, training["max_length"])
    own = [pair for pair in train_pairs if pair.pair_id in trained][: task.recipe.evaluation.max_train_pairs]
    test = score_test_responses(scorer, gold).responses
    return ModelAtShare(share=share, test=test, train_pairs=_score_pairs(scorer, own), training=training)


@dataclass(frozen=True)
class Tested:
    """Scored test responses, and by the report's keys how many prompts were left out and responses cut."""

    responses: list[ScoredResponse]
    counts: dict[str, int]


def score_test_responses(scorer: ResponseScorer, rows: list[GoldReward]) -> Tested:
    """All `rows` but those of prompts that leave no room for a response."""
    fits = {r.prompt_id: scorer.has_room(prompt_messages(r)) for r in rows}
    gold = [r for r in rows if fits[r.prompt_id]]
    scores = list(scorer.score([response_messages(r) for r in gold]))
    return Tested(
        [ScoredResponse(gold=r, reward=s.reward, num_tokens=s.num_tokens) for r, s in zip(gold, scores, strict=True)],
        {
            "num_test_prompts_over_length": list(fits.values()).count(False),
            "num_test_responses_truncated": sum(s.truncated for s in scores),
        },
    )


def proxy_reward(gold: GoldReward, reward: float) -> ProxyReward:
    """A labelled response with the reward that a model gives it."""
    return ProxyReward(
        prompt_id=gold.prompt_id, response_id=gold.response_id, source=gold.source, sample_index=gold.sample_index,
        num_characters=len(gold.response), comparison=gold.comparison, gold_reward=gold.gold_reward,
        reward=reward,
    )  # fmt: skip


def _scorer(task: Task, checkpoint: Path, max_length: int) -> "ConversationScorer":
    return load_scorer(
        ModelRef(path=str(checkpoint)), task.recipe.evaluation.backend, max_length=max_length, dtype="float32",
        execution=task.recipe.execution, reporter=task.reporter,
    )  # fmt: skip


def _canary_conversations(gold: list[GoldReward], num_canaries: int) -> list[Messages]:
    """The first responses of the first test prompts, then their second ones, and so on."""
    rows = sorted(enumerate(gold), key=lambda row: (row[1].sample_index, row[0]))[:num_canaries]
    return [response_messages(r) for _, r in rows]


def _canary(scorer: "ConversationScorer", messages: Messages) -> dict[str, Any]:
    """One row at a time, so that no padding enters the reward that a release has to reproduce."""
    return {"messages": messages, "text": scorer.text(messages), "reward": next(iter(scorer.score([messages]))).reward}


def _write(
    task: Task, report: dict[str, Any], plots: dict[str, bytes], *, num_scored: int, facts: dict[str, int]
) -> Product:
    folder, name = task.folder, task.recipe.name
    lineage = {asset: manifest.data_version for asset, manifest in task.inputs.items()}
    for plot, png in plots.items():
        (folder / f"{plot}.png").write_bytes(png)
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", render_markdown(report, recipe_name=name, lineage=lineage))
    write_text(folder / "report.html", render_html(report, recipe_name=name, lineage=lineage, plots=plots))
    match = report["match_rate"]
    return Product(
        files=["report.json", "report.md", "report.html", REWARDS_FILE],
        counts={
            "test_pairs": match["n"],
            "test_ties": match["num_ties"],
            "test_responses": report["num_test_responses"],
            "test_responses_truncated": report["num_test_responses_truncated"],
            "test_prompts_over_length": report["num_test_prompts_over_length"],
        },
        work={SCORED: num_scored},
        facts={
            "verdict": report["verdict"],
            "match_rate": match["value"],
            "match_rate_low": match["low"],
            "match_rate_high": match["high"],
            "tie_rate": match["tie_rate"],
            "length_baseline": report["length_baseline"]["value"],
            "format_baseline": (report["format_baseline"] or {}).get("value"),
            "length_balanced_match_rate": (report["without_length"]["balanced"] or {}).get("value"),
            "expected_calibration_error": report["calibration"]["expected_calibration_error"]["value"],
            "temperature": report["calibration"]["temperature"],
            "train_accuracy": report["train_accuracy"]["value"],
            "spearman": report["rank_correlation"]["spearman"]["value"],
            **{found["kind"]: found["score"] for found in report["benchmarks"]},
            "match_rate_by_difference": {
                k: f"{v['value']:.3f} (n = {v['n']})" for k, v in report["by_difference"].items()
            },
            **_curve_facts(report),
            **facts,
            "diagnosis": [f"{sign['sign']}: {sign['evidence']} {sign['remedy']}" for sign in report["diagnosis"]],
        },
        examples=[
            {
                "prompt": excerpt(m["prompt"], 120),
                "chosen": excerpt(m["chosen"]),
                "rejected": excerpt(m["rejected"]),
                "reward_margin": f"{m['reward_margin']:.2f}",
            }
            for m in report["worst_mistakes"][:5]
        ],
        plots=[f"{plot}.png" for plot in plots],
    )


def _curve_facts(report: dict[str, Any]) -> dict[str, Any]:
    """The learning curve and its answers, where there is one."""
    curve = report.get("learning_curve")
    if curve is None:
        return {}
    rates = {f"{point['num_pairs']:,} training pairs": point["match_rate"] for point in curve["points"]}
    return {
        "label_more_or_train_longer": curve["answer"],
        "match_rate_by_training_pairs": {
            k: f"{v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f}, n = {v['n']})" for k, v in rates.items()
        },
    }


if __name__ == "__main__":
    run_task(evaluate)
