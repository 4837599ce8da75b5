"""The logic of the checks of a reward model's input, from what its tokenizer and chat template make of a sample of pairs.

They look for what spoils a reward model in silence: the start token twice, a reward read before the end, another end in
scoring than in training, a text that changes with the day. What they look at is measured without weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rm_assets.core.checks.finding import DataCheck, Finding
from rm_assets.core.recipe import CheckSettings, LimitedCheck

EXAMINATION_VERSION = 1
"""To be raised when an examination finds otherwise; earlier ones are not taken then."""
Date = Literal["never", "unless given", "always"]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the base of a reward model makes of sampled pairs. Tokens that it does not have are empty texts."""

    missing: str = ""
    """Why the base cannot be found; then nothing else is known."""
    fault: str = ""
    """Why it cannot read the pairs; then nothing else is known."""
    text_pairs: bool = False
    num_rows: int = 0
    """Conversations that were rendered and tokenized: both sides of the sampled pairs, each once."""
    start_token: str = ""
    writes_start: bool = False
    """Whether the tokenizer begins a text with its start token by itself."""
    rows_by_starts: Mapping[str, int] = field(default_factory=dict)
    """Conversations by the number of start tokens that they begin with."""
    prints_date: Date = "never"
    """When the chat template writes the day on which it runs."""
    pad_token: str = ""
    end_token: str = ""
    num_rows_ending_with_pad: int = 0
    num_rows_ending_elsewhere: int = 0
    """Conversations of which the last thing written is not the response and the end of its turn."""
    num_rows_with_another_end: int = 0
    """Conversations to whose text the tokenizer writes other tokens, but for a start token, when it adds its special ones."""
    other_end: str = ""
    """The last token that it writes then."""
    num_train_pairs: int = 0
    num_over_length: int = 0
    num_same_when_cut: int = 0
    """Pairs over length whose sides are the same within `training.max_length`."""
    num_identical: int = 0
    num_test_rows: int = 0
    num_test_rows_over_length: int = 0


def readable(found: Examination) -> Finding:
    """Passes if the base has what it takes to read the pairs, and its chat template refuses none."""
    how = "as text pairs" if found.text_pairs else "by its chat template"
    return Finding(
        not found.fault,
        found.fault or f"the base reads {found.num_rows} conversations {how}",
        {"data/num_conversations_examined": found.num_rows},
    )


def starts(found: Examination) -> Finding:
    """Passes if every conversation begins with one start token, or none does and the tokenizer knows no other way."""
    if found.text_pairs:
        return Finding(True, "an encoder's tokenizer writes its special tokens itself")
    if not found.start_token:
        return Finding(True, "the tokenizer has no start token")
    by_number = {int(number): rows for number, rows in found.rows_by_starts.items()}
    has_none = set(by_number) == {0} and not found.writes_start
    wrong = {number: rows for number, rows in by_number.items() if number != 1 and not has_none}
    if wrong:
        parts = ", ".join(f"{rows} with {number}" for number, rows in sorted(wrong.items()))
        sentence = (
            f"of {found.num_rows} conversations {parts} start tokens ({found.start_token}), one is right; "
            "give training.base a chat_template that writes it once"
        )
    elif has_none:
        sentence = "neither chat template nor tokenizer writes a start token"
    else:
        sentence = f"all {found.num_rows} conversations begin with one {found.start_token}"
    return Finding(not wrong, sentence, {"data/num_wrong_starts": sum(wrong.values())})


def clock(found: Examination) -> Finding:
    """Passes if the chat template writes the same on two days."""
    sentences: dict[Date, str] = {
        "never": "the same text on two days",
        "unless given": "training and scoring give the template a fixed date; without a date_string it prints the day, "
        "so whoever renders elsewhere has to give the same",
        "always": "the chat template prints the day on which it runs, so tomorrow the same conversation is another text; "
        "give training.base a chat_template that prints no date or a fixed one",
    }
    passed = found.prints_date != "always"
    return Finding(passed, sentences[found.prints_date], {"data/template_prints_date": int(not passed)})


def padding(found: Examination) -> Finding:
    """Passes if there is a pad token, and a decoder's is not its end token."""
    is_end = found.pad_token == found.end_token and not found.text_pairs
    if found.pad_token and not is_end:
        return Finding(True, f"pads with {found.pad_token}, ends with {found.end_token or 'no token of its own'}")
    what = "pads with its end token" if found.pad_token else "has no pad token"
    return Finding(
        False,
        f"the base {what} ({found.end_token}), and a reward is read at the last token that is not the pad token; "
        "give training.base a pad_token: a token of its vocabulary that no text uses",
    )


def last_token(found: Examination) -> Finding:
    """Passes if the token at which transformers reads a decoder's reward, the last but for padding, ends the response."""
    early, elsewhere = found.num_rows_ending_with_pad, found.num_rows_ending_elsewhere
    if found.text_pairs:
        return Finding(True, "an encoder reads its reward from the whole text")
    said = []
    if early:
        said.append(
            f"{early} of {found.num_rows} conversations end with the pad token ({found.pad_token}), so their reward is read "
            "before it; give training.base a pad_token that no chat template uses"
        )
    if elsewhere:
        said.append(
            f"{elsewhere} of {found.num_rows} conversations do not end with their response and the end of its turn; "
            "give training.base a chat_template that writes the whole response last"
        )
    return Finding(
        not said,
        "; ".join(said) or f"all {found.num_rows} conversations end with their response and the end of its turn",
        {"data/num_rewards_read_early": early, "data/num_rewards_read_elsewhere": elsewhere},
    )


