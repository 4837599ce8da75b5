"""What a recipe says: one frozen model a section, every field with its meaning, unit and bound.

A recipe is a YAML file and a Dagster partition. The sections `prompts` to `release` decide results and enter the digests;
`checks`, `gate`, `automation`, `search`, `execution`, `tracking` and `description` decide none and enter no digest. `recipe_files.py` reads the files into these models.
"""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rm_assets.core.recipe.automation import AutomationSection
from rm_assets.core.recipe.checks import CheckSettings, ChecksSection, DriftCheck, LimitedCheck, ShareCheck
from rm_assets.core.recipe.evaluation import EvaluationSection, LearningCurve, RewardBench
from rm_assets.core.recipe.execution import SMALL_BATCHES, ExecutionSection
from rm_assets.core.recipe.executors import (
    Executor,
    GcloudMachine,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    RemoteExecutor,
    SkyPilotMachine,
    SshExecutor,
    TaskName,
    VertexExecutor,
    VmExecutor,
)
from rm_assets.core.recipe.gold import (
    ClassifierGold,
    Combine,
    CombinedGold,
    GoldScorer,
    GoldSection,
    HumanGold,
    JudgeGold,
    PairsSection,
    PreferenceGold,
    RecordedGold,
    VerifierGold,
    scorers_of,
)
from rm_assets.core.recipe.mesh import JaxMesh
from rm_assets.core.recipe.prompts import (
    DatasetSource,
    EvaluationSet,
    FileSource,
    GeneratorSource,
    KaggleSource,
    MixturePart,
    MixtureSource,
    NearDuplicates,
    PromptSource,
    PromptsSection,
    RowSource,
    SplitFractions,
    TfdsSource,
)
from rm_assets.core.recipe.release import GateSection, ReleaseSection
from rm_assets.core.recipe.sampling import (
    Alignment,
    PolicySampling,
    RecordedResponses,
    SamplingSection,
    SamplingSettings,
    ServerSampling,
)
from rm_assets.core.recipe.search import SearchRange, SearchSection, require_searchable
from rm_assets.core.recipe.section import Backend, Dtype, ModelRef, Section, ServedModel
from rm_assets.core.recipe.training import (
    BradleyTerry,
    ExistingModel,
    LoraSettings,
    Objective,
    Regression,
    RewardModelSection,
    SoftBradleyTerry,
    TrainingSection,
    ValidationSettings,
)

__all__ = [
    "SMALL_BATCHES",
    "Alignment",
    "Backend",
    "BradleyTerry",
    "CheckSettings",
    "ChecksSection",
    "ClassifierGold",
    "Combine",
    "CombinedGold",
    "DatasetSource",
    "DriftCheck",
    "Dtype",
    "EvaluationSection",
    "EvaluationSet",
    "ExecutionSection",
    "Executor",
    "ExistingModel",
    "FileSource",
    "GateSection",
    "GcloudMachine",
    "GeneratorSource",
    "GoldScorer",
    "GoldSection",
    "HumanGold",
    "JaxMesh",
    "JudgeGold",
    "KaggleSource",
    "KubernetesExecutor",
    "LearningCurve",
    "LimitedCheck",
    "LocalExecutor",
    "LoraSettings",
    "MixturePart",
    "MixtureSource",
    "ModelRef",
    "NearDuplicates",
    "Objective",
    "PairsSection",
    "PolicySampling",
    "PreferenceGold",
    "PromptSource",
    "PromptsSection",
    "RayExecutor",
    "Recipe",
    "RecordedGold",
    "RecordedResponses",
    "Regression",
    "ReleaseSection",
    "RemoteExecutor",
    "RewardBench",
    "RewardModelSection",
    "RowSource",
    "SamplingSection",
    "SamplingSettings",
    "SearchRange",
    "SearchSection",
    "Section",
    "ServedModel",
    "ServerSampling",
    "ShareCheck",
    "SkyPilotMachine",
    "SoftBradleyTerry",
    "SplitFractions",
    "SshExecutor",
    "TaskName",
    "TfdsSource",
    "TrackingSection",
    "TrainingSection",
    "ValidationSettings",
    "VerifierGold",
    "VertexExecutor",
    "VmExecutor",
    "WandbSettings",
    "scorers_of",
]


class WandbSettings(Section):
    """Weights & Biases. Its key comes from the environment variable WANDB_API_KEY alone."""

    project: str = Field("rm-assets", pattern=r"^[\w .-]+$", description="Project that the runs go to.")
    entity: str | None = Field(None, description="User or team that owns the project; the key's default without it.")
    mode: Literal["offline", "online"] = Field(
        "offline",
        description="`offline` writes files below the store, to be sent with `wandb sync`; `online` sends at once.",
    )
    tags: list[str] = Field(default=[], description="Tags of the runs.")


class TrackingSection(Section):
    """Where a training's figures go besides its metrics log. Changes no result and enters no digest."""

    tensorboard: bool = Field(False, description="Write TensorBoard's event files while a model trains.")
    wandb: WandbSettings | None = Field(
        None, description="Log finished trainings and reports to Weights & Biases; nothing without it."
    )


