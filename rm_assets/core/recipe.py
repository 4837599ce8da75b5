"""What a recipe says: one frozen model a section, every field with its meaning, unit and bound.

A recipe is a YAML file and a Dagster partition. The sections `prompts` to `release` decide results and enter the digests;
`execution` and `description` decide none and enter no digest. `recipe_files.py` reads the files into these models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rm_assets.core.servers import address_fault
from rm_assets.core.verifier import VerifierRule

Dtype = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, values: Any) -> Any:
        # YAML reads yes, no, on and off as truth values, which pydantic would take for 1 and 0.
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                raise ValueError(
                    f"'{key}' is a truth value ({value}) here; write a number, or quote it if a text is meant"
                )
        return values


class ModelRef(Section):
    """A checkpoint: a local folder or a Hugging Face Hub id."""

    path: str | None = Field(
        None,
        description="Local checkpoint folder: absolute, relative to the recipe file, or package://PATH inside rm_assets. ${VAR} is read from the environment.",
    )
    hub_id: str | None = Field(
        None, pattern=r"^[\w.-]+(/[\w.-]+)?$", description="Model id on the Hugging Face Hub: OWNER/NAME."
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch on the Hub. Pin a commit: a branch can move under you."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the checkpoint. Leave off unless you have read it."
    )
    chat_template: str | None = Field(
        None, description="Jinja chat template to use instead of the checkpoint's own, or where it has none."
    )
    pad_token: str | None = Field(
        None,
        description="Pad token where the checkpoint has none or pads with its end token; must be in the vocabulary.",
    )

    @model_validator(mode="after")
    def _one_location(self) -> "ModelRef":
        if (self.path is None) == (self.hub_id is None):
            raise ValueError("give exactly one of 'path' and 'hub_id'")
        if self.path is not None and self.revision is not None:
            raise ValueError(
                "'revision' belongs to 'hub_id'; the revision of a local checkpoint is the hash of its files"
            )
        return self

    @property
    def location(self) -> str:
        """The folder or the Hub id, whichever was given."""
        return self.path or self.hub_id or ""


class FileSource(Section):
    """Rows in files."""

    kind: Literal["files"] = Field(description="Rows in files.")
    files: list[str] = Field(
        min_length=1,
        description="Files or glob patterns, relative to the recipe file: .jsonl, .json, .csv, .parquet, each also .gz or .zst (not Parquet). ${VAR} is read from the environment.",
    )


class DatasetSource(Section):
    """Rows of a dataset on the Hugging Face Hub."""

    kind: Literal["dataset"] = Field(description="Rows of a dataset on the Hub.")
    dataset: str = Field(description="Dataset id on the Hub.")
    config: str | None = Field(None, description="Configuration (subset) of the dataset.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str | None = Field(None, description="Commit, tag or branch. Pin a commit: a branch can move under you.")


class GeneratorSource(Section):
    """Prompts of the miniature task that ships with rm_assets."""

    kind: Literal["generator"] = Field(description="Prompts of the miniature task.")
    num_prompts: int = Field(gt=0, description="Number of distinct prompts.")
    seed: int = Field(0, ge=0, description="Seed of the generator.")


RowSource = Annotated[FileSource | DatasetSource, Field(discriminator="kind")]
PromptSource = Annotated[FileSource | DatasetSource | GeneratorSource, Field(discriminator="kind")]


class SplitFractions(Section):
    """Shares of the prompts; decided by a hash of the normalised prompt, so a prompt never changes sides when others are added."""

    train: float = Field(0.8, gt=0, le=1, description="Share for training.")
    validation: float = Field(0.1, ge=0, lt=1, description="Share for validation while training.")
    test: float = Field(
        0.1, ge=0, lt=1, description="Share for evaluation. Must be 0 where `test` names a source of its own."
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitFractions":
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train + validation + test must be 1")
        return self


class PromptsSection(Section):
    """Where prompts come from and how they are split."""

    source: PromptSource = Field(description="Where the prompts lie.")
    test: PromptSource | None = Field(
        None,
        description="A source of test prompts of its own; prompts of `source` that are also here are left out of training.",
    )
    prompt_field: str = Field("prompt", description="Column with the prompt's text.")
    id_field: str | None = Field(
        None, description="Column with your own id, by which recorded responses can refer to the prompt."
    )
    system_field: str | None = Field(None, description="Column with a system message per prompt.")
    reference_field: str | None = Field(None, description="Column with the reference answer, for a verifier.")
    source_field: str | None = Field(
        None, description="Column that names where a prompt is from, for tables by source."
    )
    system: str | None = Field(
        None, description="System message of every prompt; an empty text is rendered as an empty system message."
    )
    split: SplitFractions = Field(default=SplitFractions(), description="Shares of train, validation and test.")
    split_seed: int = Field(0, ge=0, description="Changes which prompts fall on which side.")
    max_prompts: int | None = Field(
        None, gt=0, description="Keep at most so many prompts of each source, in order of the source."
    )

    @model_validator(mode="after")
    def _one_test_set(self) -> "PromptsSection":
        if (self.test is None) == (self.split.test == 0):
            raise ValueError(
                "give test prompts once: either 'test' (then split.test must be 0) or a split.test above 0"
            )
        return self


class PolicySampling(Section):
    """Responses sampled from a causal language model through its chat template."""

    kind: Literal["policy"] = Field(description="Sample from a model.")
    policy: ModelRef = Field(description="The policy's checkpoint.")
    num_responses: int = Field(2, ge=1, description="Responses for each training prompt (K).")
    num_test_responses: int | None = Field(
        None, ge=1, description="Responses for each validation and test prompt; as `num_responses` when not given."
    )
    temperature: float = Field(1.0, ge=0, le=10, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus: smallest set of tokens with this probability.")
    max_new_tokens: int = Field(1024, gt=0, description="Longest response, in tokens.")
    seed: int = Field(0, ge=0, description="Seed; each (prompt, sample) derives its own from it.")
    dtype: Dtype = Field("float32", description="Precision of the policy's weights.")


class ServerSampling(Section):
    """Responses sampled by a server with an OpenAI-compatible API (vLLM, SGLang, TGI), which renders the chat template itself.

    `base_url` and `api_key_env` enter no digest: the same model served elsewhere gives the same responses.
    """

    kind: Literal["server"] = Field(description="Sample from a server.")
    base_url: str = Field(
        description="Root of the server's API, for example http://127.0.0.1:8000/v1. Enters no digest."
    )
    model: str = Field(min_length=1, description="Name under which the server offers the model.")
    revision: str = Field(
        min_length=1,
        description="Your name for what is served: weights, chat template, precision. The weights of a server cannot be hashed, so responses are sampled anew when this changes, and only then.",
    )
    api_key_env: str | None = Field(
        None,
        pattern="^[A-Z_][A-Z0-9_]*$",
        description="Name of the environment variable that holds the API key, never the key itself. Enters no digest.",
    )
    num_responses: int = Field(2, ge=1, description="Responses for each training prompt (K).")
    num_test_responses: int | None = Field(
        None, ge=1, description="Responses for each validation and test prompt; as `num_responses` when not given."
    )
    temperature: float = Field(1.0, ge=0, le=10, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus: smallest set of tokens with this probability.")
    max_new_tokens: int = Field(1024, gt=0, description="Longest response, in tokens.")
    seed: int = Field(
        0, ge=0, description="Seed; each (prompt, sample) derives its own from it, of which the server gets 31 bits."
    )

    @model_validator(mode="after")
    def _sound_address(self) -> "ServerSampling":
        if fault := address_fault(self.base_url, sends_key=self.api_key_env is not None):
            raise ValueError(f"base_url {fault}")
        return self


Alignment = Literal["prompt_id", "prompt", "row"]


class RecordedResponses(Section):
    """Responses that already exist."""

    kind: Literal["recorded"] = Field(description="Responses that already exist.")
    source: RowSource = Field(description="Where the responses lie.")
    align: Alignment = Field(
        "prompt",
        description="How a row finds its prompt: `prompt_id` (prompts.id_field), `prompt` (its text), or `row` (same position in the prompts' source).",
    )
    prompt_field: str = Field("prompt", description="Column with the prompt's id or text; unused with align `row`.")
    response_fields: list[str] = Field(
        default=["response"],
        min_length=1,
        description="Column with the response, or several for rows that hold several.",
    )
    model_field: str | None = Field(None, description="Column that names the model that wrote the response.")
    missing: Literal["error", "drop"] = Field("error", description="What to do with prompts that have no response.")


SamplingSection = Annotated[PolicySampling | ServerSampling | RecordedResponses, Field(discriminator="kind")]


class ClassifierGold(Section):
    """Gold rewards from a sequence classifier with one output."""

    kind: Literal["classifier"] = Field(description="A gold model.")
    model: ModelRef = Field(description="The gold model's checkpoint.")
    max_length: int = Field(
        2048,
        gt=1,
        description="Longest prompt and response together, in tokens; longer ones are cut at the end and counted.",
    )
    dtype: Dtype = Field("float32", description="Precision of the gold model's weights.")


class VerifierGold(Section):
    """Gold rewards from rules: the weighted sum of five components, each in [0, 1], each reported."""

    kind: Literal["verifier"] = Field(description="Rules and a reference answer.")
    answer_pattern: str = Field(
        r"####\s*(-?[\d,\.]+)",
        description="Regular expression whose group 1 is the final answer; the last match counts.",
    )
    format_pattern: str = Field(
        r".*####\s*-?[\d,\.]+",
        description="Regular expression that the whole response must match to be in format ('.' matches line ends).",
    )
    numeric_tolerance: float = Field(
        0.0, ge=0, description="Answers this near to the reference count as equal (absolute)."
    )
    partial_tolerance: float = Field(
        1.0, gt=0, description="Distance at which the credit for a near answer has fallen to 0 (absolute)."
    )
    exact: float = Field(1.0, ge=0, description="Weight: the final answer equals the reference's.")
    partial: float = Field(0.0, ge=0, description="Weight: nearness of the final answer.")
    numerical: float = Field(0.0, ge=0, description="Weight: agreement of the numbers before the final answer (F1).")
    lines: float = Field(0.0, ge=0, description="Weight: agreement of the lines before the final answer (F1).")
    format: float = Field(0.0, ge=0, description="Weight: the response is in format.")

    @model_validator(mode="after")
    def _sound_rule(self) -> "VerifierGold":
        if self.exact + self.partial + self.numerical + self.lines + self.format <= 0:
            raise ValueError("at least one of the weights exact, partial, numerical, lines, format must be above 0")
        VerifierRule(**self.model_dump(exclude={"kind"}))  # the rule itself knows what is wrong with a pattern
        return self


class RecordedGold(Section):
    """Gold rewards or ranks that already exist."""

    kind: Literal["recorded"] = Field(description="Rewards or ranks that already exist.")
    source: RowSource = Field(description="Where the rewards lie; may be the file of the responses.")
    align: Alignment = Field("prompt", description="How a row finds its prompt, as for recorded responses.")
    prompt_field: str = Field("prompt", description="Column with the prompt's id or text; unused with align `row`.")
    response_field: str | None = Field(
        None,
        description="Column with the response that the reward is of. Without it, rewards are taken in the order of the responses and their number must agree.",
    )
    reward_fields: list[str] = Field(
        default=["gold_reward"],
        min_length=1,
        description="Column with the reward (or rank), or several; a row that is a plain list has columns '0', '1', ...",
    )
    ranks: bool = Field(False, description="The numbers are ranks (1 is best): the gold reward is minus the rank.")

    @model_validator(mode="after")
    def _one_reward_a_response(self) -> "RecordedGold":
        if self.response_field is not None and len(self.reward_fields) > 1:
            raise ValueError("'response_field' names one response a row, so 'reward_fields' must name one column")
        return self


GoldSection = Annotated[ClassifierGold | VerifierGold | RecordedGold, Field(discriminator="kind")]


class PairsSection(Section):
    """How gold rewards become chosen and rejected."""

    policy: Literal["best_worst", "all", "adjacent"] = Field(
        "all",
        description="Which two of a prompt's K responses make a pair: best against worst, every two, or neighbours in rank.",
    )
    min_margin: float = Field(
        0.0, ge=0, description="Least gold margin of a pair, in units of the gold reward. Ties are dropped in any case."
    )


class BradleyTerry(Section):
    """Bradley-Terry: minus the log of the probability that chosen beats rejected, sigmoid(reward margin)."""

    kind: Literal["bradley_terry"] = Field("bradley_terry", description="Hard labels: chosen is better.")
    margin_scale: float = Field(
        0.0, ge=0, description="The reward margin must exceed so many times the gold margin; 0 asks for no margin."
    )


class SoftBradleyTerry(Section):
    """Bradley-Terry with the gold model's own probability as target, sigmoid(gold margin / temperature)."""

    kind: Literal["soft_bradley_terry"] = Field(description="Soft labels: how much better chosen is.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the target, in units of the gold reward.")


