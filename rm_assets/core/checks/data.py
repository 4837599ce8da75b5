"""The logic of the checks of data: tables in, one finding out. Tables are read in a stream. Those of splits: splits.py."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

from rm_assets.core.checks.finding import DataCheck, Finding
from rm_assets.core.pairing import REASONS, candidates
from rm_assets.core.recipe import PairsSection
from rm_assets.core.records import UNLABELLED, GoldReward, Pair, Prompt, Response, response_messages
from rm_assets.core.table_statistics.numbers import FEATURES


def balance_of_sources(prompts: Iterable[Prompt], limit: float) -> Finding:
    """Passes if there is one source, or none has more than a share `limit` of the training prompts."""
    sources = Counter(prompt.source for prompt in prompts if prompt.split == "train")
    if len(sources) < 2:
        return Finding(True, "one source", {"data/largest_source_share": 1.0}, looked=False)
    (name, number), total = sources.most_common(1)[0], sources.total()
    return Finding(
        number / total <= limit,
        f"{name} gives {number / total:.1%} of {total} training prompts; there are {len(sources)} sources",
        {"data/largest_source_share": number / total},
    )


def empty_responses(responses: Iterable[Response], limit: float) -> Finding:
    """Passes if at most a share `limit` of the responses has no text."""
    return _share_of(responses, lambda r: not r.response.strip(), limit, "responses are empty", "empty")


def cut_responses(responses: Iterable[Response], limit: float) -> Finding:
    """Passes if at most a share `limit` of the sampled responses was cut by the length limit."""
    sampled = (r for r in responses if r.finished is not None)
    return _share_of(sampled, lambda r: not r.finished, limit, "sampled responses were cut by the length limit", "cut")


def too_long_for_gold(counts: Mapping[str, int], limit: float) -> Finding:
    """Passes if the gold model saw all but a share `limit` of the responses whole."""
    num_cut, num_dropped = counts.get("truncated", 0), counts.get("over_length", 0)
    num_responses = counts.get("gold_rewards", 0) + num_dropped
    share = (num_cut + num_dropped) / num_responses if num_responses else 0.0
    parts = (
        f"saw the beginning of {num_cut}" if num_cut else "",
        f"left {num_dropped} without reward" if num_dropped else "",
    )
    said = " and ".join(part for part in parts if part)
    return Finding(
        share <= limit,
        f"{num_cut + num_dropped} of {num_responses} ({share:.1%}) responses were too long for the gold model"
        + (f", which {said}" if said else ""),
        {"data/share_too_long_for_gold": share},
    )


def _share_of(rows: Iterable[Any], is_faulty: Callable[[Any], bool], limit: float, what: str, name: str) -> Finding:
    num_rows = num_faulty = 0
    for row in rows:
        num_rows, num_faulty = num_rows + 1, num_faulty + is_faulty(row)
    share = num_faulty / num_rows if num_rows else 0.0
    return Finding(share <= limit, f"{num_faulty} of {num_rows} ({share:.1%}) {what}", {f"data/share_{name}": share})


def order_of_rewards(
    responses: Iterable[Response], rewards: Iterable[GoldReward], counts: Mapping[str, int]
) -> Finding:
    """Passes if the rewards are of the responses, in their order, all finite, and each response without one is accounted for."""
    num_explained = sum(counts.get(reason, 0) for reason in UNLABELLED)
    num_rows = num_out_of_place = num_not_finite = num_without = 0
    waiting = iter(responses)
    for reward in rewards:
        response = next(waiting, None)
        while response is not None and not _is_of(reward, response) and num_without < num_explained:
            response, num_without = next(waiting, None), num_without + 1
        num_rows += 1
        num_out_of_place += response is None or not _is_of(reward, response)
        num_not_finite += not math.isfinite(reward.gold_reward)
    num_without += sum(1 for _ in waiting)
    return Finding(
        num_rows > 0 and not num_out_of_place and not num_not_finite and num_without == num_explained,
        f"{num_rows} rewards, {num_out_of_place} out of place, {num_not_finite} not finite; {num_without} responses have none, {num_explained} for a known reason",
        {
            "data/num_rewards_out_of_place": num_out_of_place,
            "data/num_rewards_not_finite": num_not_finite,
            "data/num_responses_without_reward": num_without,
        },
    )


def _is_of(reward: GoldReward, response: Response) -> bool:
    return (reward.response_id, reward.response) == (response.response_id, response.response)


def constant_gold(rewards: Iterable[GoldReward], limit: float) -> Finding:
    """Passes if at most a share `limit` of the prompts with several responses has one gold reward for all of them."""
    num_prompts = num_constant = 0
    for _, group in groupby(rewards, key=lambda r: r.prompt_id):
        values = [r.gold_reward for r in group]
        num_prompts += len(values) > 1
        num_constant += len(values) > 1 and len(set(values)) == 1
    share = num_constant / num_prompts if num_prompts else 0.0
    return Finding(
        share <= limit,
        f"{num_constant} of {num_prompts} prompts ({share:.1%}) have one gold reward for all their responses and give no pair",
        {"data/share_prompts_without_gold_difference": share},
    )


def orders_that_disagree(counts: Mapping[str, int], limit: float) -> Finding:
    """Passes if each judge came to another result in the other order for at most a share `limit` of the pairs; or there is none.

    Of several judges, the finding is of the worst.
    """

    def of(judge: str) -> tuple[float, int, int]:
        num_pairs = counts[f"{judge}judged_pairs"] - counts[f"{judge}unreadable_pairs"]
        num_disagree = counts[f"{judge}orders_disagree"]
        return num_disagree / num_pairs if num_pairs else 0.0, num_disagree, num_pairs

    judges = _judges(counts)
    if not judges:
        return Finding(True, "no judge", looked=False)
    worst = max(judges, key=of)
    share, num_disagree, num_pairs = of(worst)
    return Finding(
        share <= limit,
        f"of {num_pairs} pairs of responses, {judges[worst]} came to another result in the other order for "
        f"{num_disagree} ({share:.1%}), which are ties",
        {"data/share_orders_disagree": share},
    )


def unreadable_judgements(counts: Mapping[str, int], limit: float) -> Finding:
    """Passes if at most a share `limit` of each judge's answers held no verdict; or there is no judge.

    Of several judges, the finding is of the worst.
    """

    def of(judge: str) -> tuple[float, int, int]:
        num_unreadable, num_answers = counts[f"{judge}unreadable_judgements"], 2 * counts[f"{judge}judged_pairs"]
        return num_unreadable / num_answers if num_answers else 0.0, num_unreadable, num_answers

    judges = _judges(counts)
    if not judges:
        return Finding(True, "no judge", looked=False)
    worst = max(judges, key=of)
    share, num_unreadable, num_answers = of(worst)
    num_refused = counts.get(f"{worst}refused_judgements", 0)
    return Finding(
        share <= limit,
        f"{num_unreadable} of {num_answers} answers of {judges[worst]} ({share:.1%}) were refused ({num_refused}), cut or "
        "held no verdict; their pairs are ties",
        {"data/share_unreadable_judgements": share},
    )


def _judges(counts: Mapping[str, int]) -> dict[str, str]:
    """What each judge is called, by what its counts begin with: its name in a combined gold, nothing where it is alone."""
    prefixes = [name.removesuffix("judged_pairs") for name in counts if name.endswith("judged_pairs")]
    return {prefix: f"the judge '{prefix[:-1]}'" if prefix else "the judge" for prefix in prefixes}


def account_of_pairs(
    rewards: Iterable[GoldReward], pairs: Iterable[Pair], counts: Mapping[str, int], section: PairsSection
) -> Finding:
    """Passes if candidates = pairs + the reasons for loss, and the tables hold so many of either: pairs in their rows,
    candidates in what the pair policy makes of the gold rewards.
    """
    said = {"candidates": counts.get("candidates", 0), "pairs": counts.get("pairs", 0)}
    lost = {reason: counts.get(reason, 0) for reason in REASONS}
    groups = (list(group) for _, group in groupby(rewards, key=lambda r: r.prompt_id))
    held = {
        "candidates": sum(1 for group in groups for _ in candidates(group, section.policy)),
        "pairs": sum(1 for _ in pairs),
    }
    unaccounted = said["candidates"] - said["pairs"] - sum(lost.values())
    wrong = [f"the tables hold {held[name]} {name}" for name in said if held[name] != said[name]]
    sentence = f"{said['candidates']} candidates = {said['pairs']} pairs + " + " + ".join(
        f"{n} {reason}" for reason, n in lost.items()
    )
    return Finding(
        said["candidates"] > 0 and not unaccounted and not wrong,
        "; ".join([sentence, *wrong]),
        {
            "data/num_pairs_unaccounted": unaccounted,
            "data/num_pairs_missing": said["pairs"] - held["pairs"],
            "data/num_candidates_missing": said["candidates"] - held["candidates"],
        },
    )


def share_of_ties(counts: Mapping[str, int], limit: float) -> Finding:
    """Passes if at most a share `limit` of the candidates were ties or equal texts."""
    candidates, ties = counts["candidates"], counts["tie"] + counts["identical_text"]
    share = ties / candidates if candidates else 0.0
    return Finding(
        share <= limit,
        f"{ties} of {candidates} candidates ({share:.1%}) were ties or equal texts",
        {"data/tie_rate": share},
    )


def number_of_pairs(counts: Mapping[str, int], limit: float) -> Finding:
    """Passes if there are at least `limit` training pairs."""
    number = counts["train_pairs"]
    sentence = f"{number} training pairs, at least {limit:.0f} are wanted"
    return Finding(number >= limit, sentence, {"data/num_train_pairs": number})


def agreement_with_gold(rewards: Iterable[GoldReward], pairs: Iterable[Pair]) -> Finding:
    """Passes if both sides of every pair are conversations of the prompt that ends with a response of the gold reward it says,
    the chosen one's is higher, and the margin is the difference.

    Both tables have their prompts in the same order, so that of either only one prompt is in memory.
    """
    num_pairs = num_wrong = 0
    first = ""
    groups = groupby(pairs, key=lambda p: p.prompt_id)
    of_prompt = next(groups, None)
    for prompt_id, group in groupby(rewards, key=lambda r: r.prompt_id):
        if of_prompt is None or of_prompt[0] != prompt_id:
            continue
        known = {r.response_id: r for r in group}
        for pair in of_prompt[1]:
            right = _agrees(pair, known.get(pair.chosen_id), known.get(pair.rejected_id))
            num_pairs, num_wrong = num_pairs + 1, num_wrong + (not right)
            first = first or ("" if right else pair.pair_id)
        of_prompt = next(groups, None)
    rest = sum(1 for _ in of_prompt[1]) + sum(1 for _, group in groups for _ in group) if of_prompt else 0
    num_pairs, num_wrong = num_pairs + rest, num_wrong + rest
    sentence = f"{num_wrong} of {num_pairs} pairs do not agree with their gold rewards"
    return Finding(
        num_pairs > 0 and not num_wrong,
        sentence + (f", the first is {first or 'one of a prompt out of order'}" if num_wrong else ""),
        {"data/num_pairs_against_gold": num_wrong},
    )


def _agrees(pair: Pair, chosen: GoldReward | None, rejected: GoldReward | None) -> bool:
    if chosen is None or rejected is None:
        return False
    golds = chosen.gold_reward, rejected.gold_reward
    return (
        (pair.chosen, pair.rejected) == (response_messages(chosen), response_messages(rejected))
        and (pair.chosen_gold_reward, pair.rejected_gold_reward) == golds
        and golds[0] > golds[1]
        and math.isclose(pair.gold_margin, golds[0] - golds[1], rel_tol=1e-9, abs_tol=1e-9)
    )


def repeated_pairs(pairs: Iterable[Pair], limit: float) -> Finding:
    """Passes if at most a share `limit` of the training pairs has the two texts of an earlier pair of the prompt."""
    num_pairs = num_same = num_opposite = 0
    for _, group in groupby((p for p in pairs if p.split == "train"), key=lambda p: p.prompt_id):
        seen: set[tuple[str, str]] = set()
        for pair in group:
            texts = pair.chosen[-1]["content"], pair.rejected[-1]["content"]
            num_pairs += 1
            num_same += texts in seen
            num_opposite += texts not in seen and texts[::-1] in seen
            seen.add(texts)
    share = (num_same + num_opposite) / num_pairs if num_pairs else 0.0
    return Finding(
        share <= limit,
        f"{num_same} of {num_pairs} training pairs repeat an earlier one and {num_opposite} say the opposite ({share:.1%})",
        {"data/num_pairs_repeated": num_same, "data/num_pairs_contradicted": num_opposite},
    )


def length_bias(pairs: Iterable[Pair], limit: float) -> Finding:
    """Passes if neither the longer nor the shorter response is chosen in more than a share `limit` of training pairs."""
    num_longer = num_shorter = 0
    for pair in pairs:
        if pair.split == "train":
            longer = FEATURES["implicit_pairs"]["chosen_longer"].of(pair)
            num_longer, num_shorter = num_longer + (longer is True), num_shorter + (longer is False)
    total = num_longer + num_shorter
    share = num_longer / total if total else 0.5
    word, larger = ("longer", share) if share >= 0.5 else ("shorter", 1 - share)
    advice = "" if larger <= limit else "; a model may learn that alone"
    return Finding(
        larger <= limit,
        f"the {word} response is chosen in {larger:.1%} of {total} training pairs of unequal length{advice}",
        {"data/share_chosen_longer_in_training": share},
    )


DATA_CHECKS: dict[str, DataCheck] = {
    "sources_are_balanced": DataCheck("prompts", ("prompts",), balance_of_sources),
    "responses_are_not_empty": DataCheck("sampled_responses", ("responses",), empty_responses),
    "responses_are_whole": DataCheck("sampled_responses", ("responses",), cut_responses),
    "rewards_follow_responses": DataCheck("gold_rewards", ("responses", "rewards", "counts"), order_of_rewards),
    "gold_saw_whole_responses": DataCheck("gold_rewards", ("counts",), too_long_for_gold),
    "gold_tells_responses_apart": DataCheck("gold_rewards", ("rewards",), constant_gold),
    "judge_agrees_with_itself": DataCheck("gold_rewards", ("counts",), orders_that_disagree),
    "judge_is_readable": DataCheck("gold_rewards", ("counts",), unreadable_judgements),
    "pairs_add_up": DataCheck("implicit_pairs", ("rewards", "pairs", "counts", "pairs_section"), account_of_pairs),
    "pairs_agree_with_gold": DataCheck("implicit_pairs", ("rewards", "pairs"), agreement_with_gold),
    "enough_pairs": DataCheck("implicit_pairs", ("counts",), number_of_pairs),
    "ties_are_few": DataCheck("implicit_pairs", ("counts",), share_of_ties),
    "pairs_are_distinct": DataCheck("implicit_pairs", ("pairs",), repeated_pairs),
    "length_does_not_decide": DataCheck("implicit_pairs", ("pairs",), length_bias),
}
"""By name, beside SPLIT_CHECKS; severity, limit and description are those of the recipe's section `checks`."""


def advantage_over_length(report: Mapping[str, Any]) -> Finding:
    """Passes if the model's advantage over the length baseline is above 0 by its whole interval."""
    advantage = report["length_baseline"]["model_advantage"]
    sentence = f"match rate minus length baseline: {advantage['value']:.3f} ({advantage['low']:.3f} to {advantage['high']:.3f}, n = {advantage['n']})"
    return Finding(
        advantage["low"] > 0,
        sentence,
        {"rm/advantage_over_length": advantage["value"], "rm/advantage_over_length_low": advantage["low"]},
    )
