"""How far apart rewards lie and how they rank responses, beside gold rewards."""

import math
from collections.abc import Sequence
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation.calibration import bradley_terry_loss
from rm_assets.core.evaluation.pairs import ComparedPair, ScoredResponse, comparable

BARELY_SEPARATED = 0.1  # log odds: the model would call the better response at 52.5 %


def distributions(
    test: Sequence[ScoredResponse], groups: Sequence[Sequence[ScoredResponse]], pairs: Sequence[ComparedPair]
) -> dict[str, Any]:
    """How far apart rewards and gold rewards lie, over all test responses, within prompts and in the compared pairs."""
    margins, gold_margins = [pair.reward_margin for pair in pairs], [pair.gold_margin for pair in pairs]
    reward_spread, gold_spread = statistics.summarize(margins), statistics.summarize(gold_margins)
    sizes = [abs(margin) for margin in margins]
    ratio = reward_spread["sd"] / gold_spread["sd"] if gold_spread["sd"] else None
    return {
        "reward": statistics.summarize(response.reward for response in test),
        "gold_reward": statistics.summarize(response.gold.gold_reward for response in test),
        "num_tokens": statistics.summarize(response.num_tokens for response in test),
        "within_prompt_sd": {
            "reward": statistics.within_group_sd([r.reward for r in group] for group in groups),
            "gold_reward": statistics.within_group_sd(
                [r.gold.gold_reward for r in group] for group in comparable(groups)
            ),
        },
        "reward_margin": reward_spread,
        "gold_margin": gold_spread,
        "compression": {
            "mean_abs_reward_margin": statistics.mean(sizes),
            "median_abs_reward_margin": statistics.summarize(sizes)["quantiles"]["0.5"],
            "barely_separated": {
                "value": statistics.mean(float(size < BARELY_SEPARATED) for size in sizes),
                "threshold": BARELY_SEPARATED,
                "n": len(sizes),
            },
            "implied_match_rate": statistics.mean(1 / (1 + math.exp(-min(size, 700.0))) for size in sizes),
            "margin_sd_ratio": ratio,
            "n": len(sizes),
            "formula": "reward margins are log odds (Bradley-Terry), so their size needs no reference: "
            "implied_match_rate is the mean of 1 / (1 + exp(-|reward margin|)), the match rate that the margins claim; "
            "margin_sd_ratio is sd(reward margins) / sd(gold margins) and depends on the unit of gold",
        },
        "loss": {"value": statistics.mean(bradley_terry_loss(margin) for margin in margins), "n": len(margins)},
    }


def rank_correlation(test: Sequence[ScoredResponse], groups: Sequence[Sequence[ScoredResponse]]) -> dict[str, Any]:
    gold, rewards = [r.gold.gold_reward for r in test], [r.reward for r in test]
    lengths = [float(len(r.gold.response)) for r in test]
    ranked = [([r.gold.gold_reward for r in group], [r.reward for r in group]) for group in comparable(groups)]
    return {
        "spearman": {"value": statistics.spearman(gold, rewards), "n": len(test)},
        "kendall": {"value": statistics.kendall(gold, rewards), "n": len(test)},
        "per_prompt": statistics.per_prompt_rank_correlation(ranked),
        "reward_with_length": {"value": statistics.spearman(lengths, rewards), "n": len(test)},
        "gold_reward_with_length": {"value": statistics.spearman(lengths, gold), "n": len(test)},
    }
