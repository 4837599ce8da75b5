"""Dialogues in every form that people store them in, and the prompt that two of them share."""

from typing import Any

import pytest

from rm_assets.core.dialogues import PromptTurns, answer_of, common_prompt, prompt_of_messages, read_dialogue
from rm_assets.core.records import Messages

HH = ("\n\nHuman:", "\n\nAssistant:")


def said(*turns: str) -> Messages:
    """u:TEXT, a:TEXT and s:TEXT as messages."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain text", None),
        ("\n\nHuman: hi\n\nAssistant: hello\nthere\n\nHuman: more?\n\nAssistant:", said("u:hi", "a:hello\nthere", "u:more?", "a:")),
        ([{"role": "user", "content": " a "}], said("u: a ")),
        ([{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], said("s:s", "u:a", "a:b")),
    ],
)  # fmt: skip
def test_messages_and_transcripts_are_read(value: Any, expected: Messages | None) -> None:
    assert read_dialogue(value, HH) == expected


@pytest.mark.parametrize(
    "value",
    [
        [],
        3,
        None,
        ["text"],
        [{"role": "tool", "content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user", "content": "\ud800"}],
    ],
)
def test_what_is_no_dialogue_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="message"):
        read_dialogue(value, None)


def test_a_prompt_is_the_last_turn_with_what_was_said_before() -> None:
    turns = prompt_of_messages(said("s:be kind", "u:one", "a:two", "u:three"))
    assert turns == PromptTurns("three", "be kind", said("u:one", "a:two"))
    for messages in ([], said("u:one", "a:two"), said("u: ")):
        with pytest.raises(ValueError, match="end with a user"):
            prompt_of_messages(messages)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (said("u:p", "a:x"), said("u:p", "a:y"), PromptTurns("p", None, [])),
        (said("u:p", "a:x"), said("u:p", "a:x"), PromptTurns("p", None, [])),  # the pair is counted as identical later
        (said("u:o", "a:x", "u:p", "a:y"), said("u:o", "a:z", "u:p", "a:y"), None),  # they part before the last answer
        (said("u:p", "a:x"), said("u:p", "a:x", "u:q", "a:y"), None),
        (said("u:p", "u:x"), said("u:p", "u:y"), None),
        (said("a:x"), said("a:y"), None),  # no user says anything
    ],
)
def test_the_common_prompt_leaves_each_dialogue_one_answer(
    chosen: Messages, rejected: Messages, expected: PromptTurns | None
) -> None:
    assert common_prompt([chosen, rejected]) == expected


def test_an_answer_is_the_last_message_of_its_own_prompt() -> None:
    prompt = said("s:be kind", "u:p")
    assert answer_of(said("a:x"), prompt) == "x"
    assert answer_of(said("u:p", "a:x"), prompt) == "x"
    for dialogue in (said("u:other", "a:x"), said("u:p"), []):
        with pytest.raises(ValueError, match="does not"):
            answer_of(dialogue, prompt)
