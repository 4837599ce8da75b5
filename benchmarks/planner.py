"""What the planner says against what a task really takes: peak memory, and after a probe time and memory.

    python -m benchmarks.planner [--shapes qwen3,llama] [--settings kept,probed]     JSON lines into planner-results.jsonl

Each training and scoring is a real task process, on two threads of a CPU, of pairs whose texts are all as long as the plan takes
them for (after a probe: of very different lengths). Memory is the largest resident memory of the process (Linux's VmHWM) above that of
the same task with a model of a few thousand parameters, which is what Python, the libraries and the tables take. The plan is of
tensors, so the C library is told to give back what they leave (`RETURNED`); `--keep-freed` measures it as it comes.
After a probe, both are with the C library as it comes. Memory is then that of the whole process, Python and libraries too: the probe's
largest against the training's. Time is wall time of the training, from libraries to the saved model; another load on the machine between
probe and training falsifies it, so the load is in the line.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForSequenceClassification, LlamaConfig, PretrainedConfig, Qwen3Config

from benchmarks import results
from benchmarks.checkpoints import build_tokenizer, words
from benchmarks.workloads import EOS, FIRST_WORD, PAD, VOCABULARY
from rm_assets.cli.plan import make_plan
from rm_assets.cli.probe import measure
from rm_assets.core.recipe import Recipe
from rm_assets.core.recipe_files import RecipeBook
from rm_assets.resources.compute import Compute
from rm_assets.storage.store import Manifest

RESULTS = Path(__file__).parent / "planner-results.jsonl"
BASELINE = "tiny"
HEADS: dict[str, Any] = {
    "num_labels": 1,
    "problem_type": "regression",
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": None,
}
SHAPES: dict[str, PretrainedConfig] = {
    BASELINE: Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, intermediate_size=32, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, **HEADS,
    ),
    "qwen3": Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=768, num_hidden_layers=12, intermediate_size=2_048, num_attention_heads=12,
        num_key_value_heads=4, head_dim=64, **HEADS,
    ),
    "llama": LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, num_hidden_layers=24, intermediate_size=1_536, num_attention_heads=9,
        num_key_value_heads=3, **HEADS,
    ),
    "llama-wide": LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=1_024, num_hidden_layers=8, intermediate_size=4_096, num_attention_heads=16,
        num_key_value_heads=8, **HEADS,
    ),
}  # fmt: skip
"""82, 90 and 134 million parameters."""
PROMPT, RESPONSE = 64, 96
"""Tokens of a text: a pair of prompt and two responses is computed as 256."""
SETTINGS: dict[str, dict[str, Any]] = {
    "kept": {"pairs_per_step": 4, "training_token_budget": 512, "gradient_checkpointing": "never"},
    "kept-long": {"pairs_per_step": 8, "training_token_budget": 1_024, "gradient_checkpointing": "never"},
    "recomputed": {"pairs_per_step": 4, "training_token_budget": 512, "gradient_checkpointing": "always"},
    "lora": {"pairs_per_step": 4, "training_token_budget": 512, "gradient_checkpointing": "never", "lora": {"rank": 8}},
    "score": {"token_budget": 2_048},
    "probed": {"pairs_per_step": 2, "max_optimizer_steps": 16, "training_token_budget": 512},
    "probed-lora": {
        "pairs_per_step": 8,
        "max_optimizer_steps": 24,
        "training_token_budget": 1_024,
        "lora": {"rank": 8},
    },
}
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""With glibc as it comes, the heap keeps what tensors below 32 MiB leave, in holes that others may not fit."""
EXECUTION = ("training_token_budget", "token_budget", "gradient_checkpointing")
NUM_PROMPTS = 96


