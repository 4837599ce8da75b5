"""The evaluation report as one HTML file that needs nothing else.

Prompts and responses are untrusted text: all of it is escaped, nothing is fetched and no script can run.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rm_assets.core.report.mistakes import mistake_sides, mistake_title
from rm_assets.core.report.tables import BREAKDOWNS, Table, report_tables
from rm_assets.core.report.texts import count_text, interval_text, percent, points, printable

_CAPTIONS = {
    "score_plot": "Left: rewards of the first test prompts, best gold first. Right: chosen against rejected.",
    "gold_scatter": "Reward against gold reward, a dot for each test response.",
    "reliability": "How often gold agrees, by how sure the model is. On the diagonal it is as right as it is sure.",
    "best_of_n": "Gold reward of the response that the model likes best among n, as choosing moves the policy away from itself.",
    "learning_curve": "Match rate by the number of training pairs, with 95 % intervals, and accuracy on each model's own training pairs.",
    "training_curve": "Loss and accuracy while training.",
}


def render_html(
    report: Mapping[str, Any], *, recipe_name: str, lineage: Mapping[str, str], plots: Mapping[str, bytes]
) -> str:
    """The report as one HTML file; `plots` maps names (see `_CAPTIONS`) to PNGs."""
    match, length = report["match_rate"], report["length_baseline"]
    title = f"Evaluation report: {_text(recipe_name)}"
    figures = "".join(_html_figure(name, png) for name, png in plots.items())
    tables = "".join(
        _html_table(table, report[BREAKDOWNS[table.title][0]] if table.title in BREAKDOWNS else None)
        for table in report_tables(report)
    )
    versions = Table("Lineage", ("input", "version"), list(lineage.items()))
    body = (
        f"<header><p class=kind>Evaluation report</p><h1>{_text(recipe_name)}</h1>"
        f"<p class=verdict>{_text(report['verdict'])}</p>"
        f"{_html_key_figures(match, length, report['train_accuracy'])}</header>"
        f"<section><h2>Diagnosis</h2>{_html_diagnosis(report['diagnosis'])}</section>"
        f"<section><h2>Plots</h2><div class=plots>{figures}</div></section>{tables}{_html_mistakes(report['worst_mistakes'])}"
        f"{_html_canaries(report['canaries'])}{_html_table(versions)}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_CSS}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def _text(value: str) -> str:
    return escape(printable(value), quote=True)


def _html_key_figures(match: Mapping[str, Any], length: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    gain = length["model_advantage"]
    figures = (
        (percent(match["value"]), "match rate", f"{interval_text(match)}, n = {count_text(match['n'])}"),
        (
            points(gain["value"]),
            "points ahead of length",
            f"{points(gain['low'])} to {points(gain['high'])}, n = {count_text(gain['n'])}",
        ),
        *([(percent(train["value"]), "on training pairs", f"n = {count_text(train['n'])}")] if train["n"] else []),
        (
            percent(match["tie_rate"]),
            "ties in gold",
            f"{count_text(match['num_ties'])} of {count_text(match['n'] + match['num_ties'])} pairs",
        ),
    )
    items = "".join(
        f"<div><dt>{name}</dt><dd><b>{value}</b><small>{note}</small></dd></div>" for value, name, note in figures
    )
    return f"<dl class=figures>{items}</dl>"


def _html_diagnosis(diagnosis: Sequence[Mapping[str, str]]) -> str:
    if not diagnosis:
        return "<p>No warning sign.</p>"
    items = "".join(
        f"<li class={_text(sign['severity'])}><h3>{_text(sign['sign'])} <small>{_text(sign['severity'])}</small></h3>"
        f"<p>{_text(sign['evidence'])}.</p><p><b>Remedy:</b> {_text(sign['remedy'])}.</p></li>"
        for sign in diagnosis
    )
    return f"<ul class=signs>{items}</ul>"


def _html_figure(name: str, png: bytes) -> str:
    caption = _text(_CAPTIONS.get(name, name))
    data = base64.b64encode(png).decode("ascii")
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f'<figure class="{_text(name)}">{image}<figcaption>{caption}</figcaption></figure>'


def _html_table(table: Table, rates: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A section with the table; with `rates`, its first column's names, each row also draws its interval."""
    head = "".join(f"<th scope=col>{_text(name)}</th>" for name in table.header)
    head += "<th scope=col class=strip>0 · 50 · 100 %</th>" if rates else ""
    rows = "".join(
        f"<tr><th scope=row>{_text(row[0])}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in row[1:])}"
        f"{_interval_strip(rates[row[0]]) if rates else ''}</tr>"
        for row in table.rows
    )
    lead = f"<p>{_text(table.lead)}</p>" if table.lead else ""
    note = f"<p class=note>{_text(table.note)}</p>" if table.note else ""
    kind = "lineage" if table.title == "Lineage" else "data"
    return (
        f"<section><h2>{_text(table.title)}</h2>{lead}<div class=wide><table class={kind}><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _interval_strip(rate: Mapping[str, Any]) -> str:
    """A line from low to high with a dot at the value, on a scale from 0 to 1 with a mark at one half."""
    low, value, high = (4 + 132 * rate[key] for key in ("low", "value", "high"))
    return (
        '<td class=strip><svg width="140" height="14" viewBox="0 0 140 14" aria-hidden="true">'
        '<path class=axis d="M4 7H136M70 1V13"/>'
        f'<path class=span d="M{low:.1f} 7H{high:.1f}"/><circle cx="{value:.1f}" cy="7" r="3.5"/></svg></td>'
    )


def _html_mistakes(mistakes: Sequence[Mapping[str, Any]]) -> str:
    if not mistakes:
        return ""
    items = []
    for number, mistake in enumerate(mistakes, 1):
        system = f"<h4>System</h4><pre dir=auto>{_text(mistake['system'])}</pre>" if mistake["system"] else ""
        earlier = "".join(
            f"<h4>Before, {_text(turn['role'])}</h4><pre dir=auto>{_text(turn['content'])}</pre>"
            for turn in mistake.get("history", [])
        )
        sides = "".join(
            f"<div><h4>{title} <small>{_text(figures)}</small></h4><pre dir=auto>{escape(text)}</pre></div>"
            for title, figures, text in mistake_sides(mistake)
        )
        items.append(
            f"<article><h3>{_text(mistake_title(number, mistake))}</h3>{system}{earlier}<h4>Prompt</h4>"
            f"<pre dir=auto>{_text(mistake['prompt'])}</pre><div class=sides>{sides}</div></article>"
        )
    intro = "<p>Test pairs that the model orders against gold, the one that it is surest of first.</p>"
    return f"<section><h2>Worst mistakes</h2>{intro}{''.join(items)}</section>"


def _html_canaries(canaries: Sequence[Mapping[str, Any]]) -> str:
    if not canaries:
        return ""
    rows = "".join(
        f"<tr><td><pre dir=auto>{_text(str(canary.get('text', canary['messages'])))}</pre></td>"
        f"<td>{canary['reward']:.6f}</td></tr>"
        for canary in canaries
    )
    intro = "<p>A copy of the model must give these rewards to these texts.</p>"
    head = "<th scope=col>rendered text</th><th scope=col>reward</th>"
    table = f"<table class=canaries><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>Canaries</h2>{intro}<div class=wide>{table}</div></section>"


_CSS = """
:root{color-scheme:light dark;--ink:#1f2933;--soft:#5a6775;--line:#dde2e8;--page:#fff;--tint:#f5f7f9;--mark:#2b6cb0;
--warn:#b4531a}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa7b4;--line:#37414c;--page:#161b21;--tint:#1e252d;
--mark:#6fb0ec;--warn:#e8935a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .75rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.75rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:0 0 .35rem}h4{font-size:.8rem;font-weight:600;margin:.8rem 0 .3rem}
small{font-weight:400;color:var(--soft);font-size:.8rem}
.kind{margin:0;color:var(--soft);font-size:.85rem}.verdict{font-size:1.1rem;max-width:46rem;margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:1rem;margin:1.75rem 0 0}
.figures div{border-top:3px solid var(--mark);padding-top:.5rem}
dt{font-size:.85rem;color:var(--soft)}dd{margin:0}
dd b{display:block;font-size:1.7rem;line-height:1.3;font-variant-numeric:tabular-nums}
.signs{list-style:none;margin:0;padding:0}
.signs li{border-left:3px solid var(--soft);padding:.1rem 0 .1rem 1rem;margin:0 0 1.1rem}
.signs li.problem{border-color:var(--warn)}.signs p::first-letter{text-transform:uppercase}
.signs p{margin:.15rem 0;max-width:48rem}
.signs h3::first-letter{text-transform:uppercase}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
table.data{width:100%}table.data td{white-space:nowrap}
th,td{padding:.38rem .75rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}tbody th{font-weight:400;overflow-wrap:anywhere}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}
table.lineage td{text-align:left;font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.82rem;
overflow-wrap:anywhere}table.lineage th{text-align:left}
table.canaries{width:100%}.canaries td:first-child{width:100%}.strip{width:150px;white-space:nowrap;padding-right:0}
.note{color:var(--soft);font-size:.85rem;max-width:52rem}
svg{display:inline-block;vertical-align:middle}svg path{fill:none;stroke:var(--line);stroke-width:1}
svg .span{stroke:var(--mark);stroke-width:2}svg circle{fill:var(--mark)}
figure{margin:0 0 1.5rem}img{max-width:100%;height:auto;background:#fff;border-radius:4px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:0 1.5rem}
.score_plot,.training_curve{grid-column:1/-1}.plots img{width:100%}
figcaption{color:var(--soft);font-size:.85rem;margin-top:.25rem}
pre{margin:0;padding:.6rem .75rem;background:var(--tint);border-radius:4px;
font:.82rem/1.5 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;
overflow-y:auto}
article{margin:0 0 2rem}.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 1rem}
.sides h4 small{margin-left:.35rem}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--page:#fff;--tint:#f4f4f4;--mark:#2b6cb0;
--warn:#b4531a}
body{font-size:10.5pt}main{max-width:none;padding:0}pre{max-height:none;overflow:visible}.wide{overflow:visible}
figure,tr,.signs li{break-inside:avoid}h2,h3,h4{break-after:avoid}}
"""
