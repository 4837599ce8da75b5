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
from rm_assets.core.report.markdown import render_markdown

LOAD_WHOLE = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

path = "{path}"
tokenizer = AutoTokenizer.from_pretrained(path{revision})
model = AutoModelForSequenceClassification.from_pretrained(path{revision})"""
LOAD_ADAPTER = """\
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

path = "{path}"
tokenizer = AutoTokenizer.from_pretrained(path{revision})
model = AutoPeftModelForSequenceClassification.from_pretrained(
    path, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32{revision}
).eval()"""
USAGE = """\
```python
import torch
{load}

messages = [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]
{encode}
with torch.inference_mode():
    reward = model(**inputs).logits[0, 0].item()
```"""
ENCODE_DECODER = """\
text = tokenizer.apply_chat_template(messages, tokenize=False{options})
# the template writes every special token
inputs = tokenizer(text, add_special_tokens=False, truncation=True, max_length={max_length}, return_tensors="pt")"""
ENCODE_PAIR = """\
prompt = "\\n\\n".join(message["content"] for message in messages[:-1])
inputs = tokenizer(
    prompt, messages[-1]["content"], truncation="only_second", max_length={max_length}, return_tensors="pt"
)"""


def model_card(
    recipe: Recipe,
    report: Mapping[str, Any],
    lineage: Mapping[str, str],
    *,
    reads_text_pairs: bool,
    template_options: Mapping[str, str],
    revision: str,
) -> str:
    """The card as Markdown with the Hub's YAML header.

    `lineage` maps assets to data versions, `template_options` are what the chat template has to be given, `revision` is the
    tag that names these files on the Hub.
    """
    match, training = report["match_rate"], report["training"]
    title = recipe.release.hub_id or f"Reward model {recipe.name}"
    header = yaml.safe_dump(_header(recipe, report, title), sort_keys=False, allow_unicode=True)
    return "\n".join(
        [
            f"---\n{header}---\n",
            f"# {title}\n",
            f"A reward model: it gives one number to a response, higher for better. {report['verdict']}\n",
            recipe.description + "\n" if recipe.description else "",
            f"Match rate with gold on held-out prompts: **{match['value']:.3f}** (95 % interval {match['low']:.3f} to {match['high']:.3f}, n = {match['n']}; {match['tie_rule']}).\n",
            "## Use\n",
            _usage(recipe, training["max_length"], reads_text_pairs, template_options, revision),
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
            f"```bibtex\n@misc{{reward_model,\n  title = {{{title}}},\n  version = {{{revision}}},\n  note = {{Built with rm_assets}}\n}}\n```\n",
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


def _usage(
    recipe: Recipe, max_length: int, reads_text_pairs: bool, template_options: Mapping[str, str], revision: str
) -> str:
    """Code that gives the reported rewards."""
    named = f', revision="{revision}"' if recipe.release.hub_id else ""
    load = LOAD_ADAPTER if recipe.release.form == "adapter" else LOAD_WHOLE
    options = "".join(f', {name}="{value}"' for name, value in template_options.items())
    encode = ENCODE_PAIR if reads_text_pairs else ENCODE_DECODER
    return USAGE.format(
        load=load.format(path=recipe.release.hub_id or ".", revision=named),
        encode=encode.format(options=options, max_length=max_length),
    )


def _header(recipe: Recipe, report: Mapping[str, Any], title: str) -> dict[str, Any]:
    """What the Hub reads of a card, with the results as its `model-index`."""
    release, base = recipe.release, recipe.training.base.hub_id
    metrics = [
        _metric("accuracy", "Match rate with gold", report["match_rate"]),
        _metric("accuracy", "Length-balanced match rate", report["without_length"]["balanced"]),
        _metric("expected_calibration_error", "Calibration error", report["calibration"]["expected_calibration_error"]),
        _metric("spearmanr", "Spearman correlation with gold", report["rank_correlation"]["spearman"]),
    ]
    result = {
        "task": {"type": "text-classification", "name": "Reward modeling"},
        "dataset": {"type": recipe.name, "name": f"Held-out test prompts of recipe {recipe.name}", "split": "test"},
        "metrics": [metric for metric in metrics if metric is not None],
    }
    return {
        "license": release.license,
        "language": release.language,
        "library_name": "peft" if release.form == "adapter" else "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "rm_assets", *release.tags],
        **({"base_model": base} if base else {}),
        "model-index": [{"name": title, "results": [result]}],
    }


def _metric(kind: str, name: str, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One metric with its interval and n; None where there is no value."""
    if found is None or found["value"] is None:
        return None
    beside = {key: found[key] for key in ("low", "high", "n", "tie_rule", "by_chance") if found.get(key) is not None}
    return {"type": kind, "name": name, "value": found["value"], "args": beside}


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
