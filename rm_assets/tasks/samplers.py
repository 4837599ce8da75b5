"""The sampler of a recipe's policy."""

from typing import TYPE_CHECKING

from rm_assets.core.protocols import Reporter
from rm_assets.core.recipe import ExecutionSection, PolicySampling

if TYPE_CHECKING:
    from rm_assets.backends.torch.sampler import TorchSampler


def load_sampler(section: PolicySampling, execution: ExecutionSection, reporter: Reporter) -> "TorchSampler":
    """The policy on the device and with the token budget of the recipe's execution.

    Raises: ModelError, RecipeError RECIPE_003 if the device is not there.
    """
    from rm_assets.backends.torch.devices import pick_device
    from rm_assets.backends.torch.sampler import TorchSampler

    device = pick_device(execution.device)
    return TorchSampler(
        section.policy,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        dtype=section.dtype,
        device=device,
        token_budget=execution.forward_tokens("sampling", on_cpu=device.type == "cpu"),
        reporter=reporter,
    )
