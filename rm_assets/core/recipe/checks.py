"""Which faults of the data a recipe tolerates: a severity for each check, and a limit where it measures something."""

from typing import Any, Literal

from pydantic import Field, model_validator

from rm_assets.core.recipe.section import Section


class CheckSettings(Section):
    """A check that holds or does not."""

    severity: Literal["error", "warn", "ignore"] = Field(
        description="What a failure does: `error` keeps what depends on the asset from being built, `warn` only says so, with `ignore` nothing is looked at."
    )

    @property
    def limits(self) -> tuple[float, ...]:
        """None: the check has nothing to measure."""
        return ()


class LimitedCheck(CheckSettings):
    """A check of a measured value."""

    limit: float = Field(ge=0, description="The value at which the check still passes.")

    @property
    def limits(self) -> tuple[float, ...]:
        """In the order in which the check takes them."""
        return (self.limit,)


class DriftCheck(LimitedCheck):
    """A check of how far distributions moved: `limit` is of the population stability index."""

    ks_limit: float = Field(
        default=0.15, ge=0, le=1,
        description="The Kolmogorov-Smirnov statistic, largest difference of two cumulative shares, at which the check still passes.",
    )  # fmt: skip

    @property
    def limits(self) -> tuple[float, ...]:
        """Of the index, of the statistic."""
        return (self.limit, self.ks_limit)


class SeveritySection(Section):
    """A section of checks: of one that is given in part, the rest stays as it is."""

    @model_validator(mode="before")
    @classmethod
    def _keep_what_is_not_given(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**defaults[name], **given} if name in defaults and isinstance(given, dict) else given
            for name, given in values.items()
        }


class ShareCheck(LimitedCheck):
    """A check of a measured share."""

    limit: float = Field(ge=0, le=1, description="The share that decides, 0 to 1.")


def _error() -> CheckSettings:
    return CheckSettings(severity="error")


def _warn(limit: float) -> LimitedCheck:
    return LimitedCheck(severity="warn", limit=limit)


def _drift() -> DriftCheck:
    return DriftCheck(severity="warn", limit=0.25)


def _share(limit: float) -> ShareCheck:
    return ShareCheck(severity="warn", limit=limit)


