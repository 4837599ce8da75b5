"""What a finished task has cost: its seconds, where it ran, and the price of that in the price list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rm_assets.core.planning.prices import DevicePrice

OWN = "local"
"""The entry of the price list for a CPU or Apple's GPU of the machine that the command runs on."""


@dataclass(frozen=True)
class TaskCost:
    """One task. `usd` is None where the price list does not have `priced_as`."""

    seconds: float
    executor: str
    device: str
    num_devices: int
    priced_as: str
    usd: float | None

    def __str__(self) -> str:
        number = f"{self.num_devices} x " if self.num_devices > 1 else ""
        price = unpriced([self.priced_as]) if self.usd is None else f"{self.usd:,.4f} USD"
        return f"{self.seconds:,.1f} s on {number}{self.device} ({self.executor}), {price}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "seconds": self.seconds, "executor": self.executor, "device": self.device, "num_devices": self.num_devices,
            "usd": self.usd,
        }  # fmt: skip


def cost_of(made: Mapping[str, Any], prices: Sequence[DevicePrice]) -> TaskCost:
    """The cost of what a manifest's `made` tells of.

    The price is that of the device: the entry of its name, or one whose name is a word of it ("H100" of "NVIDIA H100 80GB HBM3").
    """
    executor, device = str(made.get("executor", OWN)), str(made.get("device", "unknown device"))
    is_own = executor == OWN and device in ("cpu", "mps")
    name = OWN if is_own else device
    price = next((p for p in prices if p.device == name), None)
    price = price or next((p for p in prices if p.device in name.split()), None)
    seconds, number = float(made.get("seconds", 0)), int(made.get("num_devices", 1))
    usd = None if price is None else seconds / 3600 * number * price.usd_per_hour
    return TaskCost(seconds, executor, device, number, name, usd)


@dataclass(frozen=True)
class TotalCost:
    """Several tasks. `usd` is that of those whose price is known; `unpriced` names the others' devices."""

    seconds: float
    usd: float
    unpriced: tuple[str, ...]

    def __str__(self) -> str:
        missing = f" and what has no price: {unpriced(self.unpriced)}" if self.unpriced else ""
        return f"{self.seconds:,.1f} s, {self.usd:,.4f} USD{missing}"


def total_cost(costs: Sequence[TaskCost]) -> TotalCost:
    """The sum; nothing is invented for a device without a price."""
    return TotalCost(
        seconds=sum(cost.seconds for cost in costs),
        usd=sum(cost.usd for cost in costs if cost.usd is not None),
        unpriced=tuple(sorted({cost.priced_as for cost in costs if cost.usd is None})),
    )


def unpriced(names: Sequence[str]) -> str:
    """Which prices are missing, and where to write them."""
    return f"no price known for {', '.join(names)}; add it to RM_ASSETS_PRICES"
