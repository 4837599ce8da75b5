"""A reward model in use: the scores of evaluation and release, for whoever has a checkpoint.

from rm_assets.serving import RewardModel

model = RewardModel.load("path/to/release")
model.score("What is 2 plus 2?", ["4", "5"])
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rm_assets.core.dialogues import prompt_of_messages, read_dialogue
from rm_assets.core.errors import DataError, ModelError
from rm_assets.core.protocols import QuietReporter, Score
from rm_assets.core.recipe import Dtype, ExecutionSection, ModelRef
from rm_assets.core.records import Messages, conversation
from rm_assets.serving.judgements import Best, Comparison, best_of, compare

if TYPE_CHECKING:
    from rm_assets.backends.torch.scorer import TorchScorer

Prompt = str | Messages
"""What the user says, or the whole dialogue up to and including what the user says last, system message first."""
TRAINING_RECORD = "rm_assets.json"
"""What a checkpoint of ours was trained on and how, its `max_length` among it."""


class TruncatedResponse(UserWarning):
    """Some responses were longer than the model reads; their rewards are those of their beginnings."""


class RewardModel:
    """A loaded reward model. Not for several threads at a time: the HTTP service puts its requests in a row."""

    def __init__(self, location: str, scorer: "TorchScorer") -> None:
        self.location, self.scorer = location, scorer

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "float32",
        max_length: int | None = None,
        token_budget: int | None = None,
    ) -> "RewardModel":
        """A checkpoint or release folder, or a model of the Hugging Face Hub (OWNER/NAME).

        `max_length` is in tokens of prompt and response together: when not given, what the checkpoint was trained with,
        else the model's context. `token_budget` are the tokens of one forward pass; rewards do not depend on it.
        Raises: ModelError MODEL_001 to MODEL_005, MODEL_007; RecipeError RECIPE_003 for a device that is not there.
        """
        from rm_assets.backends.torch.devices import pick_device, takes_small_batches
        from rm_assets.backends.torch.scorer import TorchScorer

        ref = model_ref(path_or_id, revision)
        at = pick_device(device)
        scorer = TorchScorer(
            ref,
            max_length=max_length or _trained_length(ref) or _context(ref),
            dtype=dtype,
            device=at,
            token_budget=token_budget or ExecutionSection().forward_tokens("scoring", on_cpu=takes_small_batches(at)),
            reporter=QuietReporter(),
        )
        return cls(ref.location, scorer)

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and response together; a longer response is cut at its end."""
        return self.scorer.max_length

    def score(self, prompt: Prompt, responses: Sequence[str]) -> list[float]:
        """The reward of each response to the prompt. A response that is cut causes the warning TruncatedResponse.

        Rewards compare only among responses to the same prompt.
        Raises: DataError DATA_003 if prompt or responses are none, ModelError MODEL_005 if the prompt leaves no room.
        """
        scores = list(self.scorer.score(conversations(prompt, responses)))
        if cut := [index for index, score in enumerate(scores) if score.truncated]:
            warnings.warn(
                f"responses {cut} are longer than the {self.max_length} tokens that the model reads with this prompt; "
                "their rewards are those of their beginnings",
                TruncatedResponse,
                stacklevel=2,
            )
        return [score.reward for score in scores]

    def score_all(self, rows: Iterable[tuple[Prompt, str]]) -> Iterator[Score]:
        """Any number of prompts with one response each, as a stream: reward, tokens read, and whether the end was cut.

        Responses to one prompt cost least side by side. Raises: as `score`.
        """
        return self.scorer.score(messages for prompt, text in rows for messages in conversations(prompt, [text]))

    def compare(self, prompt: Prompt, a: str, b: str) -> Comparison:
        """The probability that response a is better than response b, and the margin of their rewards. Raises: as `score`."""
        return compare(*self.score(prompt, [a, b]))

    def best_of(self, prompt: Prompt, responses: Sequence[str]) -> Best:
        """The response with the highest reward, and all rewards. Raises: as `score`."""
        return best_of(responses, self.score(prompt, responses))


def conversations(prompt: Prompt, responses: Sequence[str]) -> list[Messages]:
    """The prompt with each of its responses. Raises: DataError DATA_003."""
    try:
        turns = prompt_of_messages(read_dialogue(prompt, None) or [{"role": "user", "content": str(prompt)}])
    except ValueError as error:
        raise _fault(f"the prompt {error}", "give a text, or messages that end with what the user says") from None
    if isinstance(responses, str) or not responses or not all(isinstance(text, str) for text in responses):
        raise _fault("the responses are no list of texts", "give a list with at least one text")
    try:
        "".join([turns.prompt, *responses]).encode()
    except UnicodeEncodeError:
        raise _fault("a text holds half a surrogate pair, which is no text", "correct the text") from None
    return [conversation(turns.prompt, turns.system, text, turns.history) for text in responses]


def model_ref(path_or_id: str | Path, revision: str | None = None) -> ModelRef:
    """The checkpoint that is meant: a folder that is there or can only be one, else a model of the Hub.

    Raises: ModelError MODEL_001 for what can be neither, or a folder with a revision.
    """
    text = str(path_or_id)
    folder = Path(text).expanduser()
    if isinstance(path_or_id, Path) or folder.is_dir() or text.startswith(("/", ".", "~")):
        location, fix = {"path": str(folder)}, "a local checkpoint has no revisions: leave it out"
    else:
        location, fix = {"hub_id": text}, "name a folder, or a model of the Hub as OWNER/NAME"
    try:
        return ModelRef(**location, revision=revision)
    except ValueError:
        raise ModelError("MODEL_001", f"'{text}' names no checkpoint{_at(revision)}", fix=fix) from None


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision else ""


def _trained_length(ref: ModelRef) -> int | None:
    """`max_length` of the checkpoint's training, if it says so; another tool's checkpoint does not."""
    found = _training_record(ref)
    if found is None:
        return None
    try:
        return int(json.loads(found.read_text("utf-8"))["max_length"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "MODEL_001",
            f"{TRAINING_RECORD} of {ref.location} is damaged",
            why=repr(error),
            fix="copy the checkpoint again, or give max_length",
        ) from None


def _training_record(ref: ModelRef) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from rm_assets.backends.loading_errors import as_model_errors
    from rm_assets.backends.tokenization import load_config

    load_config(ref)  # if there is no such checkpoint at all, that is what has to be said
    if ref.hub_id is None:
        file = Path(ref.location) / TRAINING_RECORD
        return file if file.exists() else None
    with as_model_errors(ref, "training record"):
        try:
            return Path(hf_hub_download(ref.hub_id, TRAINING_RECORD, revision=ref.revision))
        except LocalEntryNotFoundError:  # the Hub is out of reach, so nobody knows
            raise
        except EntryNotFoundError:
            return None


def _context(ref: ModelRef) -> int:
    from rm_assets.backends.tokenization import context_length, load_config, load_tokenizer

    limit = context_length(load_config(ref), load_tokenizer(ref, needs_chat_template=False))
    if limit is None:
        raise ModelError(
            "MODEL_005", f"{ref.location} does not say how many tokens it reads at once", fix="give max_length"
        )
    return limit


def _fault(what: str, fix: str) -> DataError:
    return DataError("DATA_003", what, fix=fix)
