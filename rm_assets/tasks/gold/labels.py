"""What every kind of gold gives."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rm_assets.core.records import GoldReward, Response
from rm_assets.tasks.session import Task


@dataclass(frozen=True)
class Labels:
    """Gold rewards in the order of the responses, as a stream; the rest is complete once it has ended.

    `account` says what became of what was read; `work` what was computed now and not taken from earlier shards;
    `facts` what is worth knowing of this kind of gold.
    """

    rewards: Iterator[GoldReward]
    account: Counter[str] = field(default_factory=Counter)
    work: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)


Labeller = Callable[[Task, Any, Mapping[str, Any], Iterable[Response]], Labels]
"""The labels that a section of gold of its kind gives to responses; `settings` are those of the section, by content."""
