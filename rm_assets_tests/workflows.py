"""Runs the shell steps of a GitHub workflow as its runner does: in order, with the step's environment, and after a failure only
the steps that ask for it. Actions (`uses`) are left out; what they would bring, a test lays down itself."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "templates" / "repository"
WORKFLOWS = [
    *sorted((TEMPLATE / ".github" / "workflows").glob("*.yml")),
    *sorted((ROOT / ".github" / "workflows").glob("*.yml")),
]
EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["jobs"]
    return found


def environment(step: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """`env` of a job or step; `values` are those of the expressions. Raises: KeyError if an expression has none."""
    given = step.get("env", {})
    return {key: EXPRESSION.sub(lambda found: values[found[1]], value) for key, value in given.items()}


def command(script: str) -> list[str]:
    """As GitHub calls it for `shell: bash`."""
    return ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]


def run_job(
    job: Mapping[str, Any], folder: Path, values: Mapping[str, str], env: Mapping[str, str]
) -> tuple[bool, str]:
    """Runs the steps in `folder`. Returns: whether all went well, and what they printed."""
    succeeded, said = True, ""
    for step in job["steps"]:
        if "run" not in step or not (succeeded or "always()" in step.get("if", "")):
            continue
        of_step = {**os.environ, **env, **environment(job, values), **environment(step, values)}
        done = subprocess.run(
            command(step["run"]),
            cwd=folder,
            env=of_step,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        succeeded, said = succeeded and done.returncode == 0, said + done.stdout
    return succeeded, said


def put_on_path(folder: Path, name: str, script: str) -> None:
    """A program that a workflow calls, in place of the real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
