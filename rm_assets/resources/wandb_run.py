"""One run in Weights & Biases, in a process of its own: `python -m rm_assets.resources.wandb_run REQUEST RESULT`.

A service that does not answer, or a client that leaves threads behind, then costs no more than this process. `resources/tracker.py`
starts it and reads the result: {url, folder} or {error}.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rm_assets.storage.files import write_json

CLOUD = "https://api.wandb.ai"


def log_run(request: dict[str, Any]) -> dict[str, Any]:
    """Makes the run that `request` describes; where it is seen, and the folder of its files."""
    import wandb

    if request["mode"] == "online":
        _sign_in()
    run = wandb.init(
        **{name: request[name] for name in ("project", "entity", "mode", "id", "name", "group", "job_type", "tags", "config")},
        dir=request["home"],
        # The run tells of the training, not of this process: no output, checkout, packages or machine figures.
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True,
            x_disable_machine_info=True, x_save_requirements=False,
        ),
    )  # fmt: skip
    for step in request["steps"]:
        run.log(step["figures"], step=step["step"])
    if request["html"]:
        run.log({"report": wandb.Html(Path(request["html"]).read_text("utf-8"), inject=False)})
    run.summary.update(request["summary"])
    result = {"url": run.url if request["mode"] == "online" else None, "folder": str(run.settings.sync_dir)}
    run.finish()
    return result


def _sign_in() -> None:
    """Through dagster-wandb's resource, which asks the service whether it takes the key."""
    import dagster as dg
    from dagster_wandb import wandb_resource

    config = {"api_key": {"env": "WANDB_API_KEY"}, "host": os.environ.get("WANDB_BASE_URL", CLOUD)}
    with dg.build_resources({"wandb": wandb_resource}, resource_config={"wandb": {"config": config}}):
        pass


def main() -> None:
    """Reads the request and writes the result, whatever comes of it."""
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    try:
        result = log_run(request)
    except Exception as error:  # noqa: BLE001  any failure of the service or its client is one sentence for the parent
        cause = error.__cause__ or error  # Dagster wraps what its resource raised
        result = {"error": f"{type(cause).__name__}: {cause}"}
    write_json(Path(sys.argv[2]), result)


if __name__ == "__main__":
    main()
