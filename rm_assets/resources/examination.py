"""The examination of a recipe's pairs with its base's tokenizer: made once for equal pairs and an equal base, in a process of its own."""

import json
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rm_assets.core.checks.inputs import EXAMINATION_VERSION, Examination
from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.executors.side_task import run_side_task
from rm_assets.storage.files import write_json
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.lineage import Wanted
from rm_assets.storage.store import Store


def examination(store: Store, recipe: Recipe, pairs: Wanted) -> Examination:
    """What the base of `recipe` makes of these pairs.

    Raises: TaskError TASK_001 if the process is killed, TASK_002 if it fails, TASK_003 if it takes too long.
    """
    try:
        settings = STAGES["reward_model"].settings(recipe, Fingerprints(store.home / "fingerprints").of)
    except DataError as error:  # pairs can be made before there is a base to train
        return Examination(missing=str(error))
    name = digest(
        {
            "version": EXAMINATION_VERSION,
            "training": {
                key: settings[key] for key in ("base", "model", "max_length", "over_length") if key in settings
            },
            "pairs": pairs.manifest.data_version if pairs.manifest else None,
            "transformers": version("transformers"),
        }
    )
    file = store.home / "examinations" / f"{name}.json"
    with suppress(OSError, ValueError, TypeError):  # one that is not there or damaged is made again
        return Examination(**json.loads(file.read_text("utf-8")))
    found = _run(recipe, store.folder("implicit_pairs", pairs.digest) / "pairs.parquet")
    if not found.missing:  # what cannot be reached now may be reached the next time
        write_json(file, asdict(found))
    return found


def _run(recipe: Recipe, pairs: Path) -> Examination:
    request = {"recipe": recipe.model_dump(mode="json"), "pairs": str(pairs)}
    with tempfile.TemporaryDirectory(prefix="rm-assets-examine-") as folder:
        events = run_side_task(
            "examine", request, Path(folder), result="the examination of the pairs",
            timeout_seconds=recipe.execution.timeout_seconds,
        )  # fmt: skip
    return Examination(**events["examination"]["found"])
