"""Gold rewards from rules."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from rm_assets.core.errors import DataError
from rm_assets.core.gold.verifier import VerifierRule, verify
from rm_assets.core.recipe import VerifierGold
from rm_assets.core.records import GoldReward, Response
from rm_assets.tasks.gold.labels import Labels
from rm_assets.tasks.session import Task

COMPONENTS = ("exact", "partial", "numerical", "lines", "format")


def label(task: Task, section: VerifierGold, settings: Mapping[str, Any], responses: Iterable[Response]) -> Labels:
    """Scores by rules. Raises: DataError DATA_009 if a prompt's reference is missing or has no final answer."""
    work = Counter[str]({"responses scored": 0})
    return Labels(_rewards(section, responses, work), work=work)


def _rewards(section: VerifierGold, responses: Iterable[Response], work: Counter[str]) -> Iterator[GoldReward]:
    rule = VerifierRule(**{f.name: getattr(section, f.name) for f in fields(VerifierRule)})
    for r in responses:
        if r.reference is None:
            raise DataError(
                "DATA_009",
                f"prompt {r.prompt!r:.80} has no reference answer",
                fix="name its column in prompts.reference_field",
            )
        try:
            verdict = verify(r.response, r.reference, rule)
        except ValueError as error:
            raise DataError(
                "DATA_009",
                f"the reference of prompt {r.prompt!r:.80} has no final answer",
                why=str(error),
                fix="correct the reference, or gold.answer_pattern",
            ) from None
        work["responses scored"] += 1
        yield GoldReward(**vars(r), gold_reward=verdict.reward, components={c: getattr(verdict, c) for c in COMPONENTS})
