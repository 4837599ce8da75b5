"""The recipe section that says what happens when something has changed."""

from typing import Literal

from pydantic import Field

from rm_assets.core.recipe.section import Section


class AutomationSection(Section):
    """What happens when something that the recipe is made of has changed. Changes no result and enters no digest."""

    rebuild: Literal["auto", "notify", "off"] = Field(
        "notify",
        description="`auto` makes what is out of date, `notify` proposes it in the web UI and in `rm-assets outdated`, `off` does neither.",
    )
    max_operations: float | None = Field(
        None,
        gt=0,
        description="With `auto`: most floating-point operations that a rebuild may take by the plan (`rm-assets plan`). What takes more, or cannot be told, is only proposed.",
    )
