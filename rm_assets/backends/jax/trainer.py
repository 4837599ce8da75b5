"""Training of a reward model in JAX: pairs to token ids, the loop, validation, and the checkpoint.

Imports of JAX are inside the functions: naming the trainer costs nothing.
"""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rm_assets.core.protocols import Reporter, TrainingResult
from rm_assets.core.recipe import ExecutionSection, TrainingSection
from rm_assets.core.records import Pair

if TYPE_CHECKING:
    from rm_assets.backends.jax.training_loop import Job, TrainingLoop

STATE_PACKAGES = ("jax", "optax", "transformers")
"""Packages of which another version may continue a training differently, or name its weights differently."""


class JaxTrainer:
    """Pairs to a reward model with JAX."""

    def train(
        self,
        pairs: Iterable[Pair],
        validation_pairs: Iterable[Pair],
        *,
        settings: TrainingSection,
        execution: ExecutionSection,
        seed: int,
        checkpoint: Path,
        work: Path,
        reporter: Reporter,
    ) -> TrainingResult:
        """Trains, resuming from `work` if it holds a state of this very training, and writes `checkpoint`.

        Raises: ModelError MODEL_001 to MODEL_006, MODEL_008 and MODEL_010, DataError DATA_005 if no pair is left, RecipeError
        RECIPE_003 for what JAX does not do and for devices that are not there.
        """
        from rm_assets.backends import tokenization, training_state
        from rm_assets.backends.jax.architecture import read_architecture
        from rm_assets.backends.jax.checkpoints import DTYPES, MASTER, load_parameters
        from rm_assets.backends.jax.devices import make_mesh, name_of, room_on
        from rm_assets.backends.jax.training_files import write_model
        from rm_assets.backends.jax.training_loop import Job, TrainingLoop
        from rm_assets.backends.room import require_room_to_train
        from rm_assets.backends.training_preparation import prepare, refuse_what_is_native_alone

        refuse_what_is_native_alone(execution, by="a training with JAX", instead="training.backend to torch")
        mesh = make_mesh(execution)
        config = tokenization.load_config(settings.base)
        architecture = read_architecture(settings.base, config)
        require_room_to_train(config, settings, room_on(mesh), reporter)
        ready = prepare(
            pairs, validation_pairs, settings=settings, seed=seed, work=work, reporter=reporter, packages=STATE_PACKAGES
        )
        reporter.training_begins(ready.plan.num_optimizer_steps, name_of(mesh))
        parameters = load_parameters(
            settings.base, ready.config, architecture, dtype=MASTER, mesh=mesh, head_seed=seed
        )  # fmt: skip
        job = Job(ready, settings, execution, seed, mesh, work, reporter, architecture)
        dtype = MASTER if settings.dtype == "float32" else DTYPES[settings.dtype]
        loop = TrainingLoop(job, parameters, dtype=dtype)
        loop.run()
        accuracy = loop.pair_figures()["accuracy"] if len(ready.validation) else None
        comparison = _compare_batches(job, loop)
        write_model(
            loop.parameters, architecture, ready.config, ready.renderer, checkpoint, work / training_state.WRITING
        )  # fmt: skip
        progress = loop.progress
        return TrainingResult(
            num_pairs=ready.store.counts,
            trained_pair_ids=ready.store.pair_ids(),
            num_optimizer_steps=progress.step,
            num_tokens=progress.num_tokens,
            num_pair_tokens=progress.num_pair_tokens,
            final_loss=progress.history[-1]["loss"],
            validation_accuracy=accuracy,
            batch_comparison=comparison,
            history=progress.history,
            facts=loop.facts,
        )


def _compare_batches(job: "Job", loop: "TrainingLoop") -> dict[str, float]:
    """Rewards of a few conversations two by two in shared rows, and each alone: they have to be the same."""
    from rm_assets.backends.jax import packed_rows

    rows = job.ready.store.compared_rows()

    def computed(groups: list[Any]) -> list[float]:
        found: dict[int, list[float]] = {}
        for batch in packed_rows.batches(groups, job.token_budget("training"), job.mesh.size):
            packed = packed_rows.pack(groups, batch, int(job.ready.renderer.tokenizer.pad_token_id))
            at_tokens = loop.rewards(packed.tokens).ravel()
            members = [place for row in batch.rows for place in row]
            found |= {place: at_tokens[ends].tolist() for place, ends in zip(members, packed.ends, strict=True)}
        return [reward for place in range(len(groups)) for reward in found[place]]

    together = computed([rows[place : place + 2] for place in range(0, len(rows), 2)])
    alone = [computed([[row]])[0] for row in rows]
    return {
        "conversations": len(rows),
        "largest_difference": max(abs(a - b) for a, b in zip(alone, together, strict=True)),
        "spread": statistics.pstdev(alone),
    }
