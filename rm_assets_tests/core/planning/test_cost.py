"""What a finished task has cost, by hand."""

from typing import Any

import pytest

from rm_assets.core.planning.cost import cost_of, total_cost
from rm_assets.core.planning.prices import DevicePrice

PRICES = (DevicePrice(device="local", usd_per_hour=0), DevicePrice(device="H100", usd_per_hour=4))


@pytest.mark.parametrize(
    ("made", "usd"),
    [
        ({"seconds": 1800, "executor": "ray", "device": "NVIDIA H100 80GB HBM3", "num_devices": 2}, 4.0),
        ({"seconds": 900, "executor": "local", "device": "H100", "num_devices": 1}, 1.0),
        ({"seconds": 900, "executor": "local", "device": "cpu", "num_devices": 1}, 0.0),
        ({"seconds": 900, "executor": "local", "device": "mps", "num_devices": 1}, 0.0),
        ({"seconds": 900, "executor": "local", "device": "NVIDIA RTX 4090", "num_devices": 1}, None),
        ({"seconds": 900, "executor": "vm", "device": "cpu", "num_devices": 1}, None),
        ({"seconds": 900}, None),  # made before devices were noted
    ],
)
def test_a_task_costs_seconds_times_devices_times_price(made: dict[str, Any], usd: float | None) -> None:
    assert cost_of(made, PRICES).usd == usd


def test_a_price_that_is_not_known_is_said_and_not_invented() -> None:
    cost = cost_of({"seconds": 90, "executor": "vm", "device": "NVIDIA L4", "num_devices": 2}, PRICES)
    assert str(cost) == "90.0 s on 2 x NVIDIA L4 (vm), no price known for NVIDIA L4; add it to RM_ASSETS_PRICES"
    free = cost_of({"seconds": 10, "device": "cpu"}, PRICES)
    h100 = cost_of({"seconds": 3600, "device": "H100"}, PRICES)
    total = total_cost([cost, free, h100, h100])
    assert (total.seconds, total.usd, total.unpriced) == (7300.0, 8.0, ("NVIDIA L4",))
    assert "no price known for NVIDIA L4" in str(total) and "no price" not in str(total_cost([free, h100]))
