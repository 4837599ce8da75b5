"""Checks of the data assets. They block: what would be built on a fault is not built."""

import dagster as dg

from rm_assets.checks.recipe_check import check_result, recipe_check
from rm_assets.core.data_checks import account_of_pairs, order_of_rewards, overlap_of_splits
from rm_assets.core.records import GoldReward, Prompt, Response
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import wanted
from rm_assets.storage.tables import read_table


@recipe_check("prompts", blocking=True, description="No prompt is in two splits, in any spelling.")
def splits_are_disjoint(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
    """Compares the normal forms of the prompts of all splits."""
    store = compute.store()
    want = wanted(store, compute.recipe(context.partition_key), "prompts")
    return check_result(overlap_of_splits(read_table(store.folder("prompts", want.digest) / "prompts.parquet", Prompt)))


@recipe_check(
    "gold_rewards",
    blocking=True,
    description="One finite reward for each response, in the order of the responses.",
)
def rewards_follow_responses(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
    """Compares both tables row by row."""
    store = compute.store()
    want = wanted(store, compute.recipe(context.partition_key), "gold_rewards")
    responses = store.folder("sampled_responses", want.inputs["sampled_responses"].digest) / "responses.parquet"
    rewards = store.folder("gold_rewards", want.digest) / "gold_rewards.parquet"
    return check_result(order_of_rewards(read_table(responses, Response), read_table(rewards, GoldReward)))


@recipe_check(
    "implicit_pairs",
    blocking=True,
    description="Candidates = pairs kept + each reason for loss.",
)
def pairs_add_up(context: dg.AssetCheckExecutionContext, compute: Compute) -> dg.AssetCheckResult:
    """Adds up the account of the pairs."""
    want = wanted(compute.store(), compute.recipe(context.partition_key), "implicit_pairs")
    return check_result(account_of_pairs(want.manifest.counts if want.manifest else {}))
