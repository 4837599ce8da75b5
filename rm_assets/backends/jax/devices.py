"""Where JAX computes: the device that a recipe asks for."""

import jax

from rm_assets.core.errors import RecipeError


def pick_device(name: str) -> jax.Device:
    """The device that `execution.device` names; "auto" takes what JAX finds first, which is a TPU or GPU where there is one.

    Raises: RecipeError RECIPE_003 if the named device is not there.
    """
    if name == "auto":
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        raise RecipeError(
            "RECIPE_003",
            f"execution.device is '{name}', but JAX {jax.__version__} sees no such device here",
            fix="set execution.device to auto or cpu, or install a JAX built for the device",
        ) from error