def same_end(found: Examination) -> Finding:
    """Passes if the tokenizer, asked for its special tokens as by a pipeline, ends every text as training does."""
    differing = found.num_rows_with_another_end
    return Finding(
        not differing,
        f"{differing} of {found.num_rows} conversations end with {found.other_end} where the tokenizer adds its special "
        "tokens, as pipelines and servers let it, and not in training; take it out of the tokenizer's post-processor, and "
        "write it in training.base.chat_template if it is to be there"
        if differing
        else "the tokenizer adds no end of its own to the text",
        {"data/num_ends_unlike_training": differing},
    )


def retention(found: Examination, limit: float) -> Finding:
    """Passes if training leaves out at most a share `limit` of the sampled pairs, and scoring cuts no larger share."""
    pairs, over, same = found.num_train_pairs, found.num_over_length, found.num_identical
    lost = (over + same) / pairs if pairs else 0.0
    cut = found.num_test_rows_over_length / found.num_test_rows if found.num_test_rows else 0.0
    sentence = (
        f"of {pairs} sampled training pairs training takes {pairs - over - same} and leaves out {over} over max_length "
        f"({found.num_same_when_cut} of them the same up to there) and {same} that are the same tokens ({lost:.1%}); "
        f"of {found.num_test_rows} test conversations {found.num_test_rows_over_length} are longer ({cut:.1%}) and scored without their end"
    )
    advice = "" if max(lost, cut) <= limit else "; raise training.max_length"
    return Finding(
        max(lost, cut) <= limit, sentence + advice, {"data/share_pairs_unusable": lost, "data/share_test_cut": cut}
    )


INPUT_CHECKS: dict[str, Callable[..., Finding]] = {
    "base_can_read_pairs": readable,
    "one_start_token": starts,
    "template_ignores_the_clock": clock,
    "pad_is_not_the_end": padding,
    "reward_is_read_at_the_end": last_token,
    "scoring_ends_as_training": same_end,
    "pairs_fit_the_model": retention,
}
"""Checks of implicit_pairs by name: of an examination, and of the limit where the recipe has one."""


def judge(name: str, found: Examination, settings: CheckSettings) -> Finding:
    """The finding of one check, which is none where the base is not there or another check says why it cannot read."""
    if found.missing:
        return Finding(True, f"not examined: {found.missing}", looked=False)
    if found.fault and name != "base_can_read_pairs":
        return Finding(True, "not examined: base_can_read_pairs says why", looked=False)
    limit = (settings.limit,) if isinstance(settings, LimitedCheck) else ()
    return INPUT_CHECKS[name](found, *limit)


def account_of_training(training: Mapping[str, int], pairs: Mapping[str, int]) -> Finding:
    """Passes if the training pairs = those trained on + each reason why a pair was not, by the counts of both assets."""
    parts = ("trained", "over_length", "identical_after_tokenization", "set_aside")
    given, numbers = pairs.get("train_pairs", 0), {part: training.get(f"pairs_{part}", 0) for part in parts}
    unaccounted = given - sum(numbers.values())
    lost = numbers["over_length"] + numbers["identical_after_tokenization"]
    return Finding(
        given > 0 and not unaccounted,
        f"{given} training pairs = "
        + " + ".join(f"{number} {part.replace('_', ' ')}" for part, number in numbers.items())
        + (f" + {unaccounted} that nothing accounts for" if unaccounted else ""),
        {"data/num_trained_unaccounted": unaccounted, "data/share_not_trained": lost / given if given else 0.0},
    )


def batch_dependence(facts: Mapping[str, object], limit: float) -> Finding:
    """Passes if a reward computed in a batch differs by at most `limit` times the spread of the rewards."""
    measured = facts.get("batch_comparison")
    if not isinstance(measured, Mapping):
        return Finding(True, "not measured: the model was made before rewards were compared", looked=False)
    difference, spread = measured["largest_difference"], measured["spread"]
    share = difference / spread if spread else float(difference > 0)
    return Finding(
        share <= limit,
        f"rewards of {measured['conversations']} conversations differ by at most {difference:.2g} between one at a time, the "
        f"batch of training and a padded batch; their spread is {spread:.2g}"
        + ("" if share <= limit else "; the fault is in the model's own code"),
        {"rm/largest_batch_difference": difference, "rm/batch_difference_per_spread": share},
    )


TRAINING_CHECKS: dict[str, DataCheck] = {
    "training_pairs_add_up": DataCheck("reward_model", ("counts", "pair_counts"), account_of_training),
    "rewards_ignore_the_batch": DataCheck("reward_model", ("facts",), batch_dependence),
}
"""Checks of the trained model by name, from what training wrote down."""
