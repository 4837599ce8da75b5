"""Make the policy of the `embedded` recipe: a causal LM of 0.8M parameters that answers orders and checks answers.

Pre-training gives it what a real corpus gives a real model: answers, some of them wrong, and remarks on
answers. After the end of an answer comes one verdict token ("right", or the kind of a fault), so the hidden
state at the end of a response, where a reward model reads its score, knows what is wrong with it.

    python -m rm_assets.embedded.pretrain OUT_FOLDER [--steps N]
"""

import argparse
import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rm_assets.embedded.task import FAULTS, RIGHT, PretrainingExample, pretraining_examples

# Shapes: B examples, T tokens, D hidden width, V vocabulary, F verdicts.

PAD, EOS = "<|pad|>", "<|eos|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VERDICTS = tuple(f"<|{verdict}|>" for verdict in (RIGHT, *FAULTS))
VOCABULARY_SIZE = 512
MAX_LENGTH = 2048

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- if message['content'] -%}{{- '<|system|>' + message['content'] -}}{%- endif -%}
{%- elif message['role'] == 'user' -%}
{{- '<|user|>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '<|assistant|>' + message['content'] + '<|eos|>' -}}
{%- else -%}
{{- raise_exception('unknown role ' + message['role'] + ': use system, user or assistant') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One run of the optimizer from warm-up to a learning rate of zero."""

    num_steps: int
    """Optimizer steps."""
    learning_rate: float
    """Peak of the cosine schedule."""
    answer_loss_weight: float
    """Weight of the mean loss of an answer token; one verdict weighs 1."""
    seed: int
    """Of the stream of examples."""
    batch_size: int = 32
    """Examples in one optimizer step."""
    num_warmup_steps: int = 200
    """Optimizer steps of linear warm-up."""


# The first phase learns what to do; the second makes the copies sure (an unsure copy is no human mistake) and lets
# the checks, which are harder by far, converge.
PHASES = (
    Phase(num_steps=7000, learning_rate=2e-3, answer_loss_weight=1.0, seed=0),
    Phase(num_steps=4500, learning_rate=1.5e-3, answer_loss_weight=3.0, seed=1),
)
SEED = 0


@dataclass(frozen=True)
class Batch:
    """One optimizer step's examples, padded on the right to the longest."""

    input_ids: torch.Tensor
    """(B, T)"""
    is_answer: torch.Tensor
    """(B, T) true where the next token belongs to an answer that is to be learnt"""
    end: torch.Tensor
    """(B,) position of the response's end token"""
    verdict: torch.Tensor
    """(B, F) share of each verdict that would be right to give"""


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE, one token per digit, and attach the chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, EOS, *ROLES, *VERDICTS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    examples = islice(pretraining_examples(seed), 5000)
    bpe.train_from_iterator((f"{example.prompt}\n{example.response}" for example in examples), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The untrained policy."""
    config = Qwen3Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, phase: Phase) -> Iterator[Batch]:
    """Yield batches without end; each holds examples of similar length, which saves a quarter of the padding."""
    examples = pretraining_examples(phase.seed)
    order = random.Random(f"batch order {phase.seed}")
    while True:
        window = list(islice(examples, 32 * phase.batch_size))
        texts = [render(tokenizer, example) for example in window]
        encoded = sorted(
            zip(tokenizer(texts).input_ids, range(len(window)), strict=True), key=lambda pair: len(pair[0])
        )
        starts = list(range(0, len(window), phase.batch_size))
        order.shuffle(starts)
        for start in starts:
            members = encoded[start : start + phase.batch_size]
            yield collate(tokenizer, [ids for ids, _ in members], [window[index] for _, index in members])


def render(tokenizer: PreTrainedTokenizerFast, example: PretrainingExample) -> str:
    """The example as the reward model will see it: the chat template's text, up to the end token."""
    messages = [
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.response},
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def collate(tokenizer: PreTrainedTokenizerFast, encoded: list[list[int]], examples: list[PretrainingExample]) -> Batch:
    """Pad token ids and mark what is to be learnt at each position."""
    width = max(map(len, encoded))
    input_ids = torch.full((len(encoded), width), int(tokenizer.pad_token_id))  # (B, T)
    is_answer = torch.zeros(input_ids.shape, dtype=torch.bool)  # (B, T)
    verdict = torch.zeros(len(encoded), len(VERDICTS))  # (B, F)
    assistant_id = token_ids(tokenizer, ["<|assistant|>"])[0]
    for row, (ids, example) in enumerate(zip(encoded, examples, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        is_answer[row, ids.index(assistant_id) : len(ids) - 1] = example.is_demonstration
        remarks = example.faults or (RIGHT,)
        for remark in remarks:
            verdict[row, VERDICTS.index(f"<|{remark}|>")] += 1 / len(remarks)
    end = torch.tensor([len(ids) - 1 for ids in encoded])  # (B,)
    return Batch(input_ids, is_answer, end, verdict)


def token_ids(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[int]:
    """The ids of tokens that are in the vocabulary."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def losses(
    model: Qwen3ForCausalLM, batch: Batch, verdict_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Answer loss, verdict loss and the share of responses rightly told right or faulty."""
    hidden = model.model(input_ids=batch.input_ids).last_hidden_state  # (B, T, D); padding is on the right
    targets = torch.roll(batch.input_ids, -1, dims=1)[batch.is_answer]  # (answer tokens,)
    answer_loss = functional.cross_entropy(model.lm_head(hidden[batch.is_answer]), targets)
    rows = torch.arange(len(batch.end))
    log_probs = model.lm_head(hidden[rows, batch.end]).log_softmax(-1)[:, verdict_ids]  # (B, F)
    verdict_loss = -(batch.verdict * log_probs).sum(-1).mean()
    called_right = log_probs[:, 0].detach().exp() > 0.5  # (B,)
    accuracy = (called_right == (batch.verdict[:, 0] == 1)).float().mean().item()
    return answer_loss, verdict_loss, accuracy


def learning_rate_share(step: int, phase: Phase) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / phase.num_warmup_steps)
    return warmup * 0.5 * (1 + math.cos(math.pi * step / phase.num_steps))


def run_phase(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, phase: Phase) -> None:
    """Train the model in place with a fresh optimizer."""
    verdict_ids = torch.tensor(token_ids(tokenizer, VERDICTS))  # (F,)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, phase))
    started, seen = time.monotonic(), [0.0, 0.0, 0.0]
    for step, batch in enumerate(islice(batches(tokenizer, phase), phase.num_steps), 1):
        answer_loss, verdict_loss, accuracy = losses(model, batch, verdict_ids)
        torch.autograd.backward(phase.answer_loss_weight * answer_loss + verdict_loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        for index, value in enumerate((answer_loss.item(), verdict_loss.item(), accuracy)):
            seen[index] += value
        if step % 250 == 0 or step == phase.num_steps:
            num_steps = (step - 1) % 250 + 1
            answer, verdict, share = (value / num_steps for value in seen)
            print(
                f"step {step} answer loss {answer:.3f} verdict loss {verdict:.3f} "
                f"right-or-faulty accuracy {share:.3f} seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
            seen = [0.0, 0.0, 0.0]


def pretrain(phases: Sequence[Phase]) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train the policy from random weights."""
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer(SEED)
    model = build_model(tokenizer)
    for phase in phases:
        run_phase(model, tokenizer, phase)
    return model, tokenizer


def shortened(phases: Sequence[Phase], num_steps: int) -> list[Phase]:
    """The phases cut, or drawn out, in proportion to `num_steps` in all."""
    in_all = sum(phase.num_steps for phase in phases)
    return [replace(phase, num_steps=max(1, phase.num_steps * num_steps // in_all)) for phase in phases]


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a checkpoint folder under a temporary name and move its files into place."""
    # No sampling settings: a recipe states its own, and greedy decoding stays the default.
    model.generation_config = GenerationConfig.from_dict(
        {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    )
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(temporary.iterdir()):
        path.chmod(0o644)  # weights are written readable by the owner only
        path.replace(folder / path.name)
    shutil.rmtree(temporary)


def main() -> None:
    """Read the command line, train, save."""
    parser = argparse.ArgumentParser(description="Make the policy of the `embedded` recipe.")
    parser.add_argument("out_folder", type=Path, help="where the checkpoint goes; files of the same name are replaced")
    num_steps = sum(phase.num_steps for phase in PHASES)
    parser.add_argument("--steps", type=int, default=num_steps, help=f"optimizer steps in all ({num_steps})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = pretrain(shortened(PHASES, arguments.steps))
    save(model, tokenizer, arguments.out_folder)
    print(f"{arguments.out_folder}: {sum(parameter.numel() for parameter in model.parameters())} parameters")


if __name__ == "__main__":
    main()
