"""TRL's RewardTrainer as an engine: pairs that are already token ids, in our order, each of the same weight.

It pads, and computes a prompt with each of its responses; it is kept as the reference that the native engine is held to.

Shapes: B pairs of a forward pass, T tokens. A batch is 2B rows: the chosen ones first, then the rejected ones.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from transformers import PrinterCallback, TrainerCallback, TrainerState
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rm_assets.backends import training_state
from rm_assets.backends.pair_store import PairStore
from rm_assets.backends.rendering import Encoded
from rm_assets.backends.step_control import require_finite
from rm_assets.backends.torch.checkpoints import load_base_for_reward
from rm_assets.backends.torch.fit import FitJob, Fitted, add_pairs
from rm_assets.backends.torch.reward_forward import right_padded
from rm_assets.backends.torch.step_profile import memory_figures
from rm_assets.backends.training_preparation import refuse_what_is_native_alone
from rm_assets.backends.training_progress import Sums
from rm_assets.core.planning.arithmetic import num_pairs_per_forward
from rm_assets.core.protocols import Reporter
from rm_assets.core.training_order import epoch_order

FIGURES = ("loss", "accuracy", "margin", "grad_norm", "learning_rate", "tokens_per_second", "eta_seconds")


TOKENS_FILE = "num_tokens.json"


def fit(job: FitJob) -> Fitted:
    """Trains to the last step. Raises: RecipeError RECIPE_003 for what only the native engine carries out."""
    settings, execution, plan = job.settings, job.execution, job.plan
    refuse_what_is_native_alone(execution, by="engine trl", instead="training.engine to native")
    model = load_base_for_reward(settings.base, seed=job.seed, device=job.device, tokenizer=job.renderer.tokenizer)
    pairs_per_forward = num_pairs_per_forward(settings.pairs_per_step, execution.pairs_per_forward)
    options: dict[str, Any] = {
        "output_dir": str(job.work), "seed": job.seed, "max_steps": plan.num_optimizer_steps,
        "per_device_train_batch_size": pairs_per_forward,
        "gradient_accumulation_steps": settings.pairs_per_step // pairs_per_forward,
        "learning_rate": settings.learning_rate, "warmup_steps": plan.num_warmup_steps,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "weight_decay": settings.weight_decay, "max_grad_norm": settings.max_grad_norm,
        "center_rewards_coefficient": settings.centering or None,
        "bf16": settings.dtype == "bfloat16", "fp16": settings.dtype == "float16",
        "activation_checkpointing": execution.gradient_checkpointing == "always",
        "logging_steps": plan.log_every, "save_steps": execution.save_every_steps,
    }  # fmt: skip
    trainer = PairTrainer(
        model=model,
        args=build_config(options, device=job.device),
        dataset=as_dataset(job.store),
        collator=PairCollator(int(job.renderer.tokenizer.pad_token_id)),
        processing_class=job.renderer.tokenizer,
        reporter=job.reporter,
        order=EpochOrder(job),
    )
    trainer.fit(job.state)
    # Every pair is computed on both sides: nothing is shared.
    return Fitted(model, plan.num_optimizer_steps, trainer.num_tokens, trainer.num_tokens, trainer.history())


class EpochOrder(torch.utils.data.Sampler[int]):
    """The pairs of an epoch in the order that every engine trains on them."""

    def __init__(self, job: FitJob) -> None:
        self._job, self._epoch = job, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._job.store)

    def __iter__(self) -> Iterator[int]:
        job = self._job
        order = epoch_order(job.store.prompt, seed=job.seed, epoch=self._epoch, shuffle=job.settings.shuffle)
        return iter(order.tolist())


@dataclass(frozen=True)
class PairCollator:
    """Rows of the dataset to a batch; keeps token types, which TRL's own collator drops."""

    pad_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sides = [(row, side) for side in ("chosen", "rejected") for row in rows]
        return right_padded([Encoded(row[f"{s}_ids"], row.get(f"{s}_type_ids")) for row, s in sides], self.pad_id)


def as_dataset(store: PairStore) -> Dataset:
    """The columns that make TRL neither tokenize nor filter, and token types where there are any."""
    columns: dict[str, list[Any]] = {}
    index = store.index(range(len(store)))
    for place, side in enumerate(("chosen", "rejected")):
        rows = list(
            store.rows(zip(index["starts"][:, place].tolist(), index["lengths"][:, place].tolist(), strict=True))
        )
        columns[f"{side}_ids"] = [row.ids for row in rows]
        if store.has_type_ids:
            columns[f"{side}_type_ids"] = [row.type_ids for row in rows]
    return Dataset.from_dict(columns, features=Features({column: List(Value("int32")) for column in columns}))


class PairTrainer(RewardTrainer):
    """RewardTrainer whose loss is the mean over the pairs of an optimizer step, also in a last, partial step."""

    loss_is_scaled_for_ga = True

    def __init__(
        self, *, dataset: Dataset, collator: PairCollator, reporter: Reporter, order: EpochOrder, **options: Any
    ) -> None:
        self._order = order
        super().__init__(train_dataset=dataset, data_collator=collator, **options)
        self.remove_callback(PrinterCallback)
        self.add_callback(_ReportCallback(self, reporter))
        self.num_tokens = 0
        self.sums = Sums()
        self._first_step, self._began = 0, time.monotonic()

    def fit(self, resumed: training_state.State | None) -> None:
        """Train to the last step, from the beginning or from a state."""
        if resumed is not None:
            self.num_tokens = json.loads((resumed.folder / TOKENS_FILE).read_text("utf-8"))
            self._first_step = resumed.step
        self._began, self._began_tokens = time.monotonic(), self.num_tokens
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

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> EpochOrder:
        return self._order

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
        require_finite("loss", self.state.global_step + 1, loss.item())
        num_pairs = len(chosen)
        add_pairs(self.sums, loss.detach().expand(num_pairs), torch.stack([chosen, rejected], 1))
        self.num_tokens += int(inputs["attention_mask"].sum())
        share = loss * (num_pairs / (num_items_in_batch or num_pairs))
        return (share, outputs) if return_outputs else share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Figures since the last log: loss, accuracy and margin over pairs, tokens a second without padding."""
        # TRL would add means of batch means, with a tie as a loss.
        self._metrics["train"].clear()
        if "loss" in logs and self.sums.num_pairs:
            seconds = max(time.monotonic() - self._began, 1e-9)
            num_steps = self.state.global_step - self._first_step
            logs.update(self.sums.figures())
            logs["tokens_per_second"] = (self.num_tokens - self._began_tokens) / seconds
            logs["eta_seconds"] = seconds / num_steps * (self.state.max_steps - self.state.global_step)
            self.sums = Sums()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the released model gets one, its resumable states need none."""


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
            figures = {name: logs[name] for name in FIGURES if name in logs}
            self._reporter.metrics(state.global_step, figures | memory_figures(args.device))
            self._reporter.progress(state.global_step, state.max_steps, "steps")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The state's files are written; nothing of it counts before this."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / TOKENS_FILE).write_text(json.dumps(self._trainer.num_tokens), "utf-8")
        training_state.mark_complete(folder)


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
