"""What is settled before a training begins, whatever computes it: tokens, order of the steps, and the state to go on from."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from transformers import PretrainedConfig

from rm_assets.backends import pair_store, tokenization, training_state
from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Renderer
from rm_assets.backends.training_state import State
from rm_assets.core.digests import digest
from rm_assets.core.errors import RecipeError
from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.records import Pair
from rm_assets.core.training_order import StepPlan, make_plan


@dataclass(frozen=True)
class Prepared:
    """One training, but for its model."""

    store: PairStore
    validation: PairStore
    plan: StepPlan
    renderer: Renderer
    config: PretrainedConfig
    state: State | None


def prepare(
    pairs: Iterable[Pair], validation_pairs: Iterable[Pair], *, settings: TrainingSection, seed: int, work: Path,
    reporter: Reporter, packages: Iterable[str],
) -> Prepared:  # fmt: skip
    """Reads and tokenizes the pairs, and looks in `work` for a state of this very training.

    `packages` are those of which another version may continue a training differently, or name its weights differently.
    Raises: ModelError MODEL_001 to MODEL_005, DataError DATA_005 if no pair is left.
    """
    renderer = tokenization.load_renderer(settings.base)
    # The trained model's users pad; on the left, learned positions would be those of other tokens.
    renderer.tokenizer.padding_side = "right"
    config = tokenization.load_config(settings.base)
    tokenization.check_context(settings.base, config, renderer, settings.max_length)
    tokenization.require_pad_token(settings.base, config, renderer.tokenizer)
    store = pair_store.encode_pairs(pairs, renderer, settings, seed, work / "pairs.bin", reporter)
    validation = pair_store.encode_pairs(
        validation_pairs, renderer, settings, seed, work / "validation.bin", reporter, is_validation=True
    )
    plan = make_plan(len(store), settings)
    name = digest(
        {
            "settings": settings.model_dump(),
            "seed": seed,
            "tokens": [store.token_digest, validation.token_digest],
            "state_version": training_state.STATE_VERSION,
            "versions": {package: version(package) for package in packages},
            # What a branch of the Hub stood for; none of a local folder.
            "commit": getattr(config, "_commit_hash", None),
        }
    )
    state = training_state.prepare(work, name)
    if state is not None:
        reporter.log(f"resuming after optimizer step {state.step} of {plan.num_optimizer_steps}")
    return Prepared(store, validation, plan, renderer, config, state)


def refuse_what_is_native_alone(execution: ExecutionSection, *, by: str, instead: str) -> None:
    """For a loop that is not the native engine's. Raises: RecipeError RECIPE_003, which names what `by` does not do."""
    asked = {
        "num_processes to 1": execution.num_processes > 1,
        "profile to false": execution.profile,
        "deterministic to false": execution.deterministic,
    }
    if any(asked.values()):
        to_set = ", ".join(f"execution.{setting}" for setting, is_asked in asked.items() if is_asked)
        raise RecipeError(
            "RECIPE_003",
            f"the recipe's `execution` asks for what {by} does not do",
            fix=f"set {to_set}, or {instead}",
        )
