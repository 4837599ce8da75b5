"""Devices among which the JAX backend divides its work."""

from pydantic import Field

from rm_assets.core.recipe.section import Section


class JaxMesh(Section):
    """A grid of `data` x `fsdp` devices of this machine. Both divide the rows of a forward pass."""

    data: int = Field(1, gt=0, description="Copies of the weights.")
    fsdp: int = Field(
        1,
        gt=0,
        description="Devices that hold one copy of the weights, the gradients and the optimizer's moments between them.",
    )
