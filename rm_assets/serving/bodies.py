"""What requests hold, as OpenAPI describes it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_RESPONSES = 256
"""Responses of one request; more belong into several, or into `rm-assets score --file`."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(_Body):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(description="What is said.")


class PromptBody(_Body):
    """The prompt of every request."""

    prompt: str | Annotated[list[Message], Field(min_length=1)] = Field(
        description="What the user says, or the messages of a dialogue up to and including what the user says last.",
        examples=["What is 2 plus 2?"],
    )

    def as_prompt(self) -> str | list[dict[str, str]]:
        """The prompt as `RewardModel` takes it."""
        return self.prompt if isinstance(self.prompt, str) else [message.model_dump() for message in self.prompt]


class ResponsesBody(PromptBody):
    """Several responses to one prompt."""

    responses: list[str] = Field(
        min_length=1, max_length=MAX_RESPONSES, description="Responses to the prompt.", examples=[["4", "5"]]
    )


class CompareBody(PromptBody):
    """Two responses to one prompt."""

    a: str = Field(description="A response.", examples=["4"])
    b: str = Field(description="Another response to the same prompt.", examples=["5"])


class Rewards(_Body):
    """The answer to /v1/score."""

    rewards: list[float] = Field(description="The reward of each response; compare only those of one prompt.")
    num_tokens: list[int] = Field(description="Tokens of prompt and response that the model read.")
    truncated: list[bool] = Field(description="Whether the response's end was cut off, because it was too long.")


class BestAnswer(Rewards):
    """The answer to /v1/best-of."""

    index: int = Field(description="Place of the best response, the first of those if several are.")
    response: str = Field(description="The best response.")


class CompareAnswer(_Body):
    """The answer to /v1/compare."""

    probability: float = Field(description="Probability that a is better than b: sigmoid(margin).")
    margin: float = Field(description="Reward of a minus reward of b.")
    rewards: list[float] = Field(description="The rewards of a and of b.")
    truncated: list[bool] = Field(description="Whether the end of a, and of b, was cut off.")


class Fault(_Body):
    """What is wrong, by a code of docs/errors.md."""

    code: str
    what: str
    why: str
    fix: str


class FaultAnswer(_Body):
    """The answer to a request that is not taken, or fails."""

    error: Fault
