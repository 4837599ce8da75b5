"""The examination of a recipe's pairs with its base's tokenizer: made once for equal pairs and an equal base, in a process of its own."""

import json
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rm_assets.core.checks.inputs import EXAMINATION_VERSION, Examination
from rm_assets.core.digests import digest
from rm_assets.core.errors import DataError, RmAssetsError, TaskError
from rm_assets.core.recipe import Recipe
from rm_assets.core.stages import STAGES
from rm_assets.executors.local import run_local
from rm_assets.storage.files import write_json
from rm_assets.storage.fingerprints import Fingerprints
from rm_assets.storage.lineage import wanted
from rm_assets.storage.store import Store


def examination(store: Store, recipe: Recipe) -> Examination:
    """What the base of `recipe` makes of its pairs.

    Raises: StoreError STORE_002 if the pairs are not made, TaskError TASK_002 if the process fails.
    """
    want = wanted(store, recipe, "implicit_pairs")
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
            "pairs": want.manifest.data_version if want.manifest else None,
            "transformers": version("transformers"),
        }
    )
    file = store.home / "examinations" / f"{name}.json"
    if file.is_file():
        return Examination(**json.loads(file.read_text("utf-8")))
    found = _run(store, recipe, store.folder("implicit_pairs", want.digest) / "pairs.parquet")
    if not found.missing:  # what cannot be reached now may be reached the next time
        write_json(file, asdict(found))
    return found


def _run(store: Store, recipe: Recipe, pairs: Path) -> Examination:
    events: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=store.home, prefix=".examine-") as folder:
        request = Path(folder) / "request.json"
        write_json(request, {"recipe": recipe.model_dump(mode="json"), "pairs": str(pairs)})
        end = run_local(
            "examine", request, lambda event: events.update({event["event"]: event}),
            timeout_seconds=recipe.execution.timeout_seconds,
        )  # fmt: skip
    if "error" in events:
        raise RmAssetsError.from_dict(events["error"]["error"])
    if "examination" not in events:
        raise TaskError(
            "TASK_002",
            f"the examination of '{recipe.name}' ended with status {end.status}",
            why=f"its last words were:\n{end.tail}",
            fix="if this is no fault of the machine, report it with these lines",
        )
    return Examination(**events["examination"]["found"])
