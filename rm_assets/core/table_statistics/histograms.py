"""Histograms as an SVG picture, from the statistics of an asset.

Written as text: a picture for each of four small tables would spend more time on importing matplotlib than on the table
(docs/decisions/0012).
"""

import html
from collections.abc import Mapping
from typing import Any

from rm_assets.core.report.figure import CHOSEN, GRID, INK, REJECTED

WIDTH, HEIGHT, MARGIN, TOP = 340, 200, 28, 52
"""Of one panel, in pixels; bars have what is left by the margin at either side and below, and by the title."""


def histograms_svg(stats: Mapping[str, Any]) -> str:
    """One panel a distribution, side by side: bars, the median, and the values at both ends. `stats` is stats.json."""
    panels = [
        _panel(index * WIDTH, name, stats["meaning"][name], histogram, stats["all"]["distributions"][name])
        for index, (name, histogram) in enumerate(stats["histograms"].items())
    ]
    width = WIDTH * max(1, len(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'font-family="DejaVu Sans, Arial, sans-serif" font-size="10" fill="{INK}">'
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(left: int, name: str, meaning: str, histogram: Mapping[str, Any], distribution: Mapping[str, Any]) -> str:
    counts, edges = histogram["counts"], histogram["edges"]
    scale = "scale of log(1 + x)" if histogram["on_log"] else ""
    bottom, width = HEIGHT - MARGIN, WIDTH - 2 * MARGIN
    step = width / len(counts)
    heights = [(bottom - TOP) * count / max(counts) for count in counts]
    bars = "".join(
        f'<rect x="{left + MARGIN + place * step:.1f}" y="{bottom - height:.1f}" width="{step * 0.92:.1f}" '
        f'height="{height:.1f}"/>'
        for place, height in enumerate(heights)
        if height
    )
    median = distribution["quantiles"]["0.5"]
    at = left + MARGIN + width * _place(median, edges)
    side = "start" if _place(median, edges) < 0.7 else "end"
    return (
        f'<text x="{left + MARGIN}" y="16" font-size="13">{html.escape(name)}, n = {distribution["n"]:,}</text>'
        f'<text x="{left + MARGIN}" y="30" font-size="9">{html.escape(meaning)}</text>'
        f'<path d="M{left + MARGIN} {bottom}h{width}" stroke="{GRID}"/>'
        f'<g fill="{CHOSEN}">{bars}</g>'
        f'<path d="M{at:.1f} {TOP - 4}V{bottom}" stroke="{REJECTED}" stroke-width="1.5"/>'
        f'<text x="{at:.1f}" y="{TOP - 7}" fill="{REJECTED}" text-anchor="{side}">median {median:.4g}</text>'
        f'<text x="{left + MARGIN}" y="{bottom + 14}">{edges[0]:.4g}</text>'
        f'<text x="{left + WIDTH / 2}" y="{bottom + 14}" text-anchor="middle">{scale}</text>'
        f'<text x="{left + MARGIN + width}" y="{bottom + 14}" text-anchor="end">{edges[-1]:.4g}</text>'
    )


def _place(value: float, edges: list[float]) -> float:
    """Where on the axis the value lies, 0 to 1: edges are evenly spaced there. In the middle of a single bar."""
    if len(edges) == 2:
        return 0.5
    below = max(0, min(sum(edge <= value for edge in edges) - 1, len(edges) - 2))
    return (below + (value - edges[below]) / (edges[below + 1] - edges[below])) / (len(edges) - 1)