class Workplace:
    """Checkpoints, source files and a store in one folder."""

    def __init__(self, folder: Path, allocator: dict[str, str]) -> None:
        self.folder, self.recipes, self.allocator = folder, folder / "recipes", allocator
        self.recipes.mkdir()
        os.environ["RM_ASSETS_FORK_TASKS"] = "off"  # a forked task's memory holds what its server has imported
        os.environ["RM_ASSETS_HOME"] = str(folder / "home")
        for name, spread in (("even", 1), ("uneven", 24)):
            self._write(name, spread)

    def _write(self, name: str, spread: int) -> None:
        """Two responses to each prompt, of `RESPONSE` tokens, or a `spread` of lengths below that."""
        with open(self.recipes / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for number in range(NUM_PROMPTS):
                prompt = _text(number, PROMPT)
                for side in (0, 1):
                    length = RESPONSE - 1 - 3 * (number * 5 % spread)  # the template adds the end token
                    row = {"prompt": prompt, "response": _text(number * 11 + side + 1, length), "gold_reward": side}
                    file.write(json.dumps(row) + "\n")

    def recipe(self, shape: str, setting: str) -> Recipe:
        """The recipe of one measurement; its seed makes it another training for the store, whose execution has no digest."""
        self._save_model(shape)
        values = SETTINGS[setting]
        data = {"kind": "files", "files": ["uneven.jsonl" if setting.startswith("probed") else "even.jsonl"]}
        recorded = {"kind": "recorded", "source": data, "response_field": "response"}
        recipe = {
            "seed": list(SETTINGS).index(setting),
            "prompts": {"source": data, "split": {"train": 0.7, "validation": 0.1, "test": 0.2}},
            "sampling": {"kind": "recorded", "source": data},
            "gold": {"kind": "classifier", "model": {"path": shape}, "max_length": PROMPT + RESPONSE} if setting == "score" else recorded,
            "training": {
                "base": {"path": shape}, "max_length": PROMPT + RESPONSE, "learning_rate": 1e-4, "max_optimizer_steps": 2,
                **{key: value for key, value in values.items() if key not in EXECUTION},
            },
            "execution": {"device": "cpu", "num_threads": 2, **{k: v for k, v in values.items() if k in EXECUTION}},
        }  # fmt: skip
        name = f"{shape}-{setting}"
        (self.recipes / f"{name}.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
        return RecipeBook(self.recipes, {}).load(name)

    def _save_model(self, shape: str) -> None:
        folder = self.recipes / shape
        if not folder.exists():
            torch.manual_seed(0)
            AutoModelForSequenceClassification.from_config(SHAPES[shape]).save_pretrained(folder)
            build_tokenizer().save_pretrained(folder)

    def make(self, recipe: Recipe, *assets: str) -> Manifest:
        """The manifest of the last of these assets."""
        compute = Compute(home=str(self.folder / "home"))
        for asset in assets:
            manifest = compute.make_asset(recipe, asset, say=lambda line: None, debug=lambda line: None).manifest
        return manifest

    def memory(self, shape: str, setting: str) -> dict[str, Any]:
        """Peak of the task above that with a tiny model, and what the plan says."""
        recipe = self.recipe(shape, setting)
        peak, baseline = (self._peak(self.recipe(name, setting), setting) for name in (shape, BASELINE))
        plan = make_plan(recipe)
        memory = (
            next(s for s in plan.stages if s.asset == "gold_rewards").memory
            if setting == "score"
            else plan.training.memory
        )
        assert memory is not None, "the shapes are known ones"
        return _line(shape, setting, "MB", memory.total / 1e6, peak - baseline) | {
            "baseline_mb": baseline, "keeps_freed": not self.allocator,
        }  # fmt: skip

    def _peak(self, recipe: Recipe, setting: str) -> float:
        before, last = (
            (("gold_rewards", "implicit_pairs"), "reward_model") if setting != "score" else ((), "gold_rewards")
        )
        self.make(recipe, "prompts", "sampled_responses", *before)
        os.environ.update(self.allocator)  # read by the task's process when it starts
        try:
            return float(self.make(recipe, last).made["peak_memory_mb"])
        finally:
            for name in self.allocator:
                del os.environ[name]

    def probed(self, shape: str, setting: str) -> Iterator[dict[str, Any]]:
        """Seconds and memory of a training with validation, and what the plan says after its probe."""
        recipe = self.recipe(shape, setting)
        self.make(recipe, "prompts", "sampled_responses", "gold_rewards", "implicit_pairs")
        plan = make_plan(recipe, probe=measure(recipe, "local")).training
        assert plan.seconds is not None and plan.peak_bytes is not None, "there is a probe"
        made = self.make(recipe, "reward_model").made
        yield _line(shape, setting, "s", plan.seconds, float(made["seconds"]))
        yield _line(shape, setting, "MB", plan.peak_bytes / 1e6, float(made["peak_memory_mb"])) | {"keeps_freed": True}


def _text(number: int, num_tokens: int) -> str:
    return words(
        [
            FIRST_WORD + (number * 7 + place * (number % 5 + 1)) % (VOCABULARY - FIRST_WORD)
            for place in range(num_tokens)
        ]
    )


def _line(shape: str, setting: str, unit: str, planned: float, measured: float) -> dict[str, Any]:
    return {
        "shape": shape, "setting": setting, "unit": unit, "planned": planned, "measured": measured,
        "ratio": planned / measured, "load": os.getloadavg()[0],
    }  # fmt: skip


def measured(shapes: list[str], settings: list[str], allocator: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One line for each shape and setting."""
    with tempfile.TemporaryDirectory() as name:
        place = Workplace(Path(name), allocator)
        for shape in shapes:
            for setting in settings:
                if setting.startswith("probed"):
                    yield from place.probed(shape, setting)
                else:
                    yield place.memory(shape, setting)


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["shape"], line["setting"], line["unit"], line.get("keeps_freed")


def main() -> None:
    """Measures what the command line names, and writes all that is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner")
    parser.add_argument("--shapes", default=",".join(list(SHAPES)[1:]))
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--keep-freed", action="store_true", help="leave the C library as it comes")
    options = parser.parse_args()
    allocator = {} if options.keep_freed else RETURNED
    for line in measured(options.shapes.split(","), options.settings.split(","), allocator):
        new = results.rounded(line) | results.circumstances()
        kept = [old for old in results.read(RESULTS) if _key(old) != _key(new)]
        RESULTS.write_text("".join(json.dumps(each) + "\n" for each in [*kept, new]), "utf-8")
        print(json.dumps(new), flush=True)


if __name__ == "__main__":
    main()
