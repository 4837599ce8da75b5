"""Every comparison: its subjects, what must be equal between them, and the line of figures that comes of it."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import checkpoints, counting, sampling, scoring, training, workloads
from benchmarks.measure import Cost, gradient_difference, median_ratio
from benchmarks.workers import Workers, alternate

LARGEST_DIFFERENCE = {"float32": 1e-5, "bfloat16": 0.1}
"""Of gradients (relative) and of scores. bfloat16 has 3 digits, so there it only shows that the work is the same."""
STANDARD_ERRORS = 4.0
Line = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """What the product is compared with."""

    suffix: str
    make: Callable[..., Any]
    baseline: str
    pairs_per_batch: int = 0
    recomputes: bool = False


TRAINING_PEERS = (
    Peer("vs-trl-default", training.trl_as_it_comes, "TRL RewardTrainer, 16 pairs a batch, checkpointing", 16, True),
    Peer("vs-trl-tuned", training.trl_tuned, "TRL RewardTrainer, 2 pairs a batch, no checkpointing", 2),
)
SCORING_PEER = Peer("vs-plain", scoring.Plain, "plain loop, batches of 32 rows padded to the longest")
SAMPLING_PEER = Peer("vs-generate", sampling.Generate, "transformers generate, batches of 32 prompts")
ALL_NAMES = (
    *(f"train/{name}/{peer.suffix}" for name in workloads.NAMES for peer in TRAINING_PEERS),
    *(f"score/{name}/{SCORING_PEER.suffix}" for name in workloads.NAMES),
    f"sample/{SAMPLING_PEER.suffix}",
)


class NotEqualError(Exception):
    """Product and peer did not compute the same thing, so their times cannot be compared."""


@dataclass(frozen=True)
class Suite:
    """One run on one device with one shape of model."""

    shape: str
    device: str
    dtype: str
    num_threads: int
    rounds: int | None
    folder: Path
    num_pairs: int = workloads.PAIRS_PER_STEP
    num_rows: int = workloads.SCORED_ROWS
    num_prompts: int = 64

    def lines(self, pattern: str) -> Iterator[Line]:
        """The lines whose names fit the pattern, in the order of `ALL_NAMES`."""
        wanted = selected(pattern)
        logging.disable_progress_bar()
        rewarding = checkpoints.save_classifier(self.shape, self.folder / "reward")
        for name in workloads.NAMES:
            peers = [peer for peer in TRAINING_PEERS if f"train/{name}/{peer.suffix}" in wanted]
            if peers:
                yield from self._train(name, peers, rewarding)
        for name in workloads.NAMES:
            if f"score/{name}/{SCORING_PEER.suffix}" in wanted:
                yield self._score(name, rewarding)
        if ALL_NAMES[-1] in wanted:
            yield self._sample()

    def _train(self, name: str, peers: Sequence[Peer], checkpoint: Path) -> Iterator[Line]:
        work = self._load(name)
        args = work, checkpoint, self.device, self.dtype
        made = {"product": (training.Product, *args), **{peer.suffix: (peer.make, *args) for peer in peers}}
        gradients = {key: self.folder / f"{key}.safetensors" for key in made}
        with Workers(made, device=self.device, num_threads=self.num_threads) as workers:
            # Steps with TRL take long; each of them is many seconds, over which noise evens out.
            costs = alternate(workers, self.rounds or 2, {key: {"gradients": file} for key, file in gradients.items()})
            peaks = {key: worker.peak_bytes() for key, worker in workers.items()}
        for peer in peers:
            difference = gradient_difference(gradients["product"], gradients[peer.suffix])
            self._require(difference, f"gradients of train/{name}", peer)
            padding = counting.training_ratio(work, peer.pairs_per_batch)
            yield {
                "name": f"train/{name}/{peer.suffix}",
                **self._ratios(costs["product"], costs[peer.suffix]),
                "baseline": peer.baseline,
                "unit": f"seconds per optimizer step of {len(work.pairs)} pairs",
                "equal_to": f"the gradients of the step, within {difference:.1e} (relative L2)",
                "counted": padding * (counting.RECOMPUTE if peer.recomputes else 1),
                "counted_padding": padding,
                **_memory(peaks["product"], peaks[peer.suffix]),
                **self._conditions(),
            }

    def _score(self, name: str, checkpoint: Path) -> Line:
        items = self._load(name).scored_items
        args = items, checkpoint, self.device, self.dtype
        made = {"product": (scoring.Product, *args), "peer": (SCORING_PEER.make, *args)}
        with Workers(made, device=self.device, num_threads=self.num_threads) as workers:
            results = alternate(workers, self.rounds or 3)
            peaks = {key: worker.peak_bytes() for key, worker in workers.items()}
        ours, theirs = results["product"][0].rewards, results["peer"][0].rewards
        difference = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        self._require(difference, f"scores of score/{name}", SCORING_PEER)
        return {
            "name": f"score/{name}/{SCORING_PEER.suffix}",
            **self._ratios([r.cost for r in results["product"]], [r.cost for r in results["peer"]]),
            "baseline": SCORING_PEER.baseline,
            "unit": f"seconds per {len(ours)} conversations",
            "equal_to": f"all scores, within {difference:.1e} (their deviation is {statistics.pstdev(theirs):.2f})",
            "counted": counting.scoring_ratio(items, scoring.ROWS_PER_BATCH),
            **_memory(peaks["product"], peaks["peer"]),
            **self._conditions(),
        }

    def _sample(self) -> Line:
        # Which dtype a policy's weights have on disk changes nothing: both sides load it in theirs.
        checkpoint = checkpoints.save_policy(self.shape, self.folder / "policy")
        prompts = [item.prompt for item in workloads.synthetic("alpacafarm-like", self.num_prompts)]
        args = prompts, checkpoint, self.device, self.dtype
        made = {"product": (sampling.Product, *args), "peer": (SAMPLING_PEER.make, *args)}
        with Workers(made, device=self.device, num_threads=self.num_threads) as workers:
            results = alternate(workers, self.rounds or 3)
            peaks = {key: worker.peak_bytes() for key, worker in workers.items()}
        costs = {key: [r.cost.per(sum(r.lengths)) for r in rounds] for key, rounds in results.items()}
        lengths = {key: [length for r in rounds for length in r.lengths] for key, rounds in results.items()}
        return {
            "name": f"sample/{SAMPLING_PEER.suffix}",
            **self._ratios(costs["product"], costs["peer"]),
            "baseline": SAMPLING_PEER.baseline,
            "unit": "seconds per sampled token",
            "equal_to": self._same_samples(results["product"][0].greedy, results["peer"][0].greedy, lengths),
            "counted": counting.sampling_ratio(
                [len(prompt) for prompt in prompts], results["peer"][0].lengths, sampling.PROMPTS_PER_BATCH
            ),
            **_memory(peaks["product"], peaks["peer"]),
            **self._conditions(),
        }

    def _same_samples(self, ours: list[str], theirs: list[str], lengths: dict[str, list[int]]) -> str:
        """What holds of greedy responses and of the lengths of sampled ones. Raises: NotEqualError."""
        num_same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        if num_same < len(ours) and self.dtype == "float32":
            raise NotEqualError(f"only {num_same} of {len(ours)} greedy responses are those of generate")
        means = [statistics.fmean(values) for values in lengths.values()]
        error = sum(statistics.variance(values) / len(values) for values in lengths.values()) ** 0.5
        if abs(means[0] - means[1]) > STANDARD_ERRORS * error:
            raise NotEqualError(
                f"mean sampled lengths {means[0]:.1f} and {means[1]:.1f} differ, standard error {error:.1f}"
            )
        return (
            f"{num_same} of {len(ours)} greedy responses of {sampling.GREEDY_TOKENS} tokens; "
            f"mean sampled lengths {means[0]:.1f} and {means[1]:.1f} (standard error of the difference {error:.1f})"
        )

    def _require(self, difference: float, what: str, peer: Peer) -> None:
        if not difference <= LARGEST_DIFFERENCE[self.dtype]:
            raise NotEqualError(f"{what} differ by {difference:.2e} from those of: {peer.baseline}")

    def _load(self, name: str) -> workloads.Workload:
        return workloads.load(name, num_pairs=self.num_pairs, num_rows=self.num_rows)

    def _ratios(self, product: Sequence[Cost], peer: Sequence[Cost]) -> Line:
        """Medians over rounds. On a GPU the process's CPU only waits, so there wall time decides."""
        ratios = {
            kind: median_ratio([getattr(c, kind) for c in peer], [getattr(c, kind) for c in product])
            for kind in ("cpu", "wall")
        }
        seconds = {
            f"{side}_{kind}_seconds": statistics.median(getattr(c, kind) for c in costs)
            for side, costs in (("product", product), ("peer", peer))
            for kind in ("cpu", "wall")
        }
        ratio = ratios["wall" if self.device == "cuda" else "cpu"]
        return {
            "ratio": ratio, "ratio_cpu": ratios["cpu"], "ratio_wall": ratios["wall"], "n": len(product), **seconds
        }  # fmt: skip

    def _conditions(self) -> Line:
        return {
            "model": self.shape, "dtype": self.dtype,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu", "threads": self.num_threads,
        }  # fmt: skip


def selected(pattern: str) -> list[str]:
    """The names that a pattern with `*` fits, or that contain it."""
    return [name for name in ALL_NAMES if pattern in name or fnmatch(name, pattern)]


def _memory(product: int, peer: int) -> Line:
    return {"product_peak_mb": product / 2**20, "peer_peak_mb": peer / 2**20}
