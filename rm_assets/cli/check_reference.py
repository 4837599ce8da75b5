"""The reference of all assets and their checks as Markdown: `python -m rm_assets.cli.check_reference > docs/checks.md`."""

import dagster as dg

from rm_assets.core.recipe import ChecksSection, GateSection
from rm_assets.core.stages import STAGES
from rm_assets.definitions import defs

INTRODUCTION = """# Assets and checks

<!-- Made by `python -m rm_assets.cli.check_reference > docs/checks.md`. Descriptions and limits are those of the code; what to do is in that module. -->

An asset is made of a section of its recipe, in the web UI's lineage `recipe_SECTION` before it, and of the assets that it reads. A check looks at what a run has made or found. With severity
`error` nothing is built on a fault, with `warn` it is said, with `ignore` nothing is looked at. A recipe changes severity and limit
in the section that stands with the default, `checks` or `gate`, for example `checks: { ties_are_few: { severity: error, limit: 0.8 } }`;
a changed limit rebuilds nothing. How the checks look: [data.md](data.md#checks), and for the gate [releasing.md](releasing.md#the-gate).
"""
DRIFT = "Look at the histograms of both versions (`histograms.svg`, `rm-assets stats`). If the change is wanted, there is nothing to do: the next version is compared with this one."
FAULT = "A fault of the software or a damaged file: make the asset again, and report it if it stays."
BASE = "The message says what is wrong and which key of `training.base` mends it ([MODEL_003, MODEL_004](errors.md))."
REMEDIES: dict[str, str] = {
    "splits_are_disjoint": "Remove the prompts that are named from one side, or let `prompts.split` divide them.",
    "test_prompts_are_new": "Set `prompts.near_duplicates` so that prompts alike share a side, or bring other test prompts.",
    "sources_are_balanced": "Give the parts of a `mixture` other weights or a `max_prompts`.",
    "prompts_have_not_drifted": DRIFT,
    "prompt_lengths_are_usual": "Read the five at either end in `stats.json`: often a file pasted into a prompt, or an empty one.",
    "responses_stay_in_their_split": FAULT,
    "responses_are_not_empty": "Sampled: look at the chat template and stop conditions. Recorded: correct the rows or the field.",
    "responses_are_whole": "Raise `sampling.max_new_tokens`.",
    "responses_have_not_drifted": DRIFT,
    "response_lengths_are_usual": "Read the five at either end in `stats.json`: often a response that repeats itself.",
    "rewards_stay_in_their_split": FAULT,
    "rewards_follow_responses": "Name `gold.response_field`, so that each recorded reward finds its response by text.",
    "gold_saw_whole_responses": "Raise `gold.max_length`, or lower `sampling.max_new_tokens`.",
    "gold_tells_responses_apart": "Sample more or hotter responses, or use a gold of finer steps.",
    "judge_agrees_with_itself": "Use a better judge, or clearer `gold.instructions`. What it contradicts itself in are ties.",
    "judge_is_readable": "Look at the answers: a longer `gold.max_new_tokens`, or `gold.verdicts` that the judge does write.",
    "rewards_have_not_drifted": DRIFT,
    "rewards_are_usual": "Read the five at either end in `stats.json`: often a text that the gold model was not made for.",
    "pairs_stay_in_their_split": FAULT,
    "pairs_add_up": FAULT,
    "pairs_agree_with_gold": FAULT,
    "enough_pairs": "Bring more prompts, sample more responses, or take pairs of `pairs.policy: all`.",
    "ties_are_few": "Use a gold of finer steps, or sample more or hotter responses.",
    "pairs_are_distinct": "Look for duplicates in the responses; `pairs.duplicates: drop`, the default, removes them.",
    "length_does_not_decide": "Bring responses whose better one is the shorter, or watch the length-balanced match rate of the report.",
    "base_can_read_pairs": BASE,
    "one_start_token": BASE,
    "template_ignores_the_clock": BASE,
    "pad_is_not_the_end": BASE,
    "reward_is_read_at_the_end": BASE,
    "scoring_ends_as_training": "The message says which end is added: take it out of the tokenizer, or write it in `training.base.chat_template`.",
    "pairs_fit_the_model": "Raise `training.max_length`, or make shorter responses.",
    "pairs_have_not_drifted": DRIFT,
    "evaluation_is_not_trained_on": "Do not use the model. Make prompts to pairs again, and report it if it stays.",
    "training_pairs_add_up": FAULT,
    "rewards_ignore_the_batch": "The model's own code makes a reward depend on its batch: use another base, or float32.",
    "better_than_length": "The model may have learnt length alone: more pairs, longer training, or pairs in which length says nothing.",
    "match_rate_is_high": "Make a better model: the report's diagnosis names what is wrong with this one.",
    "no_worse_than_release": "Compare the two (`rm-assets compare`). If worse is wanted, set its severity to `warn`.",
    "confidence_is_calibrated": "Train shorter or on softer labels (`training.objective`); for a model by regression turn it off.",
    "length_is_not_the_reason": "As `length_does_not_decide`: the model goes by length.",
    "release_gives_the_reported_rewards": "Do not use the release ([RELEASE_002](errors.md)): make report and release again.",
}
"""By check: what to do when it fails."""


def reference() -> str:
    """The whole page: a section an asset, in the order of the graph."""
    graph = defs.resolve_asset_graph()
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    checks = {spec.key: spec for definition in defs.asset_checks or [] for spec in definition.check_specs}
    lines = [INTRODUCTION]
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys:  # a section of the recipe
            continue
        name = key.to_user_string()
        lines += [f"## {name}", "", str(specs[key].description), "", _made_of(name), ""]
        if rows := [_row(spec) for check, spec in checks.items() if check.asset_key == key]:
            lines += [
                "| check | passes if, or what it measures | default | when it fails |",
                "|---|---|---|---|",
                *rows,
                "",
            ]
    return "\n".join(lines)


def _made_of(asset: str) -> str:
    stage = STAGES.get(asset)
    if stage is None:
        return "Made for several recipes at once, from their `evaluation_report`s; in no recipe's run."
    read = ", ".join(f"`{name}`" for name in stage.inputs)
    return (
        f"Section [`{stage.section}`](recipes.md#{_anchor(stage.section)}) of the recipe, "
        + (f"from {read}" if read else "from its sources")
        + f"; stage version {stage.version}."
    )


def _anchor(section: str) -> str:
    """The anchor in docs/recipes.md of a section; of one with several kinds the table that lists them."""
    return "top-level" if section in ("sampling", "gold") else f"{section}section"


def _row(spec: dg.AssetCheckSpec) -> str:
    cells = (f"`{spec.name}`", str(spec.description), _default(spec), REMEDIES[spec.name])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(spec: dg.AssetCheckSpec) -> str:
    for section, fields in (("checks", ChecksSection.model_fields), ("gate", GateSection.model_fields)):
        if spec.name in fields:
            severity, *limits = fields[spec.name].default.model_dump().items()
            return ", ".join([f"`{section}`: {severity[1]}", *(f"{key} {value:g}" for key, value in limits)])
    return "error" if spec.blocking else "warn"  # no recipe changes it


if __name__ == "__main__":
    print(reference(), end="")