class Regression(Section):
    """Mean squared difference between reward and gold reward, of both responses of a pair."""

    kind: Literal["regression"] = Field(description="The gold reward itself is the target.")


Objective = Annotated[BradleyTerry | SoftBradleyTerry | Regression, Field(discriminator="kind")]


class LoraSettings(Section):
    """Low-rank adaptation (Hu et al. 2021): the base stays as it is, small matrices and the score head are trained."""

    rank: int = Field(16, gt=0, description="Rank of the added matrices.")
    alpha: int = Field(32, gt=0, description="The added matrices count alpha / rank times.")
    target_modules: list[str] | None = Field(
        None, description="Names of the linear layers that are adapted; all of the transformer's when not given."
    )


class ValidationSettings(Section):
    """Looks at the validation pairs while training goes on, and keeps the best weights."""

    every_steps: int = Field(gt=0, description="Optimizer steps between two looks.")
    metric: Literal["loss", "accuracy"] = Field("loss", description="What decides which weights are best.")
    patience: int | None = Field(
        None, gt=0, description="Stop after so many looks without a better one; without it training goes to its end."
    )


class TrainingSection(Section):
    """Training of the reward model."""

    base: ModelRef = Field(description="Checkpoint to start from: a causal LM or an encoder.")
    engine: Literal["native", "trl"] = Field(
        "native",
        description="Training loop: `native` computes each prompt and each response of a step once; `trl` is TRL's RewardTrainer.",
    )
    objective: Objective = Field(default=BradleyTerry(), description="What is minimized.")
    centering: float = Field(
        0.0, ge=0, description="Weight of the squared sum of a pair's two rewards, which keeps rewards around 0."
    )
    weighting: Literal["pair", "prompt"] = Field(
        "pair", description="What weighs the same: every pair, or every prompt whatever the number of its pairs."
    )
    shuffle: Literal["prompts", "pairs"] = Field(
        "prompts",
        description="What is put in random order: prompts, whose pairs then stay together and share their responses, or single pairs.",
    )
    max_length: int = Field(2048, gt=1, description="Longest prompt and response together, in tokens.")
    over_length: Literal["drop", "error"] = Field(
        "drop", description="What to do with a pair of which one side is longer: leave it out and count it, or stop."
    )
    pairs_per_step: int = Field(64, gt=0, description="Pairs in one optimizer step.")
    num_epochs: float = Field(1.0, gt=0, description="Passes over the training pairs.")
    max_optimizer_steps: int | None = Field(
        None, gt=0, description="Stop after so many optimizer steps; the schedule then ends there."
    )
    max_train_pairs: int | None = Field(None, gt=0, description="Train on a random subset of so many pairs.")
    learning_rate: float = Field(gt=0, lt=1, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning-rate schedule after the warm-up."
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the optimizer steps with rising learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    dtype: Dtype = Field(
        "float32", description="Precision of the forward and backward pass; trained weights are kept in float32."
    )
    lora: LoraSettings | None = Field(None, description="Train low-rank matrices instead of all weights.")
    validation: ValidationSettings | None = Field(
        None, description="Validate while training; without it only the final weights are validated."
    )
    max_loss_spike: float = Field(
        10.0,
        gt=1,
        description="A step is skipped if its loss is so many times the usual one (median of 32 steps, at least the first loss); three in a row end the training.",
    )

    @model_validator(mode="after")
    def _within_the_engine(self) -> "TrainingSection":
        hard = isinstance(self.objective, BradleyTerry) and self.objective.margin_scale == 0
        lacking = {
            "objective": not hard, "weighting": self.weighting != "pair", "lora": self.lora is not None,
            "validation": self.validation is not None,
        }  # fmt: skip
        if self.engine == "trl" and any(lacking.values()):
            names = ", ".join(name for name, is_set in lacking.items() if is_set)
            raise ValueError(
                f"engine trl is kept as it comes and takes no {names}; leave that out, or use engine native"
            )
        return self


class EvaluationSection(Section):
    """How the trained model is judged."""

    pairs: Literal["one_random", "all"] = Field(
        "one_random",
        description="Test pairs: one drawn at random for each prompt before its gold is looked at, or every pair.",
    )
    seed: int = Field(0, ge=0, description="Seed of the drawn pairs.")
    max_train_pairs: int = Field(
        500, gt=0, description="Training pairs that are scored for the accuracy on training data."
    )
    num_worst_mistakes: int = Field(20, ge=0, description="Confident mistakes shown as text.")
    num_canaries: int = Field(8, gt=0, description="Conversations whose rewards a release must reproduce.")


class ReleaseSection(Section):
    """Where the model goes."""

    hub_id: str | None = Field(
        None, description="Repository on the Hub to push to; without it the release stays a local folder."
    )
    private: bool = Field(True, description="Create the repository as private.")
    validate_only: bool = Field(False, description="Build and validate the release folder, push nothing.")
    license: str = Field("other", description="License identifier for the model card.")
    language: list[str] = Field(default=["en"], description="Language codes for the model card.")
    tags: list[str] = Field(default=[], description="Further tags for the model card.")


class ExecutionSection(Section):
    """How work is carried out. Changes no result and enters no digest."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where models run; `auto` takes a GPU if there is one."
    )
    num_threads: int | None = Field(None, gt=0, description="CPU threads of a task; all cores when not given.")
    shard_prompts: int = Field(256, gt=0, description="Prompts in one committed shard: the unit of resume.")
    token_budget: int = Field(16_384, gt=0, description="Tokens in one forward pass while sampling and scoring.")
    training_token_budget: int | None = Field(
        None,
        gt=0,
        description="Tokens in one forward pass while training; 2,048 on a CPU and 16,384 elsewhere when not given.",
    )
    pairs_per_forward: int = Field(16, gt=0, description="Pairs in one forward pass while training with engine trl.")
    gradient_checkpointing: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Recompute activations in the backward pass, which takes less memory and about a third more time; `auto` does so where the estimated memory does not fit.",
    )
    deterministic: bool = Field(
        False, description="Use only operations whose result is the same in every run, at some cost on a GPU."
    )
    profile: bool = Field(
        False, description="Profile a few training steps and write what took the time beside the model."
    )
    save_every_steps: int = Field(200, gt=0, description="Optimizer steps between two resumable checkpoints.")
    timeout_seconds: float | None = Field(
        None, gt=0, description="Longest time for one task; without it there is no limit."
    )
    server_concurrency: int = Field(32, gt=0, description="Requests that a server works on at a time.")
    server_timeout_seconds: float = Field(
        600, gt=0, description="Longest time for one answer of a server; then it is asked again."
    )
    server_retries: int = Field(
        8,
        ge=0,
        description="Further tries of a request that a server dropped, refused as too many, or failed to answer.",
    )


class Recipe(Section):
    """The whole recipe of one partition."""

    name: str = Field(description="Partition key: the file's name, with @SEED where `seeds` are given.")
    description: str = Field("", description="What this recipe is for.")
    seed: int = Field(0, ge=0, description="Seed of the training run: order of pairs and initial score head.")
    prompts: PromptsSection = Field(description="Where prompts come from and how they are split.")
    sampling: SamplingSection = Field(description="Responses: sampled from a policy or by a server, or recorded.")
    gold: GoldSection = Field(description="Gold rewards: from a gold model, from rules, or recorded.")
    pairs: PairsSection = Field(default=PairsSection(), description="How gold rewards become chosen and rejected.")
    training: TrainingSection = Field(description="Training of the reward model.")
    evaluation: EvaluationSection = Field(default=EvaluationSection(), description="How the trained model is judged.")
    release: ReleaseSection = Field(default=ReleaseSection(), description="Where the model goes.")
    execution: ExecutionSection = Field(
        default=ExecutionSection(), description="How work is carried out; changes no result."
    )

    @model_validator(mode="after")
    def _labels_find_their_responses(self) -> "Recipe":
        if self.sampling.kind != "recorded" and self.gold.kind == "recorded" and self.gold.response_field is None:
            raise ValueError(
                "recorded rewards without gold.response_field are taken by position, which means nothing for freshly sampled responses; name gold.response_field, or record the responses too"
            )
        return self
