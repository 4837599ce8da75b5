"""Recipes: whether they load, and whether what one of them names is there and fits this machine."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rm_assets.backends.machine import available_memory, has_gpu
from rm_assets.core.errors import (
    HubError,
    ModelError,
    RecipeError,
    ReleaseError,
    RmAssetsError,
    SetupError,
)
from rm_assets.core.health import Condition, faulty, sound
from rm_assets.core.planning.model_shape import shape_from_config
from rm_assets.core.planning.recipe_counts import Known
from rm_assets.core.planning.training_plan import plan_training
from rm_assets.core.recipe import (
    SMALL_BATCHES,
    DatasetSource,
    FileSource,
    LocalExecutor,
    ModelRef,
    Recipe,
    RemoteExecutor,
    TaskName,
    TrainingSection,
    scorers_of,
)
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.core.recipe_needs import Needs
from rm_assets.executors.readiness import require_ready
from rm_assets.resources.health.machine import gigabytes
from rm_assets.resources.health.network import ALL_SECONDS, ANSWER_SECONDS, Question
from rm_assets.storage import hub_access
from rm_assets.storage.model_configs import find_config
from rm_assets.storage.source_files import is_url, matching_files
from rm_assets.storage.store import Store

WITH_MODELS: tuple[TaskName, ...] = ("sample", "score", "train", "evaluate", "release")
"""Tasks that compute with a model."""


def load_all(book: RecipeBook, keys: Sequence[str]) -> tuple[list[Recipe], list[Condition]]:
    """The recipes that load, and one condition for all that do, then one for each that does not."""
    loaded: list[Recipe] = []
    faults: list[Condition] = []
    for key in keys:
        try:
            loaded.append(book.load(key))
        except RecipeError as error:
            faults.append(faulty(f"recipe {key}", error))
    load = [sound("recipes", f"{len(loaded)} of {len(keys)} load")] if loaded else []
    return loaded, load + faults


def on_disk(needs: Needs) -> Iterator[Condition]:
    """The local checkpoints and files that the recipe names."""
    for key, ref in needs.models.items():
        if ref.path is not None:
            yield _looked_at(key, partial(_local_model, ref))
    for key, source in needs.sources.items():
        if isinstance(source, FileSource) and (local := [file for file in source.files if not is_url(file)]):
            yield _looked_at(key, partial(_local_files, local))


def on_hub(needs: Needs) -> list[Question]:
    """The checkpoints and datasets that the recipe names on the Hub: in the cache, or open to this account."""
    found: list[Question] = []
    for key, ref in needs.models.items():
        if ref.hub_id is not None:
            found.append(_asked(key, needs, partial(_hub_model, ref)))
    for key, source in needs.sources.items():
        if isinstance(source, DatasetSource):
            found.append(_asked(key, needs, partial(_on_hub, "dataset", source.dataset, source.revision)))
    return found


def _looked_at(key: str, look: Callable[[], str]) -> Condition:
    try:
        return sound(key, look())
    except RmAssetsError as error:
        # Whether the Hub is there again when the recipe runs, nobody knows.
        return faulty(key, error, "warning" if error.code == "HUB_001" else "error")


def _asked(key: str, needs: Needs, look: Callable[[], str]) -> Question:
    error = hub_access.unreachable(f"no answer in {ALL_SECONDS:g} s, and recipe '{needs.recipe}' needs it")
    return partial(_looked_at, key, look), faulty(key, error, "warning")


def _local_model(ref: ModelRef) -> str:
    """Raises: ModelError MODEL_001; RecipeError RECIPE_003 if an environment variable in its path is not set."""
    from rm_assets.backends.loading_errors import require_folder, require_tokenizer, require_weights

    if "${" in ref.location:
        matching_files(ref.location)
    require_folder(ref)
    require_weights(ref)
    require_tokenizer(ref)
    return f"{ref.location} has configuration, weights and tokenizer"


def _local_files(patterns: Sequence[str]) -> str:
    """Raises: DataError DATA_001; RecipeError RECIPE_003."""
    files = [file.name for pattern in patterns for file in matching_files(pattern)]
    return files[0] if len(files) == 1 else f"{len(files)} files, the first {files[0]}"


def _hub_model(ref: ModelRef) -> str:
    """Raises: HubError."""
    return (
        f"{ref.hub_id} is in the cache"
        if hub_access.is_cached(ref)
        else _on_hub("model", str(ref.hub_id), ref.revision)
    )


def _on_hub(kind: hub_access.RepoKind, repo: str, revision: str | None) -> str:
    """Raises: HubError."""
    if hub_access.is_offline():
        raise HubError("HUB_001", f"the {kind} {repo} is only on the Hub", why="HF_HUB_OFFLINE is set",
                       fix="unset HF_HUB_OFFLINE, or name a local copy")  # fmt: skip
    hub_access.require_access(kind, repo, revision, ANSWER_SECONDS)
    return f"{repo} can be read from the Hub"


def elsewhere(recipe: Recipe, store: Store) -> Iterator[Condition]:
    """What the recipe's executors need of this machine. They themselves are not asked."""
    execution = recipe.execution
    named = {f"executors.{task}": executor for task, executor in execution.executors.items()}
    for key, executor in {"executor": execution.executor, **named}.items():
        if not isinstance(executor, LocalExecutor):
            yield _looked_at(f"execution.{key}", partial(_ready, executor, store))


