"""A million recorded responses: ingested, found for their prompts, labelled, paired and checked.

    python -m benchmarks.records [NUM_RESPONSES]     one JSON line for each stage, into records-results.jsonl

The rows are generated: four responses to a prompt, one row a response, in an order in which a prompt's responses lie far
apart. Each stage is its own task process, as in a run; the checks are one process. Memory is the peak of resident memory
above what the process has once its modules are imported, as Linux counts both.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.growth import WORDS, measured
from rm_assets.core.recipe import ChecksSection, Recipe
from rm_assets.core.stages import STAGES
from rm_assets.resources.compute import Compute
from rm_assets.storage.lineage import wanted

RESULTS = Path(__file__).parent / "records-results.jsonl"
NUM_RESPONSES, RESPONSES_OF_PROMPT = 1_000_000, 4
ASSETS = ("prompts", "sampled_responses", "gold_rewards", "implicit_pairs")


def text(number: int, num_words: int) -> str:
    """Words that depend on the number."""
    return " ".join(WORDS[(number // step + step) % len(WORDS)] for step in range(1, num_words + 1)) + f" {number}"


def answers(num_prompts: int) -> Iterator[dict[str, Any]]:
    """One row a response: the first to every prompt, then the second, and so on."""
    for index in range(RESPONSES_OF_PROMPT):
        for number in range(num_prompts):
            yield {
                "prompt": text(number, 12 + number % 12),
                "response": f"{index} {text(number * 7 + index, 20 + (number * 5 + index) % 60)}",
                "gold_reward": (number * 31 + index * 17) % 97 / 97,
            }


def write(folder: Path, num_prompts: int) -> None:
    """The source files."""
    with open(folder / "prompts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": text(n, 12 + n % 12)}) + "\n" for n in range(num_prompts))
    with open(folder / "answers.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in answers(num_prompts))


def recipe_of(folder: Path) -> Recipe:
    """Prompts from one file, responses and their rewards from another."""
    source = {"kind": "files", "files": [str(folder / "answers.jsonl")]}
    return Recipe.model_validate(
        {
            "name": "records",
            "prompts": {"source": {"kind": "files", "files": [str(folder / "prompts.jsonl")]}},
            "sampling": {"kind": "recorded", "source": source},
            "gold": {"kind": "recorded", "source": source, "response_field": "response"},
            "training": {"base": {"path": str(folder)}, "learning_rate": 0.001},
        }
    )


def checks(folder: Path) -> dict[str, Any]:
    """All checks of the data, in this process."""
    from rm_assets.checks.data import TABLE_CHECKS, check_input

    recipe, store = recipe_of(folder), Compute(home=str(folder / "home")).store()

    checked = {name: check for name, check in TABLE_CHECKS.items() if check.asset != "reward_model"}

    def run_all() -> int:
        for name, check in checked.items():
            settings, want = getattr(ChecksSection(), name), wanted(store, recipe, check.asset)
            read = (check_input(store, recipe, want, source) for source in check.reads)
            print(name, check.find(*read, *settings.limits).sentence)
        return len(checked)

    figures, num_checks = measured(run_all)
    return {"stage": "checks", "num_checks": num_checks, **figures}


def baseline_mb(task: str) -> float:
    """Resident memory of a process that has imported a task's modules."""
    code = (
        f"import rm_assets.tasks.{task}, pathlib, re;"
        "print(re.search(r'VmRSS:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def main() -> None:
    """All stages, or the checks alone for `checks FOLDER`."""
    if sys.argv[1:2] == ["checks"]:
        print(json.dumps(checks(Path(sys.argv[2]))))
        return
    os.environ["RM_ASSETS_FORK_TASKS"] = "off"  # a forked task's memory holds what its server has imported
    num_responses = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_RESPONSES
    made = {
        "num_responses": num_responses, "prompts": num_responses // RESPONSES_OF_PROMPT,
        "python": platform.python_version(), "pyarrow": version("pyarrow"), "date": datetime.now(UTC).date().isoformat(),
        "machine": results.circumstances()["machine"],
    }  # fmt: skip
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, num_responses // RESPONSES_OF_PROMPT)
        for asset in ASSETS:
            started = time.perf_counter()
            manifest = (
                Compute(home=str(folder / "home"))
                .make_asset(recipe_of(folder), asset, say=print, debug=lambda line: None)
                .manifest
            )
            baseline, peak = baseline_mb(STAGES[asset].task), manifest.made["peak_memory_mb"]
            lines.append(
                {
                    "stage": asset, "wall_seconds": round(time.perf_counter() - started, 2), "baseline_mb": round(baseline, 1),
                    "peak_above_baseline_mb": round(peak - baseline, 1), **{k: v for k, v in manifest.counts.items() if v},
                }
            )  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.records", "checks", name]
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
        lines.append(json.loads(done.stdout.splitlines()[-1]))
    RESULTS.write_text("".join(json.dumps(made | line) + "\n" for line in lines), "utf-8")
    print(RESULTS.read_text("utf-8"))


if __name__ == "__main__":
    main()
