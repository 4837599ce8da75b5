"""What a training takes before it starts: optimizer steps, floating-point operations, bytes on the device, seconds.

Everything here is arithmetic on a recipe's numbers and a model's shape. Only time needs a measurement: a probe of a few
steps. docs/planning.md says in words what is estimated and what is measured.
"""

import math
from dataclasses import asdict, dataclass

from rm_assets.core.planning.model_shape import ModelShape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number."""
FLOAT32 = BYTES["float32"]
ADAMW_MOMENTS = 2


def num_optimizer_steps(num_pairs: int, pairs_per_step: int, num_epochs: float) -> int:
    """Steps of a training, at least one: a last, partial step of an epoch counts as a step.

    The same for reinforcement learning, with prompts in place of pairs.
    """
    # Rounded, as 1.1 * 10 is a little more than 11.
    return max(1, math.ceil(round(num_epochs * math.ceil(num_pairs / pairs_per_step), 9)))


def num_pairs_per_forward(pairs_per_step: int, most: int) -> int:
    """Pairs of one forward pass: the largest number up to `most` that divides an optimizer step evenly."""
    return next(size for size in range(min(most, pairs_per_step), 0, -1) if pairs_per_step % size == 0)


def num_warmup_steps(num_steps: int, warmup_ratio: float) -> int:
    """Steps of rising learning rate; the first of them has rate 0, so they are never all steps of a short training."""
    return min(round(warmup_ratio * num_steps), num_steps - 1)


def forward_flops(shape: ModelShape, *, num_tokens: int, row_length: int) -> int:
    """Floating-point operations to read `num_tokens` in rows of `row_length`: 2 N + 2 n_layer n_ctx d_attn a token.

    N leaves out the embedding table. An encoder, in which each token attends to all, has twice the attention term.
    Source: Kaplan et al. 2020, table 1 and equation 2.2; Hoffmann et al. 2022, appendix F, agrees but for embeddings.
    """
    attention = (4 if shape.family == "bert" else 2) * shape.num_layers * row_length * shape.attention_size
    return num_tokens * (2 * shape.num_non_embedding_parameters + attention)


def training_flops(shape: ModelShape, *, num_tokens: int, row_length: int, gradient_checkpointing: bool) -> int:
    """Forward once, backward twice that (Hoffmann et al. 2022, appendix F), and forward once more where it is recomputed."""
    passes = 4 if gradient_checkpointing else 3
    return passes * forward_flops(shape, num_tokens=num_tokens, row_length=row_length)


def sampling_flops(shape: ModelShape, *, num_new_tokens: int, row_length: int) -> int:
    """A forward pass for each new token, and the head over the vocabulary; reading the prompts is not in it."""
    head = 2 * shape.vocab_size * shape.hidden_size
    return forward_flops(shape, num_tokens=num_new_tokens, row_length=row_length) + num_new_tokens * head


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on the device at the fullest moment of a training step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All parts."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def sharded(self, num_processes: int) -> "TrainingMemory":
        """That of one process of several, which share weights, gradients and moments between them."""
        weights, gradients, optimizer = (
            math.ceil(part / num_processes) for part in (self.weights, self.gradients, self.optimizer)
        )
        return TrainingMemory(weights, gradients, optimizer, self.activations)

    def as_json(self) -> dict[str, int]:
        """The parts and their total."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes on the device while scoring or sampling."""

    weights: int
    activations: int
    kv_cache: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return self.weights + self.activations + self.kv_cache

    def as_json(self) -> dict[str, int]:
        """The parts and their total."""
        return {**asdict(self), "total": self.total}


