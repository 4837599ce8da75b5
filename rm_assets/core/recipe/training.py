"""Training of the reward model: objective, schedule, precision; or a checkpoint that takes its place."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rm_assets.core.recipe.section import Backend, Dtype, ModelRef, Section


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

    kind: Literal["train"] = Field("train", description="The reward model is trained here; may be left out.")
    base: ModelRef = Field(description="Checkpoint to start from: a causal LM or an encoder.")
    engine: Literal["native", "trl"] = Field(
        "native",
        description="Training loop: `native` computes each prompt and each response of a step once; `trl` is TRL's RewardTrainer.",
    )
    backend: Backend = Field(
        "torch",
        description="What computes: PyTorch, or JAX, which knows Llama and Qwen3 and is meant for TPUs (never run on one), with the engine `native` and without LoRA.",
    )
    objective: Objective = Field(default=BradleyTerry(), description="What is minimized.")
    centering: float = Field(
        0.0, ge=0, description="Weight of the squared sum of a pair's two rewards, which keeps rewards around 0."
    )
    weighting: Literal["pair", "prompt"] = Field(
        "pair",
        description="What weighs the same within a step: every pair, or every prompt whatever the number of its pairs.",
    )
    shuffle: Literal["prompts", "pairs"] = Field(
        "prompts",
        description="What is put in random order: prompts, whose pairs then lie side by side (a step may end among them) and share their responses, or single pairs.",
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
    share_of_prompts: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Train on the pairs of so large a share of the training prompts, drawn by the recipe's seed; a larger share contains a smaller one.",
    )
    max_train_pairs: int | None = Field(
        None, gt=0, description="Train on a random subset of so many of these pairs at most."
    )
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
    def _within_the_backend(self) -> "TrainingSection":
        lacking = {
            "engine to native": self.engine != "native",
            "lora to null": self.lora is not None,
            "dtype to float32 or bfloat16": self.dtype == "float16",
        }
        if self.backend == "jax" and any(lacking.values()):
            to_set = ", ".join(setting for setting, is_lacking in lacking.items() if is_lacking)
            raise ValueError(f"backend jax has less to choose; set {to_set}, or use backend torch")
        return self

    @model_validator(mode="after")
    def _within_the_engine(self) -> "TrainingSection":
        hard = isinstance(self.objective, BradleyTerry) and self.objective.margin_scale == 0
        usual_spike = type(self).model_fields["max_loss_spike"].default
        # With what to write: leaving a key out does not help where it comes from another recipe by `extends`.
        lacking = {
            "objective to {kind: bradley_terry, margin_scale: 0}": not hard,
            "weighting to pair": self.weighting != "pair",
            "lora to null": self.lora is not None,
            "validation to null": self.validation is not None,
            f"max_loss_spike to {usual_spike:g}": self.max_loss_spike != usual_spike,
        }
        if self.engine == "trl" and any(lacking.values()):
            to_set = ", ".join(setting for setting, is_lacking in lacking.items() if is_lacking)
            raise ValueError(
                f"engine trl is kept as it comes and has less to choose; set {to_set}, or use engine native"
            )
        return self


class ExistingModel(Section):
    """A reward model that is there already, ours or another's; nothing is trained."""

    kind: Literal["existing"] = Field(description="A checkpoint takes the place of a trained reward model.")
    model: ModelRef = Field(description="A sequence classifier with one output, as safetensors.")
    max_length: int = Field(
        2048, gt=1, description="Longest prompt and response together, in tokens; a longer one is cut at its end."
    )
    dtype: Dtype = Field(
        "float32", description="Precision in which its weights are kept; rewards are computed in float32."
    )

    @model_validator(mode="after")
    def _runs_nothing_of_its_own(self) -> "ExistingModel":
        if self.model.trust_remote_code:
            raise ValueError(
                "an existing reward model with Python code of its own is not taken: a release of it would not load without "
                "that code; write it as a model that transformers knows"
            )
        return self

    @property
    def base(self) -> ModelRef:
        """What pairs are read with, as a training reads them with its base."""
        return self.model

    @property
    def over_length(self) -> Literal["drop"]:
        """No pair stops a training that there is not."""
        return "drop"


RewardModelSection = Annotated[TrainingSection | ExistingModel, Field(discriminator="kind")]
