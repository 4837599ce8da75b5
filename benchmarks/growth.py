"""How cost grows with work: pairing and training of 1,000, 10,000 and 100,000 pairs, and 1,000,000 pairs made and tokenized.

    python -m benchmarks.growth                      every size, one JSON line for each measurement
    python -m benchmarks.growth pair 6000 FOLDER     one stage in this process; FOLDER keeps what later stages read

A stage is the code of the task itself, in a fresh process with one thread: `write` makes gold_rewards.parquet (not
measured), `pair` is tasks/pair.py, `tokenize` is how a trainer stores its pairs, `train` is tasks/train.py. The model has
two layers of width 16 and a vocabulary of 300, so that what is seen is the cost of everything around the model.

Memory is resident memory of the process, as Linux counts it. The baseline is what it is once all modules that the stage
uses are imported, and tokenizer and model have been loaded; the peak is counted from there. (`ru_maxrss` would not do:
it cannot be set back, and begins at the size of the process that started this one.)
"""

import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import Recipe
from rm_assets.core.records import GoldReward, Pair
from rm_assets.storage.store import Manifest, Store
from rm_assets.storage.tables import read_table, write_table
from rm_assets.tasks.session import Task

SIZES = (1_000, 10_000, 100_000)
STREAM_SIZE = 1_000_000
RESPONSES, PAIRS_OF_PROMPT = 4, 6
HELD_OUT_PROMPTS = 20
"""Prompts for validation, and as many for test, whatever the size."""
WORDS = [
    "apples",
    "pears",
    "plums",
    "make",
    "a",
    "fine",
    "pie",
    "the",
    "total",
    "of",
    "this",
    "order",
    "is",
    "seven",
    "good",
    "short",
    "right",
]


