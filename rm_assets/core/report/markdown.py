"""The evaluation report as Markdown, for the web UI and the model card; a comparison, for a comment.

Prompts and responses are untrusted text: they stand in code blocks with fences longer than any they contain.
"""

import re
from collections.abc import Mapping
from typing import Any

from rm_assets.core.report.comparison_table import HEADER, conclusion, disagreement_texts, left_out_text, text_rows
from rm_assets.core.report.mistakes import mistake_sides, mistake_title
from rm_assets.core.report.tables import Table, report_tables
from rm_assets.core.report.texts import printable


def render_markdown(report: Mapping[str, Any], *, recipe_name: str, lineage: Mapping[str, str]) -> str:
    """The report as GitHub-flavoured Markdown; `lineage` maps names (of assets, models, files) to versions."""
    parts = [f"# Evaluation report: {_inline(recipe_name)}", _inline(report["verdict"])]
    if report["diagnosis"]:
        parts.append("## Diagnosis")
        parts.append(
            "\n".join(
                f"- **{_inline(sign['sign'])}** ({sign['severity']}): {_inline(sign['evidence'])}. "
                f"Remedy: {_inline(sign['remedy'])}."
                for sign in report["diagnosis"]
            )
        )
    else:
        parts += ["## Diagnosis", "No warning sign."]
    tables = [*report_tables(report), Table("Lineage", ("input", "version"), list(lineage.items()))]
    for table in tables:
        parts += [f"## {table.title}", *([_inline(table.lead)] if table.lead else []), _markdown_table(table)]
        parts += [_inline(table.note)] if table.note else []
    if report["worst_mistakes"]:
        parts.append("## Worst mistakes")
    for number, mistake in enumerate(report["worst_mistakes"], 1):
        parts.append(f"### {_inline(mistake_title(number, mistake))}")
        if mistake["system"]:
            parts += ["System", _fenced(printable(mistake["system"]))]
        for turn in mistake.get("history", []):
            parts += [f"Before, {turn['role']}", _fenced(printable(turn["content"]))]
        parts += ["Prompt", _fenced(printable(mistake["prompt"]))]
        for title, figures, text in mistake_sides(mistake):
            parts += [f"{title} ({figures})", _fenced(text)]
    return "\n\n".join(parts) + "\n"


def render_comparison(found: Mapping[str, Any]) -> str:
    """A comparison (see core.report.comparison_table.compare_all): its table, best first, what it says, and its "warnings"."""
    warnings = [f"Warning: {text}" for text in found.get("warnings", [])]
    sentences = [*warnings, conclusion(found), *disagreement_texts(found), *left_out_text(found)]
    return "\n\n".join([_markdown_table(Table("", HEADER, text_rows(found))), *map(_inline, sentences)]) + "\n"


def _inline(text: str) -> str:
    """One line in which no character means anything to Markdown or HTML."""
    line = " ".join(printable(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line)


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _markdown_table(table: Table) -> str:
    header, *rows = ("| " + " | ".join(_inline(cell) for cell in row) + " |" for row in (table.header, *table.rows))
    return "\n".join([header, "| :--- |" + " ---: |" * (len(table.header) - 1), *rows])
