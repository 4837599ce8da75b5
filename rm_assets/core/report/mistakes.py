"""The worst mistakes of a model, as people read them."""

from collections.abc import Mapping
from typing import Any

from rm_assets.core.report.texts import decimal, printable


def mistake_title(number: int, mistake: Mapping[str, Any]) -> str:
    margin = decimal(abs(mistake["reward_margin"]))
    return f"{number}. Wrong by {margin} log odds; differs in: {mistake['difference']}; source: {mistake['source']}"


def mistake_sides(mistake: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Title, figures and text of the two responses, the one that gold prefers first."""
    return [
        (
            title,
            f"gold {decimal(mistake[f'{side}_gold_reward'])}, reward {decimal(mistake[f'{side}_reward'])}",
            printable(mistake[side]),
        )
        for side, title in (("chosen", "Gold prefers"), ("rejected", "The model prefers"))
    ]