def rewards(num_pairs: int) -> Iterator[GoldReward]:
    """Gold rewards of so many prompts that they give at least `num_pairs` training pairs, one at a time."""
    splits = {"validation": HELD_OUT_PROMPTS, "test": HELD_OUT_PROMPTS, "train": -(-num_pairs // PAIRS_OF_PROMPT)}
    number = 0
    for split, num_prompts in splits.items():
        for _ in range(num_prompts):
            number += 1
            prompt = " ".join(WORDS[number // step % len(WORDS)] for step in (1, 3, 7, 13, 29, 61)) + f" {number}"
            for index in range(RESPONSES):
                response = " ".join(WORDS[(number + index * step) % len(WORDS)] for step in range(12 + number % 24))
                yield GoldReward(
                    prompt_id=f"{number:016x}", prompt=prompt, system=None, reference=None, source="growth",
                    split=split, external_id=None, row=number, response_id=f"{number * RESPONSES + index:016x}",
                    sample_index=index, response=f"{index} {response}", model="growth", seed=None, num_tokens=None,
                    finished=None, gold_reward=float((number + index) % RESPONSES),
                )  # fmt: skip


def growth_recipe(folder: Path) -> Recipe:
    """One epoch, 64 pairs a step."""
    return Recipe.model_validate(
        {
            "name": "growth",
            "prompts": {"source": {"kind": "generator", "num_prompts": 1}},
            "sampling": {"kind": "policy", "policy": {"path": "unused"}},
            "gold": {"kind": "verifier"},
            "training": {"base": {"path": str(folder / "base")}, "max_length": 256, "learning_rate": 0.001},
            "execution": {"device": "cpu", "num_threads": 1},
        }
    )


def task_of(asset: str, folder: Path, read: str, counts: dict[str, int]) -> Task:
    """The task as a session would hand it over, with `read` as its one input."""
    manifest = Manifest(
        asset=read, digest="growth", recipe="growth", stage_version=1, settings={}, inputs={}, files={},
        data_version="growth", counts=counts, work={},
    )  # fmt: skip
    store = Store(folder / "store")
    reporter: Any = QuietReporter()
    task = Task(asset, "growth", growth_recipe(folder), store, {read: manifest}, {}, reporter)
    task.folder.mkdir(parents=True, exist_ok=True)
    return task


def write(num_pairs: int, folder: Path) -> None:
    """The gold rewards and the model that the other stages read."""
    from rm_assets_tests.fakes import save_causal

    save_causal(folder / "base")
    write_table(folder / "store/gold_rewards/growth/gold_rewards.parquet", GoldReward, rewards(num_pairs))


def pair(num_pairs: int, folder: Path) -> dict[str, Any]:
    """implicit_pairs: table and exports."""
    from rm_assets.tasks.pair import pair as make_pairs

    task = task_of("implicit_pairs", folder, "gold_rewards", {})
    figures, product = measured(lambda: make_pairs(task))
    megabytes = sum((task.folder / name).stat().st_size for name in product.files) / 1e6
    return {"num_pairs": product.counts["pairs"], "written_mb": round(megabytes, 1), **figures}


def tokenize(num_pairs: int, folder: Path) -> dict[str, Any]:
    """The pair store that a trainer makes before its first step."""
    from rm_assets.backends import tokenization
    from rm_assets.backends.pair_store import encode_pairs

    settings = growth_recipe(folder).training
    renderer = tokenization.load_renderer(settings.base)
    table = folder / "store/implicit_pairs/growth/pairs.parquet"
    figures, store = measured(
        lambda: encode_pairs(
            read_table(table, Pair), renderer, settings, 0, folder / "tokens.bin", task_of("", folder, "", {}).reporter
        )
    )
    return {"num_pairs": len(store), "written_mb": round(store.file.stat().st_size / 1e6, 1), **figures}


def train(num_pairs: int, folder: Path) -> dict[str, Any]:
    """reward_model, from the table of pairs to the checkpoint."""
    from rm_assets.backends import tokenization
    from rm_assets.backends.torch import native_engine
    from rm_assets.core.report.training_plot import training_curve
    from rm_assets.tasks.train import train as train_model

    training_curve([])  # matplotlib belongs to the baseline, too
    held_out = HELD_OUT_PROMPTS * PAIRS_OF_PROMPT
    task = task_of("reward_model", folder, "implicit_pairs", {"train_pairs": num_pairs, "validation_pairs": held_out})
    base = task.recipe.training.base
    renderer = tokenization.load_renderer(base)
    native_engine.load_base_for_reward(
        base, seed=0, device=native_engine.torch.device("cpu"), tokenizer=renderer.tokenizer
    )
    figures, product = measured(lambda: train_model(task))
    renamed = {"pairs_trained": "num_pairs", "optimizer_steps": "num_optimizer_steps", "tokens": "num_tokens"}
    return {name: product.counts[count] for count, name in renamed.items()} | figures


STAGES: dict[str, Callable[[int, Path], Any]] = {"write": write, "pair": pair, "tokenize": tokenize, "train": train}


def measured(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds and memory of `work`, and what it gave."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
    baseline, cpu, wall = _resident_mb("VmRSS"), time.process_time(), time.perf_counter()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "baseline_mb": round(baseline, 1),
        "peak_above_baseline_mb": round(_resident_mb("VmHWM") - baseline, 1),
    }, result


def _resident_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024 / 1e6


def in_fresh_process(stage: str, num_pairs: int, folder: Path) -> dict[str, Any]:
    """What one stage cost."""
    command = [sys.executable, "-m", "benchmarks.growth", stage, str(num_pairs), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run(
        command, env=environment, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """Every size, or one stage."""
    if len(sys.argv) == 4:
        stage, num_pairs, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
        figures = STAGES[stage](num_pairs, folder) or {}
        if figures:
            figures["pairs_per_second"] = round(figures["num_pairs"] / figures["wall_seconds"])
        print(json.dumps({"stage": stage, **figures}))
        return
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "threads": 1,
        **{name: version(name) for name in ("torch", "transformers", "tokenizers", "pyarrow")},
        "python": platform.python_version(),
    }
    for num_pairs in (*SIZES, STREAM_SIZE):
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process("write", num_pairs, Path(folder))
            for stage in ("pair", "tokenize", "train") if num_pairs < STREAM_SIZE else ("pair", "tokenize"):
                print(json.dumps(in_fresh_process(stage, num_pairs, Path(folder)) | made), flush=True)


if __name__ == "__main__":
    main()
