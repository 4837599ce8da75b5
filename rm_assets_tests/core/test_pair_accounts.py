"""The account of pairs against one written out by brute force, over any number of responses, ties, texts and comparisons."""

from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from rm_assets.core.pairing import REASONS, make_pairs
from rm_assets.core.recipe import PairsSection
from rm_assets.core.records import GoldReward


class Drawn(NamedTuple):
    """A response: its text, its gold reward in tenths, and the comparison it belongs to."""

    text: str
    tenths: int
    comparison: str | None


def response(prompt: int, index: int, drawn: Drawn) -> GoldReward:
    return GoldReward(
        prompt_id=f"p{prompt}", prompt=f"question {prompt}", system=None, reference=None, source="s", split="train",
        external_id=None, row=prompt, response_id=f"p{prompt}r{index}", sample_index=index, response=drawn.text, model="m",
        seed=None, num_tokens=None, finished=None, gold_reward=drawn.tenths / 10, comparison=drawn.comparison,
    )  # fmt: skip


def by_hand(group: list[Drawn], policy: str, margin_tenths: int, duplicates: str) -> tuple[list[str], Counter[str]]:
    """The kept pairs of one prompt as "chosen rejected" places, and the reasons for the rest, in whole numbers throughout."""
    kept, reasons, texts = [], Counter[str](), []
    for comparison in dict.fromkeys(drawn.comparison for drawn in group):
        members = [i for i, drawn in enumerate(group) if drawn.comparison == comparison]
        rank = {i: sum((-group[j].tenths, j) < (-group[i].tenths, i) for j in members) for i in members}
        for better in sorted(members, key=lambda i: rank[i]):
            for worse in sorted(members, key=lambda i: rank[i]):
                is_candidate = {
                    "all": rank[better] < rank[worse],
                    "adjacent": rank[better] + 1 == rank[worse],
                    "best_worst": rank[better] == 0 < rank[worse] == len(members) - 1,
                }[policy]
                if not is_candidate:
                    continue
                margin, pair = group[better].tenths - group[worse].tenths, (group[better].text, group[worse].text)
                if pair[0] == pair[1]:
                    reasons["identical_text"] += 1
                elif margin == 0:
                    reasons["tie"] += 1
                elif margin < margin_tenths:
                    reasons["below_min_margin"] += 1
                elif duplicates == "drop" and pair in texts:
                    reasons["duplicate"] += 1
                else:
                    texts.append(pair)
                    kept.append(f"{better} {worse}")
    return kept, reasons


texts = st.one_of(st.sampled_from(["", "a", "b", "a ", "A"]), st.text(max_size=40))
prompts = st.lists(
    st.lists(
        st.builds(Drawn, texts, st.integers(-9, 9), st.sampled_from([None, None, "0", "1"])), min_size=1, max_size=8
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(
    prompts, st.sampled_from(["best_worst", "all", "adjacent"]), st.integers(0, 12), st.sampled_from(["drop", "keep"])
)
def test_candidates_are_the_kept_and_each_reason_as_counted_by_hand(
    groups: list[list[Drawn]], policy: str, margin_tenths: int, duplicates: str
) -> None:
    section = PairsSection.model_validate(
        {"policy": policy, "min_margin": margin_tenths / 10, "duplicates": duplicates}
    )
    stream, account = make_pairs(
        ([response(n, i, drawn) for i, drawn in enumerate(group)] for n, group in enumerate(groups)), section
    )
    pairs = list(stream)
    expected = [by_hand(group, policy, margin_tenths, duplicates) for group in groups]

    assert [(p.chosen_id, p.rejected_id) for p in pairs] == [
        tuple(f"p{n}r{place}" for place in pair.split()) for n, (kept, _) in enumerate(expected) for pair in kept
    ]
    reasons = sum((reasons for _, reasons in expected), Counter[str]())
    assert {reason: account[reason] for reason in REASONS} == {reason: reasons[reason] for reason in REASONS}
    assert account["candidates"] == account["kept"] + sum(account[reason] for reason in REASONS)
    assert account["kept"] == len(pairs)
    assert account.keys() == {"candidates", "kept", *REASONS}
    assert all(p.chosen_gold_reward > p.rejected_gold_reward for p in pairs)
    if duplicates == "drop":
        once = {(p.prompt_id, p.chosen[-1]["content"], p.rejected[-1]["content"]) for p in pairs}
        assert len(once) == len(pairs)
