"""Whether the model's confidence is right: of the pairs that it is 80 % sure of, 80 % should be ordered as by gold.

A pair's confidence is sigmoid(|reward margin|), the probability that Bradley-Terry gives to the response that the model
prefers; it is right if gold prefers that response, too.
"""

import math
from collections.abc import Sequence
from typing import Any

from rm_assets.core import statistics
from rm_assets.core.evaluation.pairs import ComparedPair

NUM_BINS = 10
LARGEST_SCALE = 1e4
"""Of the inverse temperature: beyond it every pair is as good as certain."""
NUM_SIMULATIONS = 200


def calibration(pairs: Sequence[ComparedPair], *, seed: int) -> dict[str, Any]:
    """Expected calibration error, the bins of the reliability diagram, and the temperature that would fit best.

    The bins hold equally many pairs. With few pairs even a perfectly calibrated model shows an error above 0:
    `by_chance` is what it would show in the mean at these confidences.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks".
    """
    import numpy as np

    margins = np.asarray([pair.reward_margin for pair in pairs])
    confidence = 1 / (1 + np.exp(-np.minimum(np.abs(margins), 700.0)))
    order = np.argsort(confidence, kind="stable")
    _, group, size = np.unique(confidence, return_inverse=True, return_counts=True)

    def shared(correct: Any) -> Any:
        """Equal confidences share their mean, or the order of the rows would decide which bin is right."""
        return (np.bincount(group, weights=correct) / size)[group]

    correct = shared([statistics.credit(margin) for margin in margins])
    bins = [part for part in np.array_split(order, min(NUM_BINS, len(pairs))) if len(part)]
    random = np.random.default_rng(seed)
    by_chance = np.mean(
        [_error(confidence, shared(random.random(len(pairs)) < confidence), bins) for _ in range(NUM_SIMULATIONS)]
    )
    return {
        "expected_calibration_error": {
            "value": _error(confidence, correct, bins),
            "by_chance": float(by_chance),
            "n": len(pairs),
        },
        "mean_confidence": float(confidence.mean()),
        "bins": [
            _bin(confidence[part], correct[part], len({pairs[place].prompt_id for place in part})) for part in bins
        ],
        **_temperature(margins.tolist()),
    }


def _error(confidence: Any, correct: Any, bins: Sequence[Any]) -> float:
    gaps = (abs(confidence[part].mean() - correct[part].mean()) * len(part) for part in bins)
    return float(sum(gaps) / len(confidence))


def _bin(confidence: Any, correct: Any, num_prompts: int) -> dict[str, Any]:
    """Mean confidence and match rate, whose interval is Wilson's with prompts as n: pairs of one prompt may repeat each other."""
    low, high = statistics.wilson_interval(float(correct.mean()) * num_prompts, num_prompts)
    return {
        "confidence": float(confidence.mean()),
        "match_rate": {"value": float(correct.mean()), "low": low, "high": high, "n": len(correct)},
    }


def _temperature(margins: Sequence[float]) -> dict[str, Any]:
    """The T for which sigmoid(margin / T) has the least loss, above 1 for an overconfident model; None where there is none.

    There is none if no margin is below 0 (the smaller T, the better), or if their mean is not above 0 (the larger, the better).
    """
    loss = statistics.mean(bradley_terry_loss(margin) for margin in margins)
    if not any(m > 0 for m in margins) or not any(m < 0 for m in margins) or _slope(margins, 0.0) >= 0:
        return {"temperature": None, "loss": loss, "loss_at_temperature": None}
    low, high = 0.0, 1.0
    while _slope(margins, high) < 0 and high < LARGEST_SCALE:
        low, high = high, high * 2
    for _ in range(60):  # the loss is convex in the inverse temperature
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(margins, middle) < 0 else (low, middle)
    return {
        "temperature": 1 / high,
        "loss": loss,
        "loss_at_temperature": statistics.mean(bradley_terry_loss(margin * high) for margin in margins),
    }


def _slope(margins: Sequence[float], scale: float) -> float:
    """Derivative of the summed loss with respect to the inverse temperature."""
    return -math.fsum(m / (1 + math.exp(min(max(m * scale, -700.0), 700.0))) for m in margins)


def bradley_terry_loss(margin: float) -> float:
    """-log(sigmoid(margin)) in nats, without overflow; log 2 for a model that knows nothing."""
    return max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
