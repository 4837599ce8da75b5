"""From a conversation to the token ids that a model reads: one way, shared by sampling, scoring and training.

Decoders read what their chat template says, token for token, and nothing besides (the template writes the BOS token if
there is to be one). Encoders read a text pair: everything before the response, and the response.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from rm_assets.core.errors import ModelError
from rm_assets.core.records import Messages

FIXED_DATE = {"date_string": "26 Jul 2024"}
"""What templates that print a date are given; the one that Llama's templates fall back on."""
_PROBE: Messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one conversation, and its token types where the tokenizer of an encoder makes them."""

    ids: list[int]
    type_ids: list[int] | None = None


class Renderer:
    """Conversations to token ids, the same way wherever a conversation is read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, text_pairs: bool) -> None:
        self.tokenizer = tokenizer
        self.text_pairs = text_pairs

    @property
    def template_hash(self) -> str:
        """32 hex digits that name the way of rendering: the chat template's, or those of the text-pair form."""
        text = "text pair" if self.text_pairs else str(self.tokenizer.chat_template)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def text(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """The conversation as a decoder's chat template writes it."""
        return _render(self.tokenizer, messages, add_generation_prompt=add_generation_prompt, **FIXED_DATE)

    def encode(self, conversations: Sequence[Messages]) -> list[Encoded]:
        """Whole conversations, the response last, at their full length."""
        if not conversations:
            return []
        if self.text_pairs:
            return self._encode_pairs([split_response(messages) for messages in conversations])
        return [Encoded(ids) for ids in self._plain([self.text(messages) for messages in conversations])]

    def encode_prompts(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Conversations up to where the response begins."""
        if not prompts:
            return []
        if self.text_pairs:
            return [encoded.ids for encoded in self._encode_pairs([(_joined(messages), "") for messages in prompts])]
        return self._plain([self.text(messages, add_generation_prompt=True) for messages in prompts])

    def truncate(self, messages: Messages, encoded: Encoded, max_length: int) -> Encoded:
        """The first `max_length` tokens of a conversation that is longer; an encoder's end token is kept.

        Raises: ModelError MODEL_005 if the prompt alone fills `max_length`.
        """
        num_prompt_tokens = len(self.encode_prompts([messages[:-1]])[0])
        if num_prompt_tokens >= max_length:
            raise ModelError(
                "MODEL_005",
                f"The prompt {excerpt(messages[:-1])} has {num_prompt_tokens} tokens and leaves no room for a response",
                why=f"the model reads at most {max_length} tokens of prompt and response together",
                fix="raise max_length if the model's context allows it, or leave such prompts out",
            )
        if not self.text_pairs:
            return Encoded(encoded.ids[:max_length])
        pair = split_response(messages)
        return self._encode_pairs([pair], truncation="only_second", max_length=max_length)[0]

    @property
    def writes_start(self) -> bool:
        """Whether the tokenizer begins a text with its start token by itself."""
        start = self.tokenizer.bos_token_id
        return start is not None and self.tokenizer("a")["input_ids"][:1] == [start]

    def num_starts(self, row: Encoded) -> int:
        """Start tokens that the row begins with."""
        start = self.tokenizer.bos_token_id
        return next((place for place, token in enumerate(row.ids) if token != start), len(row.ids))

    def prints_date(self, **options: str) -> bool:
        """Whether the chat template writes the day on which it runs when it gets these options."""
        template = str(self.tokenizer.chat_template)
        if "strftime_now" not in template:
            return False
        # A macro of the same name hides the clock, so two dates can be tried without waiting a day.
        clocks = ["{%- macro strftime_now(format) -%}" + date + "{%- endmacro -%}" for date in ("day one", "day two")]
        for messages, prompt_only in ((_PROBE, False), (_PROBE[:1], True)):
            one, other = (
                _render(
                    self.tokenizer, messages, add_generation_prompt=prompt_only, chat_template=clock + template, **options
                )
                for clock in clocks
            )  # fmt: skip
            if one != other:
                return True
        return False

    def _plain(self, texts: list[str]) -> list[list[int]]:
        encoding = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in encoding["input_ids"]]

    def _encode_pairs(self, pairs: list[tuple[str, str]], **truncation: Any) -> list[Encoded]:
        firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
        encoding = self.tokenizer(firsts, seconds, return_attention_mask=False, verbose=False, **truncation)
        types = encoding.get("token_type_ids") or [None] * len(pairs)
        return [Encoded(ids, type_ids) for ids, type_ids in zip(encoding["input_ids"], types, strict=True)]


def split_response(messages: Messages) -> tuple[str, str]:
    """The text before the response and the response, for models that read text pairs."""
    return _joined(messages[:-1]), messages[-1]["content"]


def excerpt(messages: Messages) -> str:
    """The beginning of a conversation's last message, to name a row by."""
    text = messages[-1]["content"] if messages else ""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def require_sound_template(renderer: Renderer) -> None:
    """Raises ModelError MODEL_003 for a chat template that prints the date, doubles the start token, or forgets one that the tokenizer writes."""
    if renderer.text_pairs:
        return
    if renderer.prints_date(**FIXED_DATE):
        raise ModelError(
            "MODEL_003",
            "The chat template depends on the date",
            why="it prints the day on which it runs, so tomorrow the same conversation would be another text",
            fix="give the checkpoint a `chat_template` in the recipe that prints no date or a fixed one",
        )
    if renderer.tokenizer.bos_token_id is None:
        return
    num_starts = renderer.num_starts(renderer.encode([_PROBE])[0])
    if num_starts > 1 or (num_starts == 0 and renderer.writes_start):
        raise ModelError(
            "MODEL_003",
            f"The chat template begins a conversation with {num_starts} start tokens ({renderer.tokenizer.bos_token})",
            why="the model was trained to see exactly one, and rewards shift with any other number",
            fix="give the checkpoint a `chat_template` in the recipe that writes it once",
        )


def require_real_end(renderer: Renderer, row: Encoded, name: str) -> None:
    """Raises ModelError MODEL_004 where a decoder's reward would be read before the end, at the last non-pad token."""
    if not renderer.text_pairs and (not row.ids or row.ids[-1] == renderer.tokenizer.pad_token_id):
        raise ModelError(
            "MODEL_004",
            f"The text of {name} " + ("ends with the pad token" if row.ids else "is empty"),
            why="a reward is read at the last token that is not the pad token, which would be an earlier one",
            fix="give a `pad_token` that no text and no chat template uses",
        )


def _joined(messages: Messages) -> str:
    return "\n\n".join(message["content"] for message in messages if message["content"])


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: Any) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except jinja2.exceptions.TemplateError as error:
        raise ModelError(
            "MODEL_003",
            f"The chat template cannot render the conversation that ends with {excerpt(messages)}",
            why=f"the template says: {error}",
            fix="change the conversation (some templates allow no system message), or give `chat_template`",
        ) from error
    return str(text)
