"""A judgement: any reward models on the test responses of a recipe. It makes no asset; rewards are kept, see kept_scores.py."""

import json
from pathlib import Path
from typing import Any

from rm_assets.core.evaluation import build_report
from rm_assets.core.recipe import ModelRef, Recipe
from rm_assets.core.records import GoldReward, Pair, ProxyReward
from rm_assets.storage.files import write_json
from rm_assets.storage.store import Store
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.benchmarks import read_benchmark, run_benchmark
from rm_assets.tasks.evaluate import proxy_reward, score_test_responses
from rm_assets.tasks.kept_scores import KeptScorer
from rm_assets.tasks.session import LineReporter, run_process

UNKNOWN_TRAINING = {"kind": "existing", "history": []}


def judge(request: dict[str, Any], reporter: LineReporter) -> None:
    """Writes a table of rewards and a report for each model into the request's folder, named by its place.

    The report is that of an evaluation without canaries; accuracy on training pairs is that of an earlier report, if any.
    """
    recipe, store = Recipe.model_validate(request["recipe"]), Store(Path(request["home"]))
    rows = [row for row in read_table(Path(request["gold"]), GoldReward) if row.split == "test"]
    pairs = request["pairs"] and [p for p in read_table(Path(request["pairs"]), Pair) if p.split == "train"]
    bench_rows = [(section, read_benchmark(section)) for section in recipe.evaluation.benchmarks]
    with store.device(reporter.waiting):
        for place, model in enumerate(request["models"]):
            scorer = KeptScorer(
                store.home, ModelRef.model_validate(model["model"]), model["weights"],
                max_length=model["max_length"], execution=recipe.execution, reporter=reporter,
            )  # fmt: skip
            tested = score_test_responses(scorer, rows)
            benchmarks = [run_benchmark(section, of_it, scorer) for section, of_it in bench_rows]
            training = json.loads(Path(model["training"]).read_text("utf-8")) if model["training"] else UNKNOWN_TRAINING
            report = build_report(
                test=tested.responses, scored_train_pairs=[], train_pairs=pairs or [], settings=recipe.evaluation,
                canaries=[], training=training, benchmarks=benchmarks, train_accuracy=model["train_accuracy"],
            )  # fmt: skip
            report |= tested.counts | {"max_length": scorer.max_length, "num_scored": scorer.num_scored}
            reporter.log(f"{model['name']}: {scorer.num_scored:,} rewards computed, the others were kept from before")
            folder = Path(request["folder"])
            write_table(
                folder / f"{place}.parquet", ProxyReward, (proxy_reward(r.gold, r.reward) for r in tested.responses)
            )
            write_json(folder / f"{place}.json", report)


if __name__ == "__main__":
    run_process(judge)
