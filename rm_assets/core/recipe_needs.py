"""What a recipe needs from outside: checkpoints, rows, servers, repositories, packages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rm_assets.core.recipe import (
    ClassifierGold,
    DatasetSource,
    FileSource,
    GeneratorSource,
    JudgeGold,
    KaggleSource,
    MixtureSource,
    ModelRef,
    PolicySampling,
    PromptSource,
    Recipe,
    RecordedGold,
    RecordedResponses,
    RowSource,
    ServedModel,
    ServerSampling,
    TfdsSource,
    scorers_of,
)

EXTRA_OF_PROTOCOL = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}


@dataclass(frozen=True)
class Needs:
    """What a recipe names, by the key of the recipe that names it. `pushes_to` is the repository of its releases."""

    recipe: str
    models: dict[str, ModelRef]
    sources: dict[str, RowSource]
    servers: dict[str, ServedModel]
    pushes_to: str | None
    logs_online: bool

    @property
    def uses_hub(self) -> bool:
        """Whether it names a model or a dataset on the Hub, or pushes there."""
        on_hub = [ref.hub_id for ref in self.models.values()] + [self.pushes_to]
        return any(on_hub) or any(isinstance(source, DatasetSource) for source in self.sources.values())

    @property
    def moving(self) -> dict[str, tuple[Literal["model", "dataset"], str, str]]:
        """Kind, repository and branch or tag of what it reads from the Hub without naming a commit, by the recipe's key."""
        found: dict[str, tuple[Literal["model", "dataset"], str, str]] = {
            key: ("model", ref.hub_id, ref.revision or "main") for key, ref in self.models.items() if ref.hub_id
        }
        found |= {
            key: ("dataset", source.dataset, source.revision or "main")
            for key, source in self.sources.items()
            if isinstance(source, DatasetSource)
        }
        return {key: place for key, place in found.items() if not re.fullmatch("[0-9a-f]{40}", place[2])}

    @property
    def extras(self) -> set[str]:
        """The optional dependencies that its sources are read with."""
        kinds = {KaggleSource: "kaggle", TfdsSource: "tfds"}
        found = {kinds[type(source)] for source in self.sources.values() if type(source) in kinds}
        files = [file for source in self.sources.values() if isinstance(source, FileSource) for file in source.files]
        protocols = [file.partition("://")[0] for file in files if "://" in file]
        return found | {EXTRA_OF_PROTOCOL[protocol] for protocol in protocols if protocol in EXTRA_OF_PROTOCOL}


def needs_of(recipe: Recipe) -> Needs:
    """All that the recipe names."""
    golds = {f"gold.{name}" if name else "gold": gold for name, gold in scorers_of(recipe.gold).items()}
    sampling, release, wandb = recipe.sampling, recipe.release, recipe.tracking.wandb
    models: dict[str, ModelRef] = {}
    servers: dict[str, ServedModel] = {}
    if isinstance(sampling, PolicySampling):
        models["sampling.policy"] = sampling.policy
    elif isinstance(sampling, ServerSampling):
        servers["sampling"] = sampling
    models |= {f"{key}.model": gold.model for key, gold in golds.items() if isinstance(gold, ClassifierGold)}
    servers |= {key: gold for key, gold in golds.items() if isinstance(gold, JudgeGold)}
    models["training.base" if recipe.training.kind == "train" else "training.model"] = recipe.training.base
    sources = dict(_sources(recipe))
    sources |= {f"{k}.source": g.source for k, g in golds.items() if isinstance(g, RecordedGold) and g.source}
    return Needs(
        recipe=recipe.name, models=models, sources=sources, servers=servers,
        pushes_to=None if release.validate_only else release.hub_id,
        logs_online=wandb is not None and wandb.mode == "online",
    )  # fmt: skip


def _sources(recipe: Recipe) -> Iterator[tuple[str, RowSource]]:
    """The sources of all sections but gold."""
    for key, source in (("prompts.source", recipe.prompts.source), ("prompts.test", recipe.prompts.test)):
        yield from _row_sources(key, source)
    for named in recipe.prompts.decontaminate:
        yield f"prompts.decontaminate, {named.name}", named.source
    if isinstance(recipe.sampling, RecordedResponses) and recipe.sampling.source:
        yield "sampling.source", recipe.sampling.source
    for number, benchmark in enumerate(recipe.evaluation.benchmarks):
        yield f"evaluation.benchmarks.{number}", benchmark.source


def _row_sources(key: str, source: PromptSource | None) -> Iterator[tuple[str, RowSource]]:
    if isinstance(source, MixtureSource):
        for part in source.parts:
            yield f"{key}, {part.name}", part.source
    elif source is not None and not isinstance(source, GeneratorSource):
        yield key, source