class Recipe(Section):
    """The whole recipe of one partition."""

    name: str = Field(description="Partition key: the file's name, with @SEED where `seeds` are given.")
    description: str = Field("", description="What this recipe is for.")
    seed: int = Field(0, ge=0, description="Seed of the training run: order of pairs and initial score head.")
    prompts: PromptsSection = Field(description="Where prompts come from and how they are split.")
    sampling: SamplingSection = Field(description="Responses: sampled from a policy or by a server, or recorded.")
    gold: GoldSection = Field(
        description="Gold rewards: from a gold model, a judge, rules, people's rankings, several scorers, or recorded."
    )
    pairs: PairsSection = Field(default=PairsSection(), description="How gold rewards become chosen and rejected.")
    training: RewardModelSection = Field(
        description="The reward model: trained here, or a checkpoint that is there already."
    )
    evaluation: EvaluationSection = Field(default=EvaluationSection(), description="How the reward model is judged.")
    gate: GateSection = Field(
        default=GateSection(), description="What a model must be for its release to be built; changes no result."
    )
    release: ReleaseSection = Field(default=ReleaseSection(), description="Where the model goes.")
    checks: ChecksSection = Field(
        default=ChecksSection(), description="Which faults of the data are tolerated; changes no result."
    )
    automation: AutomationSection = Field(
        default=AutomationSection(), description="What happens when something has changed; changes no result."
    )
    search: SearchSection | None = Field(
        None,
        description="What `rm-assets search` varies to find better settings of the training; changes no result of this recipe.",
    )
    execution: ExecutionSection = Field(
        default=ExecutionSection(), description="How work is carried out; changes no result."
    )
    tracking: TrackingSection = Field(
        default=TrackingSection(), description="Where a training's figures go; changes no result."
    )

    @field_validator("training", mode="before")
    @classmethod
    def _trains_if_nothing_else_is_said(cls, value: Any) -> Any:
        return {"kind": "train", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _a_learning_curve_has_something_to_train(self) -> "Recipe":
        if self.evaluation.learning_curve is None:
            return self
        if isinstance(self.training, ExistingModel):
            raise ValueError(
                "evaluation.learning_curve trains the model again on shares of its pairs, and training.kind existing trains nothing; remove learning_curve (or set it to null), or train here"
            )
        if self.training.max_train_pairs is not None:
            raise ValueError(
                "evaluation.learning_curve takes shares of the training prompts, and training.max_train_pairs would cut them to one size; set max_train_pairs to null and training.share_of_prompts instead"
            )
        return self

    @model_validator(mode="after")
    def _labels_find_their_responses(self) -> "Recipe":
        by_position = any(
            isinstance(gold, RecordedGold) and gold.response_field is None for gold in scorers_of(self.gold).values()
        )
        if self.sampling.kind != "recorded" and by_position:
            raise ValueError(
                "recorded rewards without gold.response_field are taken by position, which means nothing for freshly sampled responses; name gold.response_field, or record the responses too"
            )
        return self

    @model_validator(mode="after")
    def _rows_hold_what_is_read_from_them(self) -> "Recipe":
        sampling, gold = self.sampling, self.gold
        reads_rows = isinstance(sampling, RecordedResponses) and sampling.source is None
        if reads_rows and any(isinstance(source, GeneratorSource) for source in self.prompts.sources):
            raise ValueError("sampling.source is missing: generated prompts have no responses in their rows")
        recorded = [part for part in scorers_of(gold).values() if isinstance(part, RecordedGold)]
        if not reads_rows and any(part.source is None and part.response_field is None for part in recorded):
            raise ValueError(
                "gold.source is missing; without it, rewards lie in the rows of the prompts, as responses do"
            )
        if isinstance(gold, PreferenceGold) and not reads_rows:
            raise ValueError(
                "gold.kind preferences is about responses in the rows of the prompts: sampling.kind must be recorded, without a source"
            )
        if any(isinstance(source, MixtureSource) for source in self.prompts.sources) and "row" in (
            getattr(sampling, "align", ""),
            *(part.align for part in recorded),
        ):
            raise ValueError("align 'row' needs prompts of one source; these are a mixture")
        return self

    @model_validator(mode="after")
    def _computes_on_what_it_asks_for(self) -> "Recipe":
        backends: list[tuple[TaskName, str, str]] = [("evaluate", "evaluation.backend", self.evaluation.backend)]
        if isinstance(self.training, TrainingSection):
            backends.append(("train", "training.backend", self.training.backend))
        for name, scorer in scorers_of(self.gold).items():
            if isinstance(scorer, ClassifierGold):
                key = "gold.backend" if scorer is self.gold else f"backend of the scorer {name}"
                backends.append(("score", key, scorer.backend))
        if self.execution.jax_mesh and all(backend != "jax" for _, _, backend in backends):
            raise ValueError(
                "execution.jax_mesh divides the work of backend jax, which no section names; set training.backend to jax, or remove jax_mesh"
            )
        for task, key, backend in backends:
            if backend != "jax" and self.execution.executor_of(task).has_tpu:
                raise ValueError(
                    f"task {task} is given a TPU, on which backend torch computes nothing; set {key} to jax, or run {task} elsewhere"
                )
        if isinstance(self.sampling, PolicySampling) and self.execution.executor_of("sample").has_tpu:
            raise ValueError(
                "task sample is given a TPU, and a policy is sampled with torch; run sample elsewhere, or sample from a server (sampling.kind: server) that runs on the TPU"
            )
        return self

    @model_validator(mode="after")
    def _can_be_searched(self) -> "Recipe":
        if self.search is not None:
            require_searchable(self.search, self.training, self.prompts.split.validation)
        return self
