"""TRL's RewardTrainer for pairs that are already token ids: every pair weighs the same, and figures are exact.

Shapes: B pairs of a forward pass, T tokens. A batch is 2B rows: the chosen ones first, then the rejected ones.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from transformers import PrinterCallback, TrainerCallback, TrainerState
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rm_assets.backends.torch import training_state
from rm_assets.backends.torch.rendering import Encoded
from rm_assets.backends.torch.scorer import right_padded
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import Reporter

FIGURES = ("loss", "accuracy", "margin", "grad_norm", "learning_rate", "tokens_per_second", "eta_seconds")


@dataclass(frozen=True)
class PairCollator:
    """Rows of the dataset to a batch; keeps token types, which TRL's own collator drops."""

    pad_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sides = [(row, side) for side in ("chosen", "rejected") for row in rows]
        return right_padded([Encoded(row[f"{s}_ids"], row.get(f"{s}_type_ids")) for row, s in sides], self.pad_id)


def as_dataset(pairs: list[tuple[Encoded, Encoded]]) -> Dataset:
    """The columns that make TRL neither tokenize nor filter, and token types where there are any."""
    columns: dict[str, list[Any]] = {}
    for position, side in enumerate(("chosen", "rejected")):
        columns[f"{side}_ids"] = [pair[position].ids for pair in pairs]
        if pairs[0][position].type_ids is not None:
            columns[f"{side}_type_ids"] = [pair[position].type_ids for pair in pairs]
    return Dataset.from_dict(columns, features=Features({column: List(Value("int32")) for column in columns}))


class PairTrainer(RewardTrainer):
    """RewardTrainer whose loss is the mean over the pairs of an optimizer step, also in a last, partial step."""

    loss_is_scaled_for_ga = True

    def __init__(self, *, dataset: Dataset, collator: PairCollator, reporter: Reporter, **options: Any) -> None:
        super().__init__(train_dataset=dataset, data_collator=collator, **options)
        self.remove_callback(PrinterCallback)
        self.add_callback(_ReportCallback(self, reporter))
        self.num_tokens = 0
        self.sums = _Sums()
        self._first_step, self._began = 0, time.monotonic()

    def fit(self, resumed: training_state.State | None) -> None:
        """Train to the last step, from the beginning or from a state."""
        if resumed is not None:
            self.num_tokens, self._first_step = resumed.num_tokens, resumed.step
        self._began, self.sums = time.monotonic(), _Sums()
        if resumed is not None and resumed.step >= self.args.max_steps:
            # transformers would take one step more.
            self._load_from_checkpoint(str(resumed.folder))
            self.state = TrainerState.load_from_json(str(resumed.folder / "trainer_state.json"))
        else:
            self.train(resume_from_checkpoint=str(resumed.folder) if resumed is not None else None)

    def history(self) -> list[dict[str, float]]:
        """Every log since the first step, also of the processes that were resumed from."""
        names = ("step", *FIGURES)
        return [{k: float(log[k]) for k in names if k in log} for log in self.state.log_history if "loss" in log]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Micro-batches of one optimizer step, and the number of their pairs."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["input_ids"]) // 2 for batch in batches)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The micro-batch's share of the optimizer step's mean loss.

        Raises: ModelError MODEL_006 if it is not finite.
        """
        of_trl: Any = super().compute_loss
        loss, outputs = of_trl(model, inputs, return_outputs=True)
        chosen, rejected = outputs.logits.detach()[:, 0].float().chunk(2)  # (B,), (B,)
        step = self.state.global_step + 1
        if not math.isfinite(loss.item()):
            raise ModelError(
                "MODEL_006",
                f"The loss of optimizer step {step} is {loss.item()}",
                why="the rewards overflow, or an earlier step made the weights useless",
                fix="lower learning_rate, raise warmup_ratio, or train with dtype bfloat16 or float32",
            )
        num_pairs = len(chosen)
        self.sums.add(loss.item() * num_pairs, chosen - rejected, int(inputs["attention_mask"].sum()))
        share = loss * (num_pairs / (num_items_in_batch or num_pairs))
        return (share, outputs) if return_outputs else share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Figures since the last log: loss, accuracy and margin over pairs, tokens a second without padding."""
        # TRL would add means of batch means, with a tie as a loss.
        self._metrics["train"].clear()
        if "loss" in logs and self.sums.num_pairs:
            seconds_per_step = (time.monotonic() - self._began) / (self.state.global_step - self._first_step)
            logs.update(self.sums.figures())
            logs["eta_seconds"] = seconds_per_step * (self.state.max_steps - self.state.global_step)
            self.num_tokens += self.sums.num_tokens
            self.sums = _Sums()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the released model gets one, its resumable states need none."""


@dataclass
class _Sums:
    """Sums over the pairs since the last log."""

    num_pairs: int = 0
    num_tokens: int = 0
    loss: float = 0.0
    num_right: float = 0.0
    margin: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def add(self, loss: float, margins: torch.Tensor, num_tokens: int) -> None:
        self.num_pairs += len(margins)
        self.num_tokens += num_tokens
        self.loss += loss
        self.num_right += float((margins > 0).sum()) + 0.5 * float((margins == 0).sum())
        self.margin += float(margins.sum())

    def figures(self) -> dict[str, float]:
        """Loss, accuracy (a tie counts half) and margin of a pair; tokens a second."""
        sums = {"loss": self.loss, "accuracy": self.num_right, "margin": self.margin}
        means = {name: value / self.num_pairs for name, value in sums.items()}
        return {**means, "tokens_per_second": self.num_tokens / max(time.monotonic() - self.began, 1e-9)}


class _ReportCallback(TrainerCallback):
    """Hands every log to the reporter, and marks each saved state as complete."""

    def __init__(self, trainer: PairTrainer, reporter: Reporter) -> None:
        self._trainer, self._reporter = trainer, reporter

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Log after the last step too, which may lie between two logs."""
        control.should_log = control.should_log or state.global_step >= state.max_steps
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Tell the reporter."""
        if logs and "loss" in logs:
            self._reporter.metrics(state.global_step, {name: logs[name] for name in FIGURES if name in logs})
            self._reporter.progress(state.global_step, state.max_steps, "steps")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The state's files are written; nothing of it counts before this."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        training_state.mark_complete(folder, num_tokens=self._trainer.num_tokens + self._trainer.sums.num_tokens)


def build_config(options: dict[str, Any], *, device: torch.device) -> RewardConfig:
    """RewardConfig with nothing left to TRL's defaults that would decide a result or print."""
    config = RewardConfig(
        **options, use_cpu=device.type == "cpu", max_length=None, disable_dropout=True, dataloader_drop_last=False,
        remove_unused_columns=False, dataloader_pin_memory=device.type == "cuda", eval_strategy="no",
        logging_strategy="steps", logging_nan_inf_filter=False, save_strategy="steps", save_total_limit=2,
        report_to="none", disable_tqdm=True, log_level="error", push_to_hub=False,
    )  # fmt: skip
    # With several GPUs visible, transformers would wrap the model in DataParallel, which TRL refuses.
    config._n_gpu = min(config.n_gpu, 1)
    return config
