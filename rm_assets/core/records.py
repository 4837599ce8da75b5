"""The rows that flow through the graph, one frozen dataclass a table.

A later row repeats the columns of the earlier ones it is made from, so that each asset reads only the asset before it
and a row can be understood alone.
"""

from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
UNLABELLED = ("responses_pending", "responses_skipped", "over_length")
"""Why a response has no gold reward, by the name of its count: it waits for a person, a person declined to rank it, or it
was too long for the gold model."""
Messages = list[dict[str, str]]
"""A conversation: [{"role": "system" | "user" | "assistant", "content": text}, ...]."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt. `prompt_id` is the hash of system message, earlier turns and prompt; `row` its position in its source.

    `prompt` is the user's last turn, `history` what was said before it (without the system message).
    """

    prompt_id: str
    prompt: str
    system: str | None
    history: Messages = field(default_factory=list)
    reference: str | None
    source: str
    split: str
    external_id: str | None
    row: int


@dataclass(frozen=True, kw_only=True)
class Response(Prompt):
    """One response to a prompt. `sample_index` counts a prompt's responses from 0; `finished` is False where the length limit cut it."""

    response_id: str
    sample_index: int
    response: str
    model: str
    seed: int | None
    num_tokens: int | None
    finished: bool | None


@dataclass(frozen=True, kw_only=True)
class GoldReward(Response):
    """A response with its label. `components` are the parts of a verifier's reward, or the reward of each of several scorers;
    `truncated` says that a gold model saw only the beginning.

    `comparison` names the judgement that the reward comes from where it says only how responses of that judgement compare
    (this one is better than that one); rewards of one prompt compare if their `comparison` is the same. None: all do.
    """

    gold_reward: float
    components: dict[str, float] = field(default_factory=dict)
    truncated: bool = False
    comparison: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProxyReward:
    """What a reward model gives to one labelled response; all that comparing models on the same pairs needs."""

    prompt_id: str
    response_id: str
    source: str
    sample_index: int
    num_characters: int
    comparison: str | None
    gold_reward: float
    reward: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An implicit pair: two responses to one prompt, ordered by gold reward and not by a person (see pairing.py).

    `chosen` and `rejected` are whole conversations in TRL's conversational format. `gold_margin` is above 0.
    """

    pair_id: str
    prompt_id: str
    source: str
    split: str
    chosen: Messages
    rejected: Messages
    chosen_id: str
    rejected_id: str
    chosen_gold_reward: float
    rejected_gold_reward: float
    gold_margin: float


def conversation(prompt: str, system: str | None, response: str | None = None, history: Messages = []) -> Messages:  # noqa: B006
    """The messages of a prompt, and of its response if given. A system message of None is left out; an empty one is kept."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [*history, {"role": "user", "content": prompt}]
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    return messages


def prompt_messages(prompt: Prompt) -> Messages:
    """The conversation up to and including the user's last turn."""
    return conversation(prompt.prompt, prompt.system, history=prompt.history)


def response_messages(response: Response) -> Messages:
    """The whole conversation."""
    return conversation(response.prompt, response.system, response.response, response.history)
