"""Rendering: complete, escaped, self-contained."""

import base64
from html.parser import HTMLParser
from typing import Any

import pytest

from rm_assets.core.evaluation import ScoredResponse, build_report
from rm_assets.core.recipe import EvaluationSection
from rm_assets.core.records import GoldReward, Pair, conversation
from rm_assets.core.report.html import render_html
from rm_assets.core.report.markdown import render_markdown

HOSTILE = "<script>alert('x')</script> </pre> ````\n| a | b |\n\x00\ud800 <img src=x onerror=alert(1)>"


def scored(prompt: int, index: int, reward: float) -> ScoredResponse:
    row = GoldReward(
        prompt_id=f"p{prompt}", prompt=f"{HOSTILE} prompt", system=HOSTILE,
        history=[{"role": "user", "content": f"{HOSTILE} said before"}], reference=None, source=f"a|b{HOSTILE}",
        split="test", external_id=None, row=prompt, response_id=f"p{prompt}r{index}", sample_index=index,
        response=f"{HOSTILE} response {index}", model="m", seed=0, num_tokens=1, finished=True,
        gold_reward=float(index), components={"format": float(index)},
    )  # fmt: skip
    return ScoredResponse(gold=row, reward=reward, num_tokens=2)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    test = [scored(p, k, reward=float(k if p < 30 else -k)) for p in range(40) for k in (0, 1)]
    pair = Pair(
        pair_id="t", prompt_id="tp", source="s", split="train", chosen=conversation("p", None, "longer"),
        rejected=conversation("p", None, "short"), chosen_id="a", rejected_id="b", chosen_gold_reward=1.0,
        rejected_gold_reward=0.0, gold_margin=1.0,
    )  # fmt: skip
    return build_report(
        test=test, scored_train_pairs=[(pair, 1.0, 0.0)] * 30, train_pairs=[pair] * 30,
        settings=EvaluationSection(num_worst_mistakes=3),
        canaries=[{"messages": pair.chosen, "text": HOSTILE, "reward": 0.25}],
        training={"final_loss": 0.41, "num_optimizer_steps": 12, "validation_accuracy": None},
    )  # fmt: skip


class _Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_html_is_well_formed_and_untrusted_text_stays_text(found: dict[str, Any]) -> None:
    page = render_html(found, recipe_name="<b>mine</b>", lineage={"x<y": "<i>1</i>"}, plots={})
    reader = read(page)
    assert reader.open == []
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "img", "base", "iframe", "link", "i"}
    assert "<script>alert('x')</script>" in reader.text and "<b>mine</b>" in reader.text
    assert not [key for _, attributes in reader.tags for key in attributes if key.startswith("on")]


def test_html_needs_nothing_from_outside(found: dict[str, Any]) -> None:
    png = b"\x89PNG not really"
    page = render_html(found, recipe_name="mine", lineage={}, plots={"score_plot": png})
    images = [attributes["src"] for tag, attributes in read(page).tags if tag == "img"]
    assert images == ["data:image/png;base64," + base64.b64encode(png).decode()]
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert "default-src 'none'" in page and "prefers-color-scheme:dark" in page and "@media print" in page


def test_both_forms_can_be_written_as_utf_8(found: dict[str, Any]) -> None:
    for text in (
        render_html(found, recipe_name="mine", lineage={}, plots={}),
        render_markdown(found, recipe_name="mine", lineage={}),
    ):
        assert text.encode() and "\x00" not in text


def test_both_forms_show_the_verdict_the_figures_with_n_and_the_lineage(found: dict[str, Any]) -> None:
    page = read(render_html(found, recipe_name="mine", lineage={"gold_rewards": "abc123"}, plots={})).text
    markdown = render_markdown(found, recipe_name="mine", lineage={"gold": "abc123"})
    assert found["verdict"] in page and found["verdict"] in markdown
    for text in (page, markdown):
        for part in (
            "75.0 %",
            "59.8 to 85.8 %",
            "40",
            "length alone: longer is better",
            "abc123",
            "few training pairs",
        ):
            assert part in text
        assert text.count("Wrong by 1.00 log odds") == 3


def test_both_forms_show_what_was_said_before_a_mistake(found: dict[str, Any]) -> None:
    for text in (
        render_markdown(found, recipe_name="r", lineage={}),
        render_html(found, recipe_name="r", lineage={}, plots={}),
    ):
        assert text.count("Before, user") == 3 and text.count("said before") == 3


def test_markdown_cells_and_fences_hold_hostile_text(found: dict[str, Any]) -> None:
    assert "Match rate by source" not in render_markdown(found, recipe_name="mine", lineage={})  # of one source
    two_sources = found | {"by_source": found["by_source"] | {"other": found["match_rate"]}}
    lines = render_markdown(two_sources, recipe_name="mine", lineage={}).splitlines()
    inside, fence = False, ""
    for line in lines:
        if inside:
            inside = line != fence
        elif line.startswith("```"):
            fence, inside = line.removesuffix("text"), True
            assert len(fence) == 5  # longer than the four in the text
        else:
            assert "<" not in line
    assert not inside
    source = next(line for line in lines if line.startswith("| a\\|b"))
    assert source.replace("\\|", "").count("|") == 5  # four columns


def test_a_report_without_signs_mistakes_or_training_scores_renders(found: dict[str, Any]) -> None:
    nothing = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    gap = found["generalization_gap"] | {"value": None, "low": None, "high": None}
    bare = found | {"diagnosis": [], "worst_mistakes": [], "canaries": [], "format_baseline": None}
    bare |= {"train_accuracy": nothing, "generalization_gap": gap, "training": {}}
    page = render_html(bare, recipe_name="mine", lineage={}, plots={})
    assert "No warning sign." in page and "Worst mistakes" not in page and "None" not in page
    assert "No warning sign." in render_markdown(bare, recipe_name="mine", lineage={})
