"""Sample responses from a causal language model.

Each prompt is read once and its key-value cache repeated for its samples; finished rows leave the batch every few
tokens. The random numbers of a sample depend on its seed alone, so its text does not depend on the company it is
computed in, up to the rounding of the logits.

Shapes: P prompts, R rows (samples), T tokens, V vocabulary.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rm_assets.backends.rendering import excerpt
from rm_assets.backends.room import require_room_for_weights
from rm_assets.backends.token_budget import TokenBudget
from rm_assets.backends.tokenization import context_length, load_config, load_renderer
from rm_assets.backends.torch.checkpoints import identity, load_policy
from rm_assets.backends.torch.kv_cache import growing_cache
from rm_assets.backends.torch.memory import room_on
from rm_assets.core.errors import ModelError
from rm_assets.core.protocols import Reporter, Sample, SampleRequest
from rm_assets.core.recipe import Dtype, ModelRef

DROP_EVERY = 8
"""Tokens between two looks at which rows are finished: dropping rows copies the cache."""
CACHE_POSITIONS_PER_BUDGET = 4
"""Positions that the cache of a group may hold, in token budgets. One token a row is computed at a time, so the cache
and not the forward pass limits the rows."""
UNIFORM_BLOCK = 256
"""Random numbers drawn at a time for a row."""
SAMPLING_ELEMENTS = 2**23
"""Probabilities held at a time while tokens are drawn."""


@dataclass(frozen=True)
class Row:
    """One sample to be drawn: which request, which of its seeds."""

    request: int
    index: int
    seed: int


@dataclass(frozen=True)
class Group:
    """Rows that are sampled together, and the distinct prompts they start from."""

    prompts: list[list[int]]
    rows: list[Row]
    prompt_of_row: list[int]


class TorchSampler:
    """Prompts to responses with a transformers causal language model."""

    def __init__(
        self,
        policy: ModelRef,
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        dtype: Dtype,
        device: torch.device,
        token_budget: int,
        reporter: Reporter,
    ) -> None:
        self._renderer = load_renderer(policy)
        self._tokenizer = self._renderer.tokenizer
        require_room_for_weights(load_config(policy), policy.location, dtype, room_on(device), reporter, is_policy=True)
        self._model = load_policy(policy, dtype, device)
        self._temperature, self._top_p, self._max_new_tokens = temperature, top_p, max_new_tokens
        self._dtype, self._device, self._reporter = dtype, device, reporter
        self._budget = TokenBudget(token_budget, reporter)
        self._context = context_length(self._model.config, self._tokenizer)
        self._eos_ids = _end_ids(self._model, self._tokenizer.eos_token_id)
        takes_logits_to_keep = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._prefill_options: dict[str, Any] = {"logits_to_keep": 1} if takes_logits_to_keep else {}
        self.num_tokens_forwarded = 0
        """Tokens that the policy has computed so far, padding included; a prompt is computed once for all its samples."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a response besides prompt, seed, sampling parameters and weights."""
        return {
            **identity(self._model.config, self._renderer, self._dtype, self._device),
            "random_numbers": "philox-inverse-cdf-1",
        }

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sample]:
        """Responses to all requests, in the order of requests and their seeds.

        Raises: ModelError MODEL_005 for a prompt that leaves no room for a response.
        """
        prompts = self._renderer.encode_prompts([request.messages for request in requests])
        self._require_room(requests, prompts)
        num_rows = sum(len(request.seeds) for request in requests)
        places = [(position, index) for position, request in enumerate(requests) for index in range(len(request.seeds))]
        results: dict[tuple[int, int], Sample] = {}

        def draw_all(token_budget: int) -> None:
            left = {position for position, index in places if (position, index) not in results}
            for group in self._groups(requests, prompts, left, token_budget):
                for row, tokens in zip(group.rows, self._sample_group(group), strict=True):
                    results[row.request, row.index] = self._finish(requests[row.request].prompt_id, row.index, tokens)
                self._reporter.progress(len(results), num_rows, "responses")

        self._budget.spend(draw_all)
        return [results[place] for place in places]

    @property
    def facts(self) -> dict[str, int]:
        """The token budget, where it was halved."""
        return self._budget.facts

    def _require_room(self, requests: Sequence[SampleRequest], prompts: list[list[int]]) -> None:
        for request, prompt in zip(requests, prompts, strict=True):
            if self._context is not None and len(prompt) >= self._context:
                raise ModelError(
                    "MODEL_005",
                    f"The prompt {request.prompt_id} {excerpt(request.messages)} has {len(prompt)} tokens",
                    why=f"the policy reads at most {self._context} tokens, so no room is left for a response",
                    fix="leave such prompts out, or take a policy with a longer context",
                )

    def _groups(
        self, requests: Sequence[SampleRequest], prompts: list[list[int]], wanted: Iterable[int], token_budget: int
    ) -> Iterator[Group]:
        """The `wanted` prompts, those of similar length together, as many as the token budget allows."""
        prompt_ids: list[list[int]] = []
        rows: list[Row] = []
        prompt_of_row: list[int] = []
        for position in sorted(sorted(wanted), key=lambda position: len(prompts[position])):
            length = len(prompts[position])
            most_rows = max(1, CACHE_POSITIONS_PER_BUDGET * token_budget // (length + self._max_new_tokens))
            most_prompts = max(1, token_budget // length)
            seeds = requests[position].seeds
            for start in range(0, len(seeds), most_rows):
                part = seeds[start : start + most_rows]
                if rows and (len(rows) + len(part) > most_rows or len(prompt_ids) >= most_prompts):
                    yield Group(prompt_ids, rows, prompt_of_row)
                    prompt_ids, rows, prompt_of_row = [], [], []
                rows += [Row(position, start + offset, seed) for offset, seed in enumerate(part)]
                prompt_of_row += [len(prompt_ids)] * len(part)
                prompt_ids.append(prompts[position])
        if rows:
            yield Group(prompt_ids, rows, prompt_of_row)

    @torch.inference_mode()
    def _sample_group(self, group: Group) -> list[list[int]]:
        """The new tokens of each row, its end token included if it has one."""
        model, device = self._model, self._device
        longest = max(map(len, group.prompts))
        input_ids, mask = _left_padded(group.prompts, longest, self._tokenizer.pad_token_id or 0, device)  # (P, T)
        position_ids = (mask.cumsum(1) - 1).clamp(min=0)  # (P, T)
        cache = growing_cache(model.config)
        self.num_tokens_forwarded += input_ids.numel()
        logits = model(
            input_ids=input_ids, attention_mask=mask, position_ids=position_ids, past_key_values=cache,
            use_cache=True, **self._prefill_options,
        ).logits[:, -1]  # (P, V)  # fmt: skip
        source = torch.tensor(group.prompt_of_row, device=device)  # (R,)
        cache.batch_select_indices(source)
        logits, lengths = logits[source], mask.sum(1)[source]  # (R, V), (R,)
        mask = torch.cat([mask[source], mask.new_ones(len(source), self._max_new_tokens)], 1)  # (R, T)
        limits = torch.full_like(lengths, self._max_new_tokens)  # (R,)
        if self._context is not None:
            limits = limits.clamp(max=self._context - lengths)
        new_tokens = torch.full((len(source), self._max_new_tokens), -1, device=device)  # (R, T)
        seeds = np.array([row.seed for row in group.rows], dtype=np.uint64)
        members = torch.arange(len(source), device=device)  # (R,) places of the rows that are still computed
        is_done = torch.zeros(len(source), dtype=torch.bool, device=device)  # (R,)
        is_broken = torch.zeros((), dtype=torch.bool, device=device)  # kept on the device: no wait for each token
        last = int(limits.max())
        for step in range(last):
            if step % UNIFORM_BLOCK == 0 and self._temperature > 0:
                block = uniforms(seeds[members.cpu().numpy()], step // UNIFORM_BLOCK)
                block_of_rows = torch.from_numpy(block).to(device)  # (R, UNIFORM_BLOCK)
            uniform = block_of_rows[:, step % UNIFORM_BLOCK] if self._temperature > 0 else None  # (R,)
            is_broken |= (logits.isnan() | logits.isposinf()).any() | logits.isneginf().all(-1).any()
            tokens = draw(logits, uniform, self._temperature, self._top_p)  # (R,)
            new_tokens[members, step] = tokens
            is_done |= torch.isin(tokens, self._eos_ids) | (limits <= step + 1)
            if step + 1 == last:
                break
            if step % DROP_EVERY == DROP_EVERY - 1:
                kept = (~is_done).nonzero()[:, 0]  # (R,)
                if len(kept) == 0:
                    break
                # Dropping copies the whole cache, so a few rows are not worth it.
                if len(kept) < 0.9 * len(is_done):
                    cache.batch_select_indices(kept)
                    tokens, mask, lengths, limits = tokens[kept], mask[kept], lengths[kept], limits[kept]
                    members, is_done = members[kept], is_done[kept]
                    if self._temperature > 0:
                        block_of_rows = block_of_rows[kept]
            # Rows beyond their limit are computed until they are dropped; they must not leave the context.
            positions = torch.minimum(lengths + step, lengths + limits - 1)  # (R,)
            self.num_tokens_forwarded += len(tokens)
            logits = model(
                input_ids=tokens[:, None], attention_mask=mask[:, : longest + step + 1],
                position_ids=positions[:, None], past_key_values=cache, use_cache=True,
            ).logits[:, -1]  # (R, V)  # fmt: skip
        if bool(is_broken):
            raise ModelError(
                "MODEL_006",
                "The policy gave logits that are not finite",
                why="weights or activations overflow, often in float16",
                fix="set sampling.dtype to bfloat16 or float32; if it is float32 already, the checkpoint is damaged",
            )
        return self._cut(new_tokens, [len(group.prompts[prompt]) for prompt in group.prompt_of_row])

    def _cut(self, new_tokens: torch.Tensor, prompt_lengths: list[int]) -> list[list[int]]:
        """Each row up to and with its first end token, or up to its limit."""
        is_end = torch.isin(new_tokens, self._eos_ids).cpu()  # (R, T)
        has_end = is_end.any(1).tolist()
        first_end = is_end.int().argmax(1).tolist()
        cut = []
        for row, prompt_length in enumerate(prompt_lengths):
            limit = self._max_new_tokens
            if self._context is not None:
                limit = min(limit, self._context - prompt_length)
            cut.append(first_end[row] + 1 if has_end[row] and first_end[row] < limit else limit)
        return [tokens[:length] for tokens, length in zip(new_tokens.tolist(), cut, strict=True)]

    def _finish(self, prompt_id: str, index: int, tokens: list[int]) -> Sample:
        finished = tokens[-1] in self._eos_ids
        text = self._tokenizer.decode(
            tokens[:-1] if finished else tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Sample(prompt_id=prompt_id, index=index, response=str(text), num_tokens=len(tokens), finished=finished)


def uniforms(seeds: np.ndarray[Any, np.dtype[np.uint64]], block: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(R, UNIFORM_BLOCK) numbers in [0, 1): the block-th block of each seed's own stream."""
    rows = [np.random.Generator(np.random.Philox(key=np.array([seed, block], dtype=np.uint64))) for seed in seeds]
    return np.stack([row.random(UNIFORM_BLOCK) for row in rows])


def draw(logits: torch.Tensor, uniform: torch.Tensor | None, temperature: float, top_p: float) -> torch.Tensor:
    """(R,) tokens from (R, V) logits, by inverting the distribution function at `uniform`; greedy at temperature 0."""
    if temperature == 0 or uniform is None:
        return logits.argmax(-1)
    num_rows = max(1, SAMPLING_ELEMENTS // logits.shape[-1])
    parts = zip(torch.split(logits, num_rows), torch.split(uniform, num_rows), strict=True)
    return torch.cat([_draw(part, numbers, temperature, top_p) for part, numbers in parts])


def _draw(logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    probabilities = (logits.float() / temperature).softmax(-1)  # (R, V)
    if top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)  # (R, V)
        # A token belongs to the nucleus if the tokens before it do not make up top_p yet.
        is_outside = (ordered.cumsum(-1) - ordered) >= top_p  # (R, V)
        probabilities = probabilities.masked_fill(is_outside.gather(-1, order.argsort(-1)), 0.0)
    # A sum over a large vocabulary needs more than float32; Apple GPUs have nothing else.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = probabilities.to(wide).cumsum(-1)  # (R, V)
    target = uniform.to(wide)[:, None] * cumulative[:, -1:]  # (R, 1)
    tokens = torch.searchsorted(cumulative, target, right=True)[:, 0]  # (R,)
    # Rounding can put the target on the total; the last token with any probability is meant then.
    last = cumulative.argmax(-1)  # (R,) first place that reaches the total
    return torch.minimum(tokens, last)


def _left_padded(
    prompts: list[list[int]], length: int, pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    input_ids = [[pad_id] * (length - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(input_ids, device=device), torch.tensor(mask, device=device)  # (P, T), (P, T)


def _end_ids(model: Any, tokenizer_end: int | None) -> torch.Tensor:
    """(E,) every token that ends a response: those of the generation settings and the tokenizer's end token."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer_end} | set(named if isinstance(named, list) else [named])
    return torch.tensor(sorted(i for i in ids if i is not None), dtype=torch.long, device=model.device)
