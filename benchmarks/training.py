"""Subjects that train: one optimizer step over the same pairs from the same weights, in the product and in TRL."""

import gc
import tempfile
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.tqdm import disable_progress_bars
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from benchmarks.checkpoints import build_tokenizer, conversations
from benchmarks.measure import Cost, first_step
from benchmarks.workloads import Workload
from rm_assets.backends.torch.trainer import TorchTrainer
from rm_assets.core.protocols import QuietReporter
from rm_assets.core.recipe import ExecutionSection, ModelRef, TrainingSection
from rm_assets.core.records import Pair

LEARNING_RATE = 1e-5
MAX_GRAD_NORM = 1e3
"""High enough that clipping is computed but changes nothing, so that the size of the gradients is compared too."""
WARM_PAIRS = 4
"""Pairs of a step before the first one that is measured."""


class _Subject(ABC):
    """A step is measured from a fresh trainer each time, so every round does the very same work."""

    def __init__(self, workload: Workload, checkpoint: Path, device: str, dtype: str) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        disable_progress_bars()
        warnings.simplefilter("ignore")
        self.workload, self.checkpoint, self.device, self.dtype = workload, checkpoint, device, dtype
        self._is_warm = False

    def run(self, *, gradients: Path | None = None, round_number: int = 0) -> Cost:
        """The cost of one optimizer step."""
        if not self._is_warm:
            self._step(WARM_PAIRS, None)
            self._is_warm = True
        return self._step(len(self.workload.pairs), gradients if round_number == 0 else None)

    def _step(self, num_pairs: int, gradients: Path | None) -> Cost:
        with tempfile.TemporaryDirectory() as work:
            cost = first_step(lambda: self.train(min(num_pairs, len(self.workload.pairs)), Path(work)), gradients)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()  # the other subjects' processes are on the same GPU
        return cost

    @abstractmethod
    def train(self, num_pairs: int, work: Path) -> None:
        """Trains on the first pairs of the workload, all of them in one optimizer step."""


class Product(_Subject):
    """`TorchTrainer` as the reward_model task calls it, with its default execution settings."""

    def train(self, num_pairs: int, work: Path) -> None:
        """From pairs of conversations."""
        settings = TrainingSection(
            base=ModelRef(path=str(self.checkpoint)), pairs_per_step=num_pairs, learning_rate=LEARNING_RATE,
            schedule="constant", warmup_ratio=0.0, max_grad_norm=MAX_GRAD_NORM, dtype=self.dtype, num_epochs=2,
        )  # fmt: skip
        TorchTrainer().train(
            records(self.workload, num_pairs), [], settings=settings, execution=ExecutionSection(device=self.device),
            seed=0, checkpoint=work / "model", work=work / "work", reporter=QuietReporter(),
        )  # fmt: skip


class Trl(_Subject):
    """TRL's RewardTrainer on the same token ids, in the order of the workload's pairs."""

    def __init__(
        self, workload: Workload, checkpoint: Path, device: str, dtype: str, pairs_per_batch: int, checkpointing: bool
    ) -> None:
        super().__init__(workload, checkpoint, device, dtype)
        self.pairs_per_batch, self.checkpointing = pairs_per_batch, checkpointing

    def train(self, num_pairs: int, work: Path) -> None:
        """From token ids, which TRL neither tokenizes nor filters again."""
        model = AutoModelForSequenceClassification.from_pretrained(
            self.checkpoint, attn_implementation="sdpa", dtype=torch.float32
        )
        size = min(self.pairs_per_batch, num_pairs)
        options: dict[str, Any] = {
            "per_device_train_batch_size": size, "gradient_accumulation_steps": num_pairs // size,
            "gradient_checkpointing": self.checkpointing, "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant", "max_grad_norm": MAX_GRAD_NORM, "max_steps": 1,
            "train_sampling_strategy": "sequential", "bf16": self.dtype == "bfloat16", "use_cpu": self.device == "cpu",
            "max_length": None, "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
        }  # fmt: skip
        config = RewardConfig(output_dir=str(work), **options)
        sides = [self.workload.sides(pair) for pair in self.workload.pairs[:num_pairs]]
        columns = {"chosen_ids": [chosen for chosen, _ in sides], "rejected_ids": [rejected for _, rejected in sides]}
        RewardTrainer(
            model=model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=build_tokenizer()
        ).train()


def trl_as_it_comes(workload: Workload, checkpoint: Path, device: str, dtype: str) -> Trl:
    """Batches of 16 pairs, checkpointing (TRL's default)."""
    return Trl(workload, checkpoint, device, dtype, 16, True)


def trl_tuned(workload: Workload, checkpoint: Path, device: str, dtype: str) -> Trl:
    """Batches of 2 pairs, no checkpointing."""
    return Trl(workload, checkpoint, device, dtype, 2, False)


def records(workload: Workload, num_pairs: int) -> list[Pair]:
    """The pairs as the table `implicit_pairs` has them."""
    texts = {number: conversations(item) for number, item in enumerate(workload.items)}
    return [
        Pair(
            pair_id=f"pair{place}", prompt_id=f"p{number}", source=workload.name, split="train",
            chosen=texts[number][chosen], rejected=texts[number][rejected],
            chosen_id=f"p{number}-{chosen}", rejected_id=f"p{number}-{rejected}",
            chosen_gold_reward=1.0, rejected_gold_reward=0.0, gold_margin=1.0,
        )
        for place, (number, chosen, rejected) in enumerate(workload.pairs[:num_pairs])
    ]  # fmt: skip
