"""Responses: sampled from a policy, by a server, or recorded."""

from typing import Annotated, Literal

from pydantic import Field

from rm_assets.core.recipe.prompts import RowSource
from rm_assets.core.recipe.section import Dtype, ModelRef, Section, ServedModel


class SamplingSettings(Section):
    """How responses are drawn, whoever computes them."""

    num_responses: int = Field(2, ge=1, description="Responses for each training prompt (K).")
    num_test_responses: int | None = Field(
        None, ge=1, description="Responses for each validation and test prompt; as `num_responses` when not given."
    )
    temperature: float = Field(1.0, ge=0, le=10, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus: smallest set of tokens with this probability.")
    max_new_tokens: int = Field(1024, gt=0, description="Longest response, in tokens.")
    seed: int = Field(
        0, ge=0, description="Seed; each (prompt, sample) derives its own from it, of which a server gets 31 bits."
    )


class PolicySampling(SamplingSettings):
    """Responses sampled from a causal language model through its chat template."""

    kind: Literal["policy"] = Field(description="Sample from a model.")
    policy: ModelRef = Field(description="The policy's checkpoint.")
    dtype: Dtype = Field("float32", description="Precision of the policy's weights.")


class ServerSampling(SamplingSettings, ServedModel):
    """Responses sampled by a server with an OpenAI-compatible API (vLLM, SGLang, TGI), which renders the chat template itself."""

    kind: Literal["server"] = Field(description="Sample from a server.")


Alignment = Literal["prompt_id", "prompt", "row"]


class RecordedResponses(Section):
    """Responses that already exist."""

    kind: Literal["recorded"] = Field(description="Responses that already exist.")
    source: RowSource | None = Field(
        None, description="Where the responses lie; when not given, in the rows of the prompts, as in preference data."
    )
    align: Alignment = Field(
        "prompt",
        description="How a row of `source` finds its prompt: `prompt_id` (prompts.id_field), `prompt` (its text), or `row` (same position in the prompts' source).",
    )
    prompt_field: str = Field("prompt", description="Column with the prompt's id or text; unused with align `row`.")
    response_fields: list[str] = Field(
        default=["response"],
        min_length=1,
        description="Column with the response, or several for rows that hold several. A response is a text, the assistant's message, or a dialogue that ends with it; a column may hold a list of texts.",
    )
    model_field: str | None = Field(
        None, description="Column that names the model that wrote the response, or a list with one name for each."
    )
    missing: Literal["error", "drop"] = Field("error", description="What to do with prompts that have no response.")

    @property
    def reads_prompt_rows(self) -> bool:
        """Whether there is no other source."""
        return self.source is None


SamplingSection = Annotated[PolicySampling | ServerSampling | RecordedResponses, Field(discriminator="kind")]
