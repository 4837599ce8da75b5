"""What is known to go wrong with a training of these numbers: warnings, each one sentence of what, why and what to do.

A warning stops nothing. The thresholds are constants with their sources, so that they can be argued with.
"""

from dataclasses import dataclass

# "Min 1000 preference pairs", 20 to 30 and 10 to 20 epochs, and the table below: the guidance of a managed tuning service
# whose step calculator this planner replaces. Its epochs are for its own small learning rates, not for full training.
MIN_PAIRS = 1_000
SERVICE_REWARD_EPOCHS = (20, 30)
SERVICE_RL_EPOCHS = (10, 20)
# Gao et al. 2022, section 3.3: with fewer comparisons a proxy hardly beats chance, whatever its size.
MIN_COMPARISONS = 2_000
# Ouyang et al. 2022, section 3.5: comparisons of the same responses seen again and again made reward models overfit.
LARGE_MODEL = 1_000_000_000
MAX_EPOCHS_OF_LARGE_MODEL = 3
MAX_SHARE_OVER_LENGTH = 0.1


@dataclass(frozen=True)
class PlanWarning:
    """One sentence, under a name that does not change."""

    name: str
    text: str


@dataclass(frozen=True)
class ServiceGuidance:
    """What the replaced service recommends for a model: steps of its reward model, multiplier of its learning rate, KL."""

    model: str
    steps: tuple[int, int]
    learning_rate_multiplier: float
    kl_coefficient: float


SERVICE_GUIDANCE: dict[str, ServiceGuidance] = {
    entry.model: entry
    for entry in (
        ServiceGuidance("llama-2-7b", (1_000, 5_000), 1.0, 0.1),
        ServiceGuidance("llama-2-13b", (2_000, 8_000), 0.5, 0.1),
        ServiceGuidance("t5x", (500, 2_000), 1.0, 0.05),
        ServiceGuidance("text-bison@001", (1_000, 3_000), 0.8, 0.1),
    )
}


@dataclass(frozen=True)
class RateBand:
    """Learning rates outside which a full AdamW training of models below `num_parameters` is usually a slip."""

    num_parameters: float
    lowest: float
    highest: float
    anchor: str


# A factor of ten on either side of a published rate (for the smallest models: of the shipped recipe's).
RATE_BANDS = (
    RateBand(50e6, 3e-5, 3e-3, "the `embedded` recipe's 3e-4"),
    RateBand(1e9, 2e-6, 5e-4, "2e-5 to 5e-5 of Devlin et al. 2019"),
    RateBand(float("inf"), 9e-7, 9e-5, "9e-6 of Ouyang et al. 2022"),
)


def pair_warnings(num_pairs: int) -> list[PlanWarning]:
    """Too few pairs; the stronger of two warnings only."""
    if num_pairs < MIN_PAIRS:
        return [
            PlanWarning(
                "few_pairs",
                f"{num_pairs:,} training pairs are fewer than {MIN_PAIRS:,}, too few for a stable training: bring more prompts or more responses for each.",
            )
        ]
    if num_pairs < MIN_COMPARISONS:
        return [
            PlanWarning(
                "few_comparisons",
                f"{num_pairs:,} training pairs are fewer than about {MIN_COMPARISONS:,}, below which a proxy rarely beats chance by much (Gao et al. 2022): bring more pairs, or read the report's interval with care.",
            )
        ]
    return []


