"""Dialogues as people store them: messages, or plain transcripts; the prompt that several of them begin with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rm_assets.core.records import Messages

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
"""Names of roles as they are found, and ours."""


@dataclass(frozen=True)
class PromptTurns:
    """A prompt: the user's last turn, what was said before, and the system message."""

    prompt: str
    system: str | None
    history: Messages


def read_dialogue(value: Any, transcript: tuple[str, str] | None) -> Messages | None:
    """The messages that a column holds; None for a plain text, which is one turn alone.

    Takes lists of {role, content} or {from, value}, and with `transcript` (what stands before a user's and before an
    assistant's turn) texts that begin with one of the two.

    Raises: ValueError with the reason if the value is a list and no dialogue.
    """
    if isinstance(value, str):
        return _read_transcript(value, *transcript) if transcript and value.startswith(transcript) else None
    if not isinstance(value, list) or not value:
        raise ValueError("is neither a text nor a list of messages")
    return [_message(item) for item in value]


def _message(item: Any) -> dict[str, str]:
    if not isinstance(item, dict):
        raise ValueError("has a message that is no object")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"has a message of the role {role!r:.40}, known are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise ValueError("has a message whose content is no text")
    return {"role": ROLES[role], "content": _encodable(content)}


def _read_transcript(text: str, user: str, assistant: str) -> Messages:
    pieces = re.split(f"({re.escape(user)}|{re.escape(assistant)})", text)[1:]
    return [
        {"role": "user" if marker == user else "assistant", "content": _encodable(content.strip())}
        for marker, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can escape what no UTF-8 file can hold
        raise ValueError("has a message that holds half a surrogate pair, which is no text") from None
    return text


def prompt_of_messages(messages: Messages) -> PromptTurns:
    """The prompt that these messages are. Raises: ValueError if they do not end with something a user says."""
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise ValueError("does not end with a user's message")
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    return PromptTurns(messages[-1]["content"], system, messages[system is not None : -1])


def common_prompt(dialogues: Sequence[Messages]) -> PromptTurns | None:
    """What all dialogues begin with, where each has exactly one answer more; None where they part earlier."""
    answers_at = {len(dialogue) - 1 for dialogue in dialogues}
    beginnings = [dialogue[:-1] for dialogue in dialogues]
    if len(answers_at) > 1 or any(beginning != beginnings[0] for beginning in beginnings):
        return None
    if any(not dialogue or dialogue[-1]["role"] != "assistant" for dialogue in dialogues):
        return None
    try:
        return prompt_of_messages(beginnings[0])
    except ValueError:
        return None


def answer_of(dialogue: Messages, prompt: Messages) -> str:
    """The assistant's answer that the dialogue ends with: the message alone, or after this prompt.

    A system message that only one of the two has does not make them differ.

    Raises: ValueError if it ends with no answer, or with the answer to another prompt.
    """
    if not dialogue or dialogue[-1]["role"] != "assistant":
        raise ValueError("does not end with an assistant's message")
    before, said = ([m for m in part if m["role"] != "system"] for part in (dialogue[:-1], prompt))
    if before and before != said:
        raise ValueError("does not begin with the prompt of its row")
    return dialogue[-1]["content"]