def _ready(executor: RemoteExecutor, store: Store) -> str:
    """Raises: ExecutorError."""
    require_ready(executor, store)
    return f"{executor.kind}: this machine has what it needs; the other side was not asked"


def fit(recipe: Recipe) -> Iterator[Condition]:
    """Whether device, precision, memory and the form of the release go together. Other machines' devices are not known."""
    here = {task for task in WITH_MODELS if isinstance(recipe.execution.executor_of(task), LocalExecutor)}
    if here:
        yield from _device(recipe, trains="train" in here)
    if recipe.release.form == "adapter":
        yield _adapter(recipe)


def _device(recipe: Recipe, *, trains: bool) -> Iterator[Condition]:
    """This machine's device, and where it `trains` its memory."""
    on_cpu = recipe.execution.device == "cpu" or (recipe.execution.device == "auto" and not has_gpu())
    if on_cpu:
        yield sound("device", "cpu")
        yield from _memory(recipe, available_memory(), has_small_batches=True) if trains else ()
    else:
        yield from _on_gpu(recipe, trains=trains)


def _on_gpu(recipe: Recipe, *, trains: bool) -> Iterator[Condition]:
    from rm_assets.backends.torch.devices import gpus, pick_device

    try:
        device, seen = pick_device(recipe.execution.device), gpus()
    except RecipeError as error:
        yield faulty("device", error)
        return
    if not seen or device.type == "cpu":
        yield sound("device", "cpu")
        return
    processes = recipe.execution.num_processes
    if device.type == "cuda" and processes > len(seen):
        too_many = ModelError("MODEL_009", f"{processes} processes, and {len(seen)} GPUs are here",
                           fix=f"set execution.num_processes to {len(seen)} or less")  # fmt: skip
        yield faulty("device", too_many)
    elif _uses_bfloat16(recipe) and not seen[0].has_bfloat16:
        problem = SetupError("SETUP_004", f"{seen[0].name} does not compute in bfloat16, which the recipe asks for",
                             fix="set the recipe's dtype to float32, or take a newer GPU")  # fmt: skip
        yield faulty("device", problem, "warning")
    else:
        yield sound("device", f"{device.type}, {seen[0].name}")
    has_small_batches = device.type in SMALL_BATCHES
    yield from _memory(recipe, seen[0].free_bytes, has_small_batches=has_small_batches) if trains else ()


def _uses_bfloat16(recipe: Recipe) -> bool:
    asked = [recipe.training, recipe.sampling, *scorers_of(recipe.gold).values()]
    return any(getattr(section, "dtype", None) == "bfloat16" for section in asked)


def _memory(recipe: Recipe, free: int | None, *, has_small_batches: bool) -> Iterator[Condition]:
    """The training's estimate against what is free; nothing where the base's shape or the memory is unknown."""
    if not isinstance(recipe.training, TrainingSection) or free is None:
        return
    try:
        config = find_config(recipe.training.base)
        shape = shape_from_config(config) if config else None
    except ModelError:  # a base that is not there, or of an unknown kind, has its own line or no estimate
        return
    if shape is None:
        return
    small = {"train"} if has_small_batches else frozenset[str]()
    known = Known(shapes={recipe.training.base.location: shape}, small_batches=small)
    memory = plan_training(recipe, known, None).memory
    if memory is None:
        return
    if memory.total <= free:
        yield sound("memory", f"training takes at least about {gigabytes(memory.total)} of {gigabytes(free)} free")
        return
    error = SetupError(
        "SETUP_005", f"training takes at least about {gigabytes(memory.total)}, and {gigabytes(free)} are free",
        why="an estimate from the base's shape; `rm-assets plan` shows its parts",
        fix="lower execution.training_token_budget, set training.lora, or take a smaller base or a larger device",
    )  # fmt: skip
    yield faulty("memory", error, "warning")


def _adapter(recipe: Recipe) -> Condition:
    training = recipe.training
    if not isinstance(training, TrainingSection) or training.lora is None:
        error = ReleaseError("RELEASE_009", "release.form is adapter, and the model will have none",
                             fix="set training.lora, or release.form: whole")  # fmt: skip
        return faulty("release", error)
    if recipe.release.hub_id and not recipe.release.validate_only and not training.base.hub_id:
        error = ReleaseError("RELEASE_009", "the adapter's base is a folder of this machine",
                             why="an adapter on the Hub is nothing without its base",
                             fix="set release.form: whole, or train on a base from the Hub")  # fmt: skip
        return faulty("release", error)
    return sound("release", "an adapter, with its base")
