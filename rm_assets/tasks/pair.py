"""implicit_pairs: chosen and rejected by gold reward, in TRL's conversational format, every candidate accounted for."""

import statistics
from collections import Counter, defaultdict
from dataclasses import asdict

from rm_assets.core.errors import DataError
from rm_assets.core.pairing import REASONS, make_pairs
from rm_assets.core.records import SPLITS, GoldReward, Pair
from rm_assets.storage.tables import read_table, write_jsonl, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.session import Product, Task, run_task


def pair(task: Task) -> Product:
    """Pairs the responses of every prompt and exports each split as JSONL beside the table.

    Raises: DataError DATA_005 if the training or test prompts give no pair.
    """
    section = task.recipe.pairs
    of_prompt: defaultdict[str, list[GoldReward]] = defaultdict(list)
    for reward in read_table(task.input("gold_rewards", "gold_rewards.parquet"), GoldReward):
        of_prompt[reward.prompt_id].append(reward)
    pairs, account = make_pairs(of_prompt.values(), section)
    by_split = Counter(p.split for p in pairs)
    if not by_split["train"]:
        lost = ", ".join(f"{account[reason]} {reason}" for reason in REASONS)
        raise DataError(
            "DATA_005",
            f"no training pair is left of {account['candidates']} candidates ({lost})",
            why="a pair needs two responses to one prompt with different gold rewards",
            fix="sample more or hotter responses, use a finer gold reward, or lower pairs.min_margin",
        )
    tests = [rewards for rewards in of_prompt.values() if rewards[0].split == "test"]
    if all(len({r.gold_reward for r in rewards}) < 2 for rewards in tests):
        raise DataError(
            "DATA_005",
            f"no test pair is left: none of {len(tests)} test prompts has two responses with different gold rewards",
            why="a trained model could not be judged",
            fix="raise sampling.num_test_responses, bring more test prompts, or use a finer gold reward",
        )
    write_table(task.folder / "pairs.parquet", Pair, pairs)
    exports = [f"{split}.jsonl" for split in SPLITS if by_split[split]]
    for name in exports:
        write_jsonl(task.folder / name, (asdict(p) for p in pairs if p.split == name.removesuffix(".jsonl")))
    margins = sorted(p.gold_margin for p in pairs)
    longer = statistics.fmean(len(p.chosen[-1]["content"]) > len(p.rejected[-1]["content"]) for p in pairs)
    return Product(
        files=["pairs.parquet", *exports],
        counts={
            "pairs": len(pairs),
            **{f"{s}_pairs": by_split[s] for s in SPLITS},
            **{k: account[k] for k in ("candidates", *REASONS)},
        },
        work={"pairs made": len(pairs)},
        facts={
            "tie_rate": round((account["tie"] + account["identical_text"]) / account["candidates"], 4),
            "gold_margin_median": margins[len(margins) // 2],
            "gold_margin_min": margins[0],
            "gold_margin_max": margins[-1],
            "share_chosen_longer": round(longer, 4),
        },
        examples=[
            {
                "prompt": excerpt(p.chosen[-2]["content"], 120),
                "chosen": excerpt(p.chosen[-1]["content"]),
                "rejected": excerpt(p.rejected[-1]["content"]),
                "gold_margin": f"{p.gold_margin:.3f}",
            }
            for p in pairs[:8]
        ],
        columns=columns_of(Pair),
    )


if __name__ == "__main__":
    run_task(pair)
