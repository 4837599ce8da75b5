"""implicit_pairs: chosen and rejected by gold reward, in TRL's conversational format, every candidate accounted for.

One pass, in which a prompt's rewards become pairs and the pairs go to the table and the exports; what stays in memory is
the margin of each pair, for their median.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rm_assets.core.errors import DataError
from rm_assets.core.pairing import REASONS, by_prompt, make_pairs
from rm_assets.core.records import SPLITS, GoldReward, Pair
from rm_assets.storage.tables import jsonl_writer, read_table, write_table
from rm_assets.tasks.preview import columns_of, excerpt
from rm_assets.tasks.session import Product, Task, run_task

NUM_EXAMPLES = 8


def pair(task: Task) -> Product:
    """Pairs the responses of every prompt and exports each split as JSONL beside the table.

    Raises: DataError DATA_005 if the training or test prompts give no pair.
    """
    tests = _TestPrompts()
    rewards = read_table(task.input("gold_rewards", "gold_rewards.parquet"), GoldReward)
    pairs, account = make_pairs(tests.watched(by_prompt(rewards)), task.recipe.pairs)
    seen = _Seen()
    with ExitStack() as exports:
        export = _exporter(exports, task.folder)

        def passing() -> Iterator[Pair]:
            for each in pairs:
                seen.add(each)
                export(each)
                yield each
            # Raised before the files are renamed, so that none of them is there.
            _require_training_pairs(seen, account)
            tests.require_pair()

        write_table(task.folder / "pairs.parquet", Pair, passing())
    return Product(
        files=["pairs.parquet", *(f"{split}.jsonl" for split in SPLITS if seen.by_split[split])],
        counts={
            "pairs": account["kept"],
            **{f"{s}_pairs": seen.by_split[s] for s in SPLITS},
            **{k: account[k] for k in ("candidates", *REASONS)},
        },
        work={"pairs made": account["kept"]},
        facts={
            "tie_rate": round((account["tie"] + account["identical_text"]) / account["candidates"], 4),
            **seen.margin_facts(),
        },
        examples=[
            {
                "prompt": excerpt(p.chosen[-2]["content"], 120),
                "chosen": excerpt(p.chosen[-1]["content"]),
                "rejected": excerpt(p.rejected[-1]["content"]),
                "gold_margin": f"{p.gold_margin:.3f}",
            }
            for p in seen.first
        ],
        columns=columns_of(Pair),
    )


class _Seen:
    """What is said of the pairs, gathered as they pass."""

    def __init__(self) -> None:
        self.by_split: Counter[str] = Counter()
        self.first: list[Pair] = []
        self._margins = array("d")

    def add(self, pair: Pair) -> None:
        """Takes note of one pair."""
        self.by_split[pair.split] += 1
        self._margins.append(pair.gold_margin)
        if len(self.first) < NUM_EXAMPLES:
            self.first.append(pair)

    def margin_facts(self) -> dict[str, float]:
        """Median (of an even number the upper one), least and greatest gold margin."""
        margins, middle = np.frombuffer(self._margins), len(self._margins) // 2
        margins.partition(middle)
        return {
            "gold_margin_median": float(margins[middle]),
            "gold_margin_min": float(margins.min()),
            "gold_margin_max": float(margins.max()),
        }


class _TestPrompts:
    """Whether the model can be judged, seen as the prompts pass."""

    def __init__(self) -> None:
        self._num_prompts = self._num_with_difference = 0

    def watched(self, groups: Iterator[list[GoldReward]]) -> Iterator[list[GoldReward]]:
        """The groups as they are."""
        for rewards in groups:
            if rewards[0].split == "test":
                self._num_prompts += 1
                self._num_with_difference += len({r.gold_reward for r in rewards}) > 1
            yield rewards

    def require_pair(self) -> None:
        """Raises DataError DATA_005 if no two responses to a test prompt differ."""
        if self._num_with_difference:
            return
        raise DataError(
            "DATA_005",
            f"no test pair is left: none of {self._num_prompts} test prompts has two responses with different gold rewards",
            why="a trained model could not be judged",
            fix="raise sampling.num_test_responses, bring more test prompts, or use a finer gold reward",
        )


def _require_training_pairs(seen: _Seen, account: Mapping[str, int]) -> None:
    if seen.by_split["train"]:
        return
    lost = ", ".join(f"{account[reason]} {reason}" for reason in REASONS)
    raise DataError(
        "DATA_005",
        f"no training pair is left of {account['candidates']} candidates ({lost})",
        why="a pair needs two responses to one prompt with different gold rewards",
        fix="sample more or hotter responses, use a finer gold reward, or lower pairs.min_margin",
    )


def _exporter(stack: ExitStack, folder: Path) -> Callable[[Pair], None]:
    """Writes each pair to the file of its split; a split without pairs gets no file."""
    writers: dict[str, Callable[[Mapping[str, Any]], None]] = {}

    def write(pair: Pair) -> None:
        if pair.split not in writers:
            writers[pair.split] = stack.enter_context(jsonl_writer(folder / f"{pair.split}.jsonl"))
        writers[pair.split](vars(pair))

    return write


if __name__ == "__main__":
    run_task(pair)
