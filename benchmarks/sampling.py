"""Subjects that sample: two responses a prompt from the same policy, in the product and with transformers' `generate`."""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from benchmarks.checkpoints import build_tokenizer, words
from benchmarks.measure import Cost, Stopwatch
from benchmarks.workloads import EOS
from rm_assets.backends.torch.sampler import TorchSampler
from rm_assets.core.protocols import QuietReporter, SampleRequest
from rm_assets.core.recipe import ExecutionSection, ModelRef

PROMPTS_PER_BATCH = 32
RESPONSES_PER_PROMPT = 2
MAX_NEW_TOKENS = 256
GREEDY_PROMPTS, GREEDY_TOKENS = 8, 32
"""What is compared token by token, as sampled tokens come of different random numbers."""


@dataclass(frozen=True)
class Sampled:
    """What one pass over all prompts took, the responses' lengths (end token included), and greedy responses."""

    cost: Cost
    lengths: list[int]
    greedy: list[str]


class _Subject(ABC):
    def __init__(self, prompts: list[list[int]], checkpoint: Path, device: str, dtype: str) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        warnings.simplefilter("ignore")
        self._prompts = [words(prompt) for prompt in prompts]
        self.load(checkpoint, device, dtype)

    def run(self, *, round_number: int = 0) -> Sampled:
        """One pass over all prompts; the greedy responses, which also warm up, in the first round."""
        greedy = self.greedy(self._prompts[:GREEDY_PROMPTS]) if round_number == 0 else []
        watch = Stopwatch()
        lengths = self.lengths(self._prompts, round_number)
        return Sampled(watch.cost(), lengths, greedy)

    @abstractmethod
    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """Once, untimed."""

    @abstractmethod
    def greedy(self, prompts: list[str]) -> list[str]:
        """The most probable responses."""

    @abstractmethod
    def lengths(self, prompts: list[str], seed: int) -> list[int]:
        """Tokens of the sampled responses, prompt by prompt."""


class Product(_Subject):
    """`TorchSampler` as the sampled_responses task calls it, with its default token budget."""

    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """Both samplers, as greedy decoding is a setting."""

        def sampler(temperature: float, max_new_tokens: int) -> TorchSampler:
            return TorchSampler(
                ModelRef(path=str(checkpoint)), temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens,
                dtype=dtype, device=torch.device(device), token_budget=ExecutionSection().forward_tokens("sampling", on_cpu=device == "cpu"),
                reporter=QuietReporter(),
            )  # fmt: skip

        self._sampler, self._greedy = sampler(1.0, MAX_NEW_TOKENS), sampler(0.0, GREEDY_TOKENS)

    def greedy(self, prompts: list[str]) -> list[str]:
        """Through the public method."""
        return [sample.response for sample in self._greedy.sample(_requests(prompts, (0,)))]

    def lengths(self, prompts: list[str], seed: int) -> list[int]:
        """Through the public method, which also makes the texts."""
        seeds = tuple(seed * RESPONSES_PER_PROMPT + i for i in range(RESPONSES_PER_PROMPT))
        return [sample.num_tokens for sample in self._sampler.sample(_requests(prompts, seeds))]


class Generate(_Subject):
    """`generate` on batches of 32 prompts padded on the left, in the order given."""

    def load(self, checkpoint: Path, device: str, dtype: Any) -> None:
        """Model and tokenizer."""
        self._tokenizer = build_tokenizer()
        self._model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
        self._model.to(device).eval()

    def greedy(self, prompts: list[str]) -> list[str]:
        """Without sampling."""
        new = self._generate(prompts, do_sample=False, max_new_tokens=GREEDY_TOKENS)
        return list(self._tokenizer.batch_decode(new, skip_special_tokens=True))

    def lengths(self, prompts: list[str], seed: int) -> list[int]:
        """From the unfiltered distribution, as the product samples; the texts are made too."""
        torch.manual_seed(seed)
        lengths: list[int] = []
        for start in range(0, len(prompts), PROMPTS_PER_BATCH):
            new = self._generate(
                prompts[start : start + PROMPTS_PER_BATCH], do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                num_return_sequences=RESPONSES_PER_PROMPT, max_new_tokens=MAX_NEW_TOKENS,
            )  # fmt: skip
            self._tokenizer.batch_decode(new, skip_special_tokens=True)
            # What follows the first end token is padding.
            ended = (new == EOS).int()
            lengths += torch.where(ended.any(1), ended.argmax(1) + 1, new.shape[1]).tolist()
        return lengths

    def _generate(self, prompts: list[str], **options: Any) -> torch.Tensor:
        """(R, T) new tokens."""
        texts = self._tokenizer.apply_chat_template([_messages(prompt) for prompt in prompts], tokenize=False)
        batch = self._tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        ).to(self._model.device)
        output: torch.Tensor = self._model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options
        )
        return output[:, batch["input_ids"].shape[1] :]


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _requests(prompts: list[str], seeds: tuple[int, ...]) -> list[SampleRequest]:
    """Seeds of their own for every prompt and sample."""
    return [
        SampleRequest(f"p{i}", _messages(prompt), tuple(seed + 1000 * i for seed in seeds))
        for i, prompt in enumerate(prompts)
    ]