class ChecksSection(SeveritySection):
    """What must hold of prompts, responses, gold rewards, pairs and the model. Changes no result and enters no digest."""

    splits_are_disjoint: CheckSettings = Field(
        default=_error(),
        description="prompts: no prompt, no two dialogues that begin the same, and with `prompts.near_duplicates` no two near-duplicates are in two splits.",
    )
    test_prompts_are_new: ShareCheck = Field(
        default=_share(0.05),
        description="prompts: largest share, of the test prompts of 8 words or more, of those of which most runs of 8 words are in training prompts, too.",
    )
    sources_are_balanced: ShareCheck = Field(
        default=_share(0.9), description="prompts: largest share of one source among the training prompts of several."
    )
    prompts_have_not_drifted: DriftCheck = Field(
        default=_drift(),
        description="prompts: largest population stability index, and Kolmogorov-Smirnov statistic, of lengths and sources against the version before.",
    )
    prompt_lengths_are_usual: ShareCheck = Field(
        default=_share(0.02), description="prompts: largest share of prompts that are far longer or shorter than most."
    )
    responses_stay_in_their_split: CheckSettings = Field(
        default=_error(),
        description="sampled_responses: no response's prompt is in two splits, with `prompts.near_duplicates` no two near-duplicates are, and no response has another split than its prompt.",
    )
    responses_are_not_empty: ShareCheck = Field(
        default=_share(0.01), description="sampled_responses: largest share of responses without text."
    )
    responses_are_whole: ShareCheck = Field(
        default=_share(0.2),
        description="sampled_responses: largest share of sampled responses that the length limit cut.",
    )
    responses_have_not_drifted: DriftCheck = Field(
        default=_drift(),
        description="sampled_responses: largest population stability index, and Kolmogorov-Smirnov statistic, of lengths against the version before.",
    )
    response_lengths_are_usual: ShareCheck = Field(
        default=_share(0.02),
        description="sampled_responses: largest share of responses that are far longer or shorter than most.",
    )
    rewards_stay_in_their_split: CheckSettings = Field(
        default=_error(),
        description="gold_rewards: no gold reward's prompt is in two splits, with `prompts.near_duplicates` no two near-duplicates are, and no gold reward has another split than its response.",
    )
    rewards_follow_responses: CheckSettings = Field(
        default=_error(),
        description="gold_rewards: one finite reward for each response, in the order of the responses; none only for a counted reason.",
    )
    gold_saw_whole_responses: ShareCheck = Field(
        default=_share(0.02),
        description="gold_rewards: largest share of responses that were too long for the gold model, cut or dropped.",
    )
    gold_tells_responses_apart: ShareCheck = Field(
        default=_share(0.5),
        description="gold_rewards: largest share of prompts with several responses whose gold rewards are all equal.",
    )
    judge_agrees_with_itself: ShareCheck = Field(
        default=_share(0.4),
        description="gold_rewards: largest share of pairs of responses for which a judge came to another result when asked in the other order.",
    )
    judge_is_readable: ShareCheck = Field(
        default=_share(0.02),
        description="gold_rewards: largest share of a judge's answers that were refused, cut or held no verdict.",
    )
    rewards_have_not_drifted: DriftCheck = Field(
        default=_drift(),
        description="gold_rewards: largest population stability index, and Kolmogorov-Smirnov statistic, of gold rewards against the version before.",
    )
    rewards_are_usual: ShareCheck = Field(
        default=_share(0.02), description="gold_rewards: largest share of gold rewards that are far from most."
    )
    pairs_stay_in_their_split: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: no pair's prompt is in two splits, with `prompts.near_duplicates` no two near-duplicates are, and no pair has another split than its gold rewards.",
    )
    pairs_add_up: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: candidates = pairs kept + each reason for loss; the tables hold so many.",
    )
    pairs_agree_with_gold: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: both sides of every pair are the prompt and a response with this gold reward, the chosen one's higher by the margin.",
    )
    enough_pairs: LimitedCheck = Field(
        default=_warn(1000), description="implicit_pairs: least number of training pairs."
    )
    ties_are_few: ShareCheck = Field(
        default=_share(0.5), description="implicit_pairs: largest share of candidates that were ties or equal texts."
    )
    pairs_are_distinct: ShareCheck = Field(
        default=_share(0.2),
        description="implicit_pairs: largest share of training pairs whose two texts an earlier pair of the prompt has, in this order or the other.",
    )
    length_does_not_decide: ShareCheck = Field(
        default=_share(0.7),
        description="implicit_pairs: largest share of training pairs of unequal length in which the longer (or the shorter) response is chosen.",
    )
    base_can_read_pairs: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: the tokenizer of training.base has a chat template that refuses no sampled pair, training.max_length is within its context, and no pair is longer where training.over_length is `error`.",
    )
    one_start_token: CheckSettings = Field(
        default=_error(), description="implicit_pairs: training.base reads exactly one start token (BOS), or has none."
    )
    template_ignores_the_clock: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: the chat template of training.base writes the same under two clocks.",
    )
    pad_is_not_the_end: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: training.base has a pad token, and a decoder's is not its end token (EOS).",
    )
    reward_is_read_at_the_end: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: the last token but for padding, at which a decoder's reward is read, is the response's last or ends its turn.",
    )
    scoring_ends_as_training: CheckSettings = Field(
        default=_error(),
        description="implicit_pairs: where the tokenizer of training.base adds its special tokens, as in pipelines, a text ends with the same token as in training.",
    )
    pairs_fit_the_model: ShareCheck = Field(
        default=_share(0.1),
        description="implicit_pairs: largest share of 1,000 sampled pairs that training would leave out as over length or identical after tokenization, and of test conversations that scoring would cut.",
    )
    pairs_have_not_drifted: DriftCheck = Field(
        default=_drift(),
        description="implicit_pairs: largest population stability index, and Kolmogorov-Smirnov statistic, of margins and length differences against the version before.",
    )
    evaluation_is_not_trained_on: CheckSettings = Field(
        default=_error(),
        description="reward_model: no pair that was trained on is of a prompt that evaluation uses, or begins like one, or is a near-duplicate of one.",
    )
    training_pairs_add_up: CheckSettings = Field(
        default=_error(), description="reward_model: training pairs = those trained on + each reason for loss."
    )
    rewards_ignore_the_batch: LimitedCheck = Field(
        default=LimitedCheck(severity="error", limit=0.01),
        description="reward_model: largest difference of a reward computed alone and in a batch, in standard deviations of the rewards.",
    )
