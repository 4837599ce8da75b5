"""The scorer of a checkpoint with the backend that a recipe names."""

from typing import TYPE_CHECKING

from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import Backend, Dtype, ExecutionSection, ModelRef

if TYPE_CHECKING:
    from rm_assets.backends.scoring import ConversationScorer


def load_scorer(
    model: ModelRef,
    backend: Backend,
    *,
    max_length: int,
    dtype: Dtype,
    execution: ExecutionSection,
    reporter: Reporter,
) -> "ConversationScorer":
    """The model on the device and with the token budget of the recipe's execution.

    Raises: ModelError MODEL_001 to MODEL_005 and MODEL_007, RecipeError RECIPE_003 if the device is not there.
    """
    if backend == "jax":
        from rm_assets.backends.jax.devices import make_mesh, platform
        from rm_assets.backends.jax.scorer import JaxScorer

        mesh = make_mesh(execution)
        budget = execution.forward_tokens("scoring", on_cpu=platform(mesh) == "cpu")
        return JaxScorer(
            model, max_length=max_length, dtype=dtype, mesh=mesh, token_budget=budget, reporter=reporter
        )  # fmt: skip
    from rm_assets.backends.torch.devices import pick_device, takes_small_batches
    from rm_assets.backends.torch.scorer import TorchScorer

    device = pick_device(execution.device)
    budget = execution.forward_tokens("scoring", on_cpu=takes_small_batches(device))
    return TorchScorer(
        model, max_length=max_length, dtype=dtype, device=device, token_budget=budget, reporter=reporter
    )  # fmt: skip