def service_warnings(
    *, reward_epochs: float | None, rl_epochs: float | None, model: str | None, reward_steps: int | None
) -> list[PlanWarning]:
    """The replaced service's own guidance, for its own settings."""
    warnings = []
    low, high = SERVICE_REWARD_EPOCHS
    if reward_epochs is not None and not low <= reward_epochs <= high:
        warnings.append(
            PlanWarning(
                "reward_epochs",
                f"{reward_epochs:g} reward-model epochs are outside the {low} to {high} that the tuning service recommends for its small learning rates: keep to them there, and to 1 to {MAX_EPOCHS_OF_LARGE_MODEL} where every weight of a large model is trained.",
            )
        )
    low, high = SERVICE_RL_EPOCHS
    if rl_epochs is not None and rl_epochs > high:
        warnings.append(
            PlanWarning(
                "rl_epochs",
                f"{rl_epochs:g} epochs of reinforcement learning are more than {high}, above which a policy tends to exploit the reward model's faults (reward hacking): stop at {low} to {high}, and watch the gold reward.",
            )
        )
    elif rl_epochs is not None and rl_epochs < low:
        warnings.append(
            PlanWarning(
                "few_rl_epochs",
                f"{rl_epochs:g} epochs of reinforcement learning are fewer than the {low} that the tuning service recommends, so that the policy may have learnt little: take {low} to {high}.",
            )
        )
    guidance = SERVICE_GUIDANCE[model] if model else None
    if guidance and reward_steps is not None and not guidance.steps[0] <= reward_steps <= guidance.steps[1]:
        low, high = guidance.steps
        warnings.append(
            PlanWarning(
                "service_steps",
                f"{reward_steps:,} reward-model steps are outside the {low:,} to {high:,} recommended for {model}: change epochs, batch size or the number of pairs.",
            )
        )
    return warnings


def training_warnings(
    *,
    num_parameters: int | None,
    learning_rate: float,
    num_epochs: float,
    warmup_steps: int | None,
    trains_all_weights: bool = True,
) -> list[PlanWarning]:
    """Learning rate for the size of the model if all of it is trained, warm-up, passes over the pairs."""
    warnings = []
    bands = RATE_BANDS if trains_all_weights else ()
    band = next((b for b in bands if num_parameters is not None and num_parameters < b.num_parameters), None)
    if band and num_parameters is not None and not band.lowest <= learning_rate <= band.highest:
        too, risk, do = (
            ("high", "forgets what the base model knew", "lower")
            if learning_rate > band.highest
            else ("low", "hardly moves", "raise")
        )
        warnings.append(
            PlanWarning(
                f"learning_rate_{too}",
                f"learning_rate {learning_rate:g} is far {'above' if too == 'high' else 'below'} what is usual for {_size(num_parameters)} parameters ({band.lowest:g} to {band.highest:g}, ten times around {band.anchor}), so that the model {risk}: {do} it, or expect to see it in the training curve.",
            )
        )
    if warmup_steps == 0:
        warnings.append(
            PlanWarning(
                "no_warmup",
                "the warm-up has 0 steps, so that AdamW takes its first, nearly sign-like steps at the full learning rate: raise warmup_ratio, or train for more steps.",
            )
        )
    is_large = num_parameters is not None and num_parameters >= LARGE_MODEL
    if is_large and num_parameters is not None and num_epochs > MAX_EPOCHS_OF_LARGE_MODEL:
        warnings.append(
            PlanWarning(
                "many_epochs",
                f"{num_epochs:g} epochs of a model of {_size(num_parameters)} parameters overfit to the pairs (Ouyang et al. 2022 trained for one): set num_epochs to 1 or 2 and bring more pairs.",
            )
        )
    return warnings


def length_warnings(
    *, max_length: int, max_new_tokens: int | None, mean_response_tokens: float | None, share_over_length: float | None
) -> list[PlanWarning]:
    """Responses that a training example has no room for."""
    warnings = []
    if max_new_tokens is not None and max_new_tokens >= max_length:
        warnings.append(
            PlanWarning(
                "no_room",
                f"responses of up to {max_new_tokens:,} tokens leave no room for a prompt within training.max_length {max_length:,}, so that the longest are dropped: raise max_length or lower sampling.max_new_tokens.",
            )
        )
    if mean_response_tokens is not None and mean_response_tokens > max_length:
        warnings.append(
            PlanWarning(
                "long_responses",
                f"a response has {mean_response_tokens:,.0f} tokens on average, more than training.max_length {max_length:,}, so that most pairs are dropped: raise max_length.",
            )
        )
    if share_over_length is not None and share_over_length > MAX_SHARE_OVER_LENGTH:
        warnings.append(
            PlanWarning(
                "over_length",
                f"{share_over_length:.0%} of the training pairs were over training.max_length and left out, which favours short responses: raise max_length.",
            )
        )
    return warnings


def _size(num_parameters: int) -> str:
    for factor, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if num_parameters >= factor:
            return f"{num_parameters / factor:.3g}{letter}"
    return str(num_parameters)