def training_memory(
    shape: ModelShape,
    *,
    tokens_per_forward: int,
    activation_bytes: int,
    gradient_checkpointing: bool,
    trainable_parameters: int | None = None,
) -> TrainingMemory:
    """Weights, gradients, AdamW's two moments, and what the backward pass needs of one forward pass.

    Every weight trained: weights 4 N bytes, gradients 4 N, moments 8 N, in float32; with 2-byte activations, 2 more
    bytes for each non-embedding weight, for the copy that autocast keeps during the pass. With `trainable_parameters`
    (adapters): the frozen N in `activation_bytes` each, and 4 + 4 + 8 bytes for each trainable one.
    `tokens_per_forward` counts padding. Not in it: temporary buffers of kernels, the allocator's own waste, and the mask
    of padded rows (up to rows T^2 b in each layer) where the attention kernel takes one.
    """
    per_layer = layer_activation_bytes(shape, activation_bytes)
    last_norm = shape.hidden_size * (2 * FLOAT32 + activation_bytes)
    if gradient_checkpointing:
        per_token = shape.num_layers * shape.hidden_size * FLOAT32 + per_layer + last_norm
    else:
        per_token = shape.num_layers * per_layer + last_norm
    num_trained = shape.num_parameters if trainable_parameters is None else trainable_parameters
    if trainable_parameters is not None:
        weights = shape.num_parameters * activation_bytes + num_trained * FLOAT32
    else:
        copies = shape.num_non_embedding_parameters * activation_bytes if activation_bytes < FLOAT32 else 0
        weights = shape.num_parameters * FLOAT32 + copies
    return TrainingMemory(
        weights=weights,
        gradients=num_trained * FLOAT32,
        optimizer=num_trained * FLOAT32 * ADAMW_MOMENTS,
        activations=tokens_per_forward * per_token,
    )


def layer_activation_bytes(shape: ModelShape, activation_bytes: int) -> int:
    """Bytes that one layer keeps of one token for its backward pass, with fused attention (nothing grows with T^2).

    Terms of a decoder layer, b = `activation_bytes`, H hidden, A queries, K keys, F inner width:
    two norms, each input and normalised value in float32 and output:  2 H (4 + 4 + b)
    queries, keys (repeated for each query head), values, attention's output:  4 A b
    Qwen3's norms of queries and keys, input in float32 and normalised value:  (A + K) (4 + b)
    gated MLP, its gate before and after the activation, its other half, their product:  4 F b
    An encoder layer: two layer norms 2 H (4 + b), attention 4 A b, MLP before and after the activation 2 F b.
    """
    b, hidden, inner, attention = activation_bytes, shape.hidden_size, shape.intermediate_size, shape.attention_size
    if shape.family == "bert":
        return 2 * hidden * (FLOAT32 + b) + 4 * attention * b + 2 * inner * b
    norms = 2 * hidden * (2 * FLOAT32 + b)
    if shape.family == "qwen3":
        norms += (attention + shape.kv_size) * (FLOAT32 + b)
    return norms + 4 * attention * b + 4 * inner * b


def scoring_memory(shape: ModelShape, *, tokens_per_forward: int, weight_bytes: int) -> InferenceMemory:
    """Weights and the largest set of activations alive at once without a backward pass.

    Per token: the residual stream and its norm in float32 (8 H), a layer's input (H), and the wider of attention (queries
    before and after rotation, keys, values and output, 5 A) and MLP (gate, other half, product, 3 F) in `weight_bytes`.
    """
    widest = max(5 * shape.attention_size, 3 * shape.intermediate_size)
    per_token = 2 * FLOAT32 * shape.hidden_size + weight_bytes * (shape.hidden_size + widest)
    return InferenceMemory(shape.num_parameters * weight_bytes, tokens_per_forward * per_token)


def sampling_memory(
    shape: ModelShape, *, tokens_per_forward: int, cached_tokens: int, weight_bytes: int
) -> InferenceMemory:
    """As `scoring_memory`, with the head over the vocabulary, and keys and values of `cached_tokens` in every layer."""
    scoring = scoring_memory(shape, tokens_per_forward=tokens_per_forward, weight_bytes=weight_bytes)
    cache = 2 * shape.num_layers * shape.kv_size * weight_bytes * cached_tokens
    return InferenceMemory(shape.num_policy_parameters * weight_bytes, scoring.activations, cache)


@dataclass(frozen=True)
class Probe:
    """What a few real optimizer steps took, and on which device (a name of the price table, or any other).

    `seconds_before` is what came before the first step: libraries, tokens of a few pairs, the model.
    """

    seconds_per_step: float
    device: str
    peak_bytes: int | None = None
    seconds_before: float = 0.0


def probed_seconds(probe: Probe, num_steps: int, num_forward_steps: float, *, gradient_checkpointing: bool) -> float:
    """Seconds of a whole training from those of one step; saving comes on top.

    `num_forward_steps` are the steps that validation comes to, in pairs; they have the forward pass alone, a third of a
    step (a fourth, where it is computed twice).
    """
    passes = 4 if gradient_checkpointing else 3
    return probe.seconds_before + probe.seconds_per_step * (num_steps + num_forward_steps / passes)
