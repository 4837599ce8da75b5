"""Learning-rate schedule, and the guard that keeps one bad step from ruining the weights."""

import math
import statistics
from collections import deque

from rm_assets.core.errors import ModelError
from rm_assets.core.training_order import StepPlan

SPIKE_WINDOW = 32
"""Steps whose median is the usual loss."""
LEAST_USUAL_LOSS = 0.01
"""Below it, a loss that is many times the usual one is no sign of anything."""
MOST_SPIKES = 3
"""Steps in a row that may be skipped."""


def rate_factor(step: int, plan: StepPlan, schedule: str) -> float:
    """What the peak learning rate is multiplied with in optimizer step `step`, counted from 0."""
    if step < plan.num_warmup_steps:
        return step / plan.num_warmup_steps
    share = (step - plan.num_warmup_steps) / max(1, plan.num_optimizer_steps - plan.num_warmup_steps)
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        case "linear":
            return 1 - share
        case _:
            return 1.0


def require_finite(name: str, step: int, value: float) -> None:
    """Raises: ModelError MODEL_006 for a figure of an optimizer step that is not finite."""
    if not math.isfinite(value):
        raise ModelError(
            "MODEL_006",
            f"The {name} of optimizer step {step} is {value}",
            why="the rewards overflow, or an earlier step made the weights useless",
            fix="lower learning_rate, raise warmup_ratio, or train with dtype bfloat16 or float32",
        )


class LossGuard:
    """Stops at a loss that is no number, and skips steps whose loss is far beyond the usual one."""

    def __init__(self, max_spike: float, losses: list[float] | None = None, num_spikes: int = 0) -> None:
        self._max_spike, self.num_spikes = max_spike, num_spikes
        self._first = losses[0] if losses else None
        self._recent: deque[float] = deque((losses or [])[1:], SPIKE_WINDOW)

    def state(self) -> list[float]:
        """What a resumed guard begins with: the first loss, then the recent ones."""
        return [] if self._first is None else [self._first, *self._recent]

    def accepts(self, step: int, loss: float, grad_norm: float | None) -> bool:
        """Whether the weights may take this step.

        Raises: ModelError MODEL_006 if loss or gradient is not finite, MODEL_008 after three spikes in a row.
        """
        require_finite("loss", step, loss)
        if grad_norm is not None:
            require_finite("gradient norm", step, grad_norm)
        if self._first is None:
            self._first = loss
        usual = max(self._first, statistics.median(self._recent)) if self._recent else self._first
        usual = max(usual, LEAST_USUAL_LOSS)
        if loss > self._max_spike * usual:
            self.num_spikes += 1
            if self.num_spikes >= MOST_SPIKES:
                raise ModelError(
                    "MODEL_008",
                    f"The loss of optimizer step {step} is {loss:.4g}, {loss / usual:.0f} times the usual {usual:.4g}",
                    why=f"{MOST_SPIKES} steps in a row were so; the training diverges or these pairs are damaged",
                    fix="look at the pairs of these steps, lower learning_rate, or raise training.max_loss_spike",
                )
            return False
        self.num_spikes = 0
        self._recent.append(loss)
        return True
