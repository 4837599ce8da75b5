"""The price list that the environment names, else the built-in one."""

import os
from pathlib import Path

from rm_assets.core.errors import PlanError
from rm_assets.core.planning.prices import LIST_PRICES, DevicePrice, parse_prices


def price_list() -> tuple[DevicePrice, ...]:
    """The entries of the file RM_ASSETS_PRICES, or the built-in ones. Raises: PlanError PLAN_002."""
    named = os.environ.get("RM_ASSETS_PRICES")
    if not named:
        return LIST_PRICES
    try:
        text = Path(named).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise PlanError(
            "PLAN_002", f"the price file {named} cannot be read", why=str(error),
            fix="correct or unset RM_ASSETS_PRICES",
        ) from None  # fmt: skip
    return parse_prices(text, named)
