"""What an hour of a device costs: a few dated list prices, replaced whole by a file of the user's.

List prices change from month to month, and contracts, regions and spot markets differ by a factor: check them before
money depends on them. `RM_ASSETS_PRICES` names a YAML file with a list of the same five keys.
"""

from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rm_assets.core.errors import PlanError


class DevicePrice(BaseModel):
    """An hour of one device."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: str = Field(min_length=1, description="Name of the device.")
    usd_per_hour: float = Field(ge=0, description="Price of one device for an hour, in US dollars.")
    memory_gb: float | None = Field(
        None, gt=0, description="Memory of the device in 10^9 bytes, where it is one number."
    )
    as_of: str = Field("", description="When this was the price.")
    source: str = Field("", description="Whose price it is, and for what.")


LIST_PRICES: tuple[DevicePrice, ...] = (
    DevicePrice(device="local", usd_per_hour=0, source="your own machine; power and wear are not counted"),
    DevicePrice(
        device="H100", usd_per_hour=4.92, memory_gb=85.5, as_of="2024-12",
        source="AWS, EC2 Capacity Blocks, p5.48xlarge for one of its 8 GPUs, US East; memory: 81,559 MiB in nvidia-smi",
    ),
)  # fmt: skip


def parse_prices(text: str, where: str) -> tuple[DevicePrice, ...]:
    """The price list in a YAML text. Raises: PlanError PLAN_002."""
    fix = "write a list of entries such as `{device: H100, usd_per_hour: 3.5, memory_gb: 80, as_of: 2026-01, source: ...}`"
    try:
        prices = TypeAdapter(tuple[DevicePrice, ...]).validate_python(_dates_as_text(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        raise PlanError(
            "PLAN_002", f"{where} is not readable YAML", why=" ".join(str(error).split()), fix=fix
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PlanError(
            "PLAN_002", f"{where}: {key}: {first['msg']}", why=f"found {first['input']!r:.80}", fix=fix
        ) from None
    names = [price.device for price in prices]
    if not names or len(set(names)) < len(names):
        raise PlanError("PLAN_002", f"{where} names no device, or one twice", fix=fix)
    return prices


def _dates_as_text(entries: Any) -> Any:
    """YAML reads 2026-01-31 as a date."""
    if not isinstance(entries, list):
        return entries
    return [
        {key: str(value) if key == "as_of" else value for key, value in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]
