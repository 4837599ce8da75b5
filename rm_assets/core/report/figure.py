"""How every picture looks, and a figure as PNG bytes.

Figures are built without pyplot, so that nothing global changes and any thread may draw. Colours are told apart by
readers with colour-vision deficiency: blue for chosen, orange for rejected, dark to light from best gold to worst.
"""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN, REJECTED, INK, GRID = "#2b6cb0", "#dd8033", "#2d3748", "#e2e8f0"
DPI = 144


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12)
    FigureCanvasAgg(figure)
    return figure


def set_titles(axes: "Axes", title: str, horizontal: str, vertical: str, *, pad: float = 8) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=pad)
    axes.set_xlabel(horizontal, fontsize=9, color=INK)
    axes.set_ylabel(vertical, fontsize=9, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#a0aec0")


def short_label(text: str, most: int) -> str:
    """One short line of the text, with a box for characters that the font cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    line = " ".join(text.split())
    line = line if len(line) <= most else line[: most - 1].rstrip() + "…"
    return "".join(character if ord(character) in known else "□" for character in line)


def as_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": ""})
    return buffer.getvalue()
