"""What the tokenizer and chat template of a reward model's base make of pairs, measured without weights and refusing nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rm_assets.backends.rendering import FIXED_DATE, Encoded, Renderer
from rm_assets.backends.tokenization import check_context, load_config, unchecked_renderer
from rm_assets.core.checks.inputs import Examination
from rm_assets.core.errors import ModelError
from rm_assets.core.recipe import RewardModelSection
from rm_assets.core.records import Messages, Pair

_MARK = "response-to-be-found-again"
TAIL_CHARS = 4
"""Characters at the end of a response, white space apart, that its text has to end with."""


def examine(settings: RewardModelSection, pairs: Sequence[Pair]) -> Examination:
    """Renders and tokenizes the pairs as training does; what a ModelError would stop there is written down here."""
    ref, max_length = settings.base, settings.max_length
    conversations = {
        side: messages for p in pairs for side, messages in ((p.chosen_id, p.chosen), (p.rejected_id, p.rejected))
    }
    try:
        config = load_config(ref)
        renderer = unchecked_renderer(ref, config)
        check_context(ref, config, renderer, max_length)
        rows = dict(zip(conversations, renderer.encode(list(conversations.values())), strict=True))
        found: dict[str, Any] = dict(_retention(pairs, rows, max_length))
        if settings.over_length == "error" and found["num_over_length"]:
            raise ModelError(
                "MODEL_005",
                f"{found['num_over_length']} of {found['num_train_pairs']} sampled training pairs have more than {max_length} tokens",
                why="training.over_length is 'error'",
                fix="raise training.max_length, or set training.over_length to drop",
            )
        if not renderer.text_pairs:
            found |= _of_template(renderer, list(conversations.values()), list(rows.values()))
    except ModelError as error:
        is_missing = error.code == "MODEL_001" and ref.hub_id is not None
        return Examination(missing=str(error)) if is_missing else Examination(fault=str(error))
    return Examination(
        text_pairs=renderer.text_pairs,
        num_rows=len(rows),
        pad_token=str(renderer.tokenizer.pad_token or ""),
        end_token=str(renderer.tokenizer.eos_token or ""),
        **found,
    )


def _of_template(renderer: Renderer, conversations: list[Messages], rows: list[Encoded]) -> dict[str, Any]:
    """What only a decoder has: start and end of its text, and a template that may look at the clock."""
    tokenizer = renderer.tokenizer
    texts = [renderer.text(messages) for messages in conversations]
    ends = _ends_with_response(renderer, conversations, texts)
    others = [end for text, row in zip(texts, rows, strict=True) if (end := _other_end(renderer, text, row))]
    by_starts = Counter(str(renderer.num_starts(row)) for row in rows) if tokenizer.bos_token else {}
    prints_date = (
        ("always" if renderer.prints_date(**FIXED_DATE) else "unless given") if renderer.prints_date() else "never"
    )
    return {
        "start_token": str(tokenizer.bos_token or ""),
        "writes_start": renderer.writes_start,
        "rows_by_starts": dict(by_starts),
        "prints_date": prints_date,
        "num_rows_ending_with_pad": sum(not row.ids or row.ids[-1] == tokenizer.pad_token_id for row in rows),
        "num_rows_ending_elsewhere": ends.count(False),
        "num_rows_with_another_end": len(others),
        "other_end": Counter(others).most_common(1)[0][0] if others else "",
    }


def _ends_with_response(renderer: Renderer, conversations: list[Messages], texts: list[str]) -> list[bool]:
    """Whether each text ends with its response, and then with what the template writes at the end of a response's turn."""
    probe = renderer.text([{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}])
    _, mark, turn_end = probe.rpartition(_MARK)
    # Templates strip white space, and move it around what a model thought before it answered.
    return [
        bool(mark)
        and text.endswith(turn_end)
        and _solid(text.removesuffix(turn_end)).endswith(_solid(messages[-1]["content"])[-TAIL_CHARS:])
        for messages, text in zip(conversations, texts, strict=True)
    ]


def _solid(text: str) -> str:
    return "".join(text.split())


def _other_end(renderer: Renderer, text: str, row: Encoded) -> str:
    """The last token where the tokenizer adds its special tokens, if it then writes others than the row has; a start token does not count."""
    tokenizer = renderer.tokenizer
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    num_starts = renderer.num_starts(row)
    with_specials = renderer.num_starts(Encoded(ids))
    if ids[with_specials:] == row.ids[num_starts:]:
        return ""
    return str(tokenizer.convert_ids_to_tokens(ids[-1])) if ids else ""


def _retention(pairs: Sequence[Pair], rows: Mapping[str, Encoded], max_length: int) -> dict[str, int]:
    """What training would leave out for its tokens, and what scoring would cut."""
    sides = [(rows[p.chosen_id].ids, rows[p.rejected_id].ids) for p in pairs if p.split == "train"]
    over = [(a, b) for a, b in sides if max(len(a), len(b)) > max_length]
    tests = {side for p in pairs if p.split == "test" for side in (p.chosen_id, p.rejected_id)}
    return {
        "num_train_pairs": len(sides),
        "num_over_length": len(over),
        "num_same_when_cut": sum(a[:max_length] == b[:max_length] for a, b in over),
        "num_identical": sum(a == b and len(a) <= max_length for a, b in sides),
        "num_test_rows": len(tests),
        "num_test_rows_over_length": sum(len(rows[side].ids) > max_length for side in tests),
    }
