"""The README.md of a release: what the model is, how well it agrees with gold, where it comes from, how to use it."""

from collections.abc import Mapping
from typing import Any

import yaml

from rm_assets.core.recipe import (
    ClassifierGold,
    CombinedGold,
    ExistingModel,
    GoldSection,
    JudgeGold,
    Recipe,
    Regression,
    SoftBradleyTerry,
    TrainingSection,
)
from rm_assets.core.report import render_markdown

USAGE = """\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

path = "{path}"
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path)
messages = [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]
{encode}
with torch.inference_mode():
    reward = model(**inputs).logits[0, 0].item()
```"""
ENCODE_DECODER = """\
text = tokenizer.apply_chat_template(messages, tokenize=False)
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")  # the template writes every special token"""
ENCODE_PAIR = 'inputs = tokenizer(messages[0]["content"], messages[1]["content"], return_tensors="pt")'


def model_card(recipe: Recipe, report: Mapping[str, Any], lineage: Mapping[str, str], *, reads_text_pairs: bool) -> str:
    """The card as Markdown with the Hub's YAML header. `lineage` maps assets to data versions."""
    match = report["match_rate"]
    header: dict[str, Any] = {
        "license": recipe.release.license,
        "language": recipe.release.language,
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "rm_assets", *recipe.release.tags],
    }
    if recipe.training.base.hub_id:
        header["base_model"] = recipe.training.base.hub_id
    title = recipe.release.hub_id or f"Reward model {recipe.name}"
    training = report["training"]
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
            f"# {title}\n",
            f"A reward model: it gives one number to a response, higher for better. {report['verdict']}\n",
            recipe.description + "\n" if recipe.description else "",
            f"Match rate with gold on held-out prompts: **{match['value']:.3f}** (95 % interval {match['low']:.3f} to {match['high']:.3f}, n = {match['n']}; {match['tie_rule']}).\n",
            "## Use\n",
            USAGE.format(path=recipe.release.hub_id or ".", encode=ENCODE_PAIR if reads_text_pairs else ENCODE_DECODER),
            "\nOnly differences between rewards of responses to the same prompt have a meaning: P(a better than b) = sigmoid(reward(a) - reward(b)).\n",
            "## Data and training\n",
            f"- Base: {recipe.training.base.hub_id or 'a local checkpoint, fingerprint in rm_assets.json'}",
            f"- Gold: {describe_gold(recipe.gold)}",
            *_training(recipe, training),
            "",
            "## Limits\n",
            "It imitates its gold labels, with their faults and biases, on prompts like those it was trained on. It was not tested as the target of optimisation: a policy trained against it may find responses that it rates too high.\n",
            "## Lineage\n",
            *[f"- {asset}: `{data_version}`" for asset, data_version in lineage.items()],
            "\n## Citation\n",
            "```bibtex\n@misc{reward_model,\n  title = {" + title + "},\n  note = {Built with rm_assets}\n}\n```\n",
            ""
            if isinstance(recipe.training, ExistingModel)
            else "Training objective: Bradley and Terry (1952), Rank analysis of incomplete block designs.\n",
            "## Evaluation report\n",
            render_markdown(report, recipe_name=recipe.name, lineage=lineage).replace("\n#", "\n##"),
        ]
    )


def _training(recipe: Recipe, training: Mapping[str, Any]) -> list[str]:
    """What it was trained on and how, as far as that is known."""
    section = recipe.training
    if isinstance(section, ExistingModel):
        where = f"{section.model.hub_id}, commit {training['commit']}" if section.model.hub_id else "a local checkpoint"
        return [
            f"- Not trained by this recipe: the weights are those of {where}; what they were trained on is not known here"
        ]
    return [
        f"- Pairs: {training['num_pairs']['trained']} trained on of {training['num_pairs']['in']}, policy `{recipe.pairs.policy}`, ties dropped, duplicates {'kept' if recipe.pairs.duplicates == 'keep' else 'dropped'}, least margin {recipe.pairs.min_margin}",
        f"- {training['num_optimizer_steps']} optimizer steps of {section.pairs_per_step} pairs, learning rate {section.learning_rate}, {section.schedule}, {_objective(section)}",
    ]


def _objective(section: TrainingSection) -> str:
    match section.objective:
        case SoftBradleyTerry() as soft:
            return f"Bradley-Terry loss with soft labels, sigmoid(gold margin / {soft.temperature:g})"
        case Regression():
            return "squared error to the gold rewards"
        case hard:
            return "Bradley-Terry loss" + (
                f" with {hard.margin_scale:g} times the gold margin" if hard.margin_scale else ""
            )


def describe_gold(gold: GoldSection) -> str:
    """Whose labels these are, in a few words."""
    if isinstance(gold, CombinedGold):
        scorers = "; ".join(
            f"{s.name}, {describe_gold(s.gold)}" + (f", weight {s.weight:g}" if gold.combine == "weighted" else "")
            for s in gold.scorers
        )
        how = {"mean": "the mean", "worst_case": "the worst case", "weighted": "the weighted mean"}[gold.combine]
        return f"{how} of {'standardized ' if gold.standardize else ''}rewards ({scorers})"
    if isinstance(gold, ClassifierGold):
        return f"rewards of {gold.model.hub_id or 'a local gold model'}"
    if isinstance(gold, JudgeGold):
        return f"comparisons by {gold.model} ({gold.revision}), each in both orders"
    return {
        "verifier": "a rule-based verifier",
        "preferences": "recorded preferences",
        "human": "rankings by people",
    }.get(gold.kind, "recorded rewards")
