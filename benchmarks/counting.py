"""The counted limit: tokens that a peer's batches compute, over the tokens that are distinct.

A program that computes every distinct token once and nothing else, at the peer's speed per token, is faster by this.
"""

from collections.abc import Sequence

from benchmarks.workloads import Item, PairOfItem, Workload

RECOMPUTE = 4 / 3
"""Checkpointing computes the forward pass twice: 4 passes' worth in place of 3 (forward 1, backward 2)."""


def padded(lengths: Sequence[int], rows_per_batch: int) -> int:
    """Tokens of batches in the order given, each padded to its longest row."""
    batches = [lengths[start : start + rows_per_batch] for start in range(0, len(lengths), rows_per_batch)]
    return sum(len(batch) * max(batch) for batch in batches)


def padded_pairs(sides: Sequence[tuple[int, int]], pairs_per_batch: int) -> int:
    """The same for pairs: chosen and rejected rows of a batch are padded together, as TRL does."""
    return padded([length for pair in sides for length in pair], 2 * pairs_per_batch)


def distinct(items: Sequence[Item], pairs: Sequence[PairOfItem]) -> int:
    """Tokens of each prompt and each response that the pairs name, once."""
    used = {(item, response) for item, *sides in pairs for response in sides}
    prompts = sum(len(items[item].prompt) for item in {item for item, _ in used})
    return prompts + sum(len(items[item].responses[response]) for item, response in used)


def training_ratio(workload: Workload, pairs_per_batch: int) -> float:
    """Tokens of TRL's batches over distinct tokens of one optimizer step; recomputation is not in it."""
    sides = [(len(chosen), len(rejected)) for chosen, rejected in map(workload.sides, workload.pairs)]
    return padded_pairs(sides, pairs_per_batch) / distinct(workload.items, workload.pairs)


def scoring_ratio(items: Sequence[Item], rows_per_batch: int) -> float:
    """Tokens of padded batches in the order given over distinct tokens."""
    lengths = [len(item.row(index)) for item in items for index in range(len(item.responses))]
    once = sum(len(item.prompt) + sum(map(len, item.responses)) for item in items)
    return padded(lengths, rows_per_batch) / once


def sampling_ratio(prompts: Sequence[int], new_tokens: Sequence[int], prompts_per_batch: int) -> float:
    """Tokens that `generate` computes (every row reads its padded prompt and runs until the last one ends) over distinct tokens.

    `new_tokens` are the lengths of the responses, prompt by prompt, the same number for each.
    """
    num_responses = len(new_tokens) // len(prompts)
    computed = 0
    for start in range(0, len(prompts), prompts_per_batch):
        batch = prompts[start : start + prompts_per_batch]
        ends = new_tokens[start * num_responses : (start + len(batch)) * num_responses]
        computed += len(ends) * (max(batch) + max(ends))
    return computed / (sum(prompts) + sum(new_tokens))
