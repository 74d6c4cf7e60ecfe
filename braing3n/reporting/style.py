"""How figures look: one style, colours that colour-blind readers can tell apart, files for page and print."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from braing3n.files import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito, "Color universal design" (2008): distinct under the common forms of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PURPLE, YELLOW = "#56b4e9", "#cc79a7", "#f0e442"
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, "#8c6d46", "#7f7f7f")
CHANGE_COLOURS = "berlin"  # Crameri's diverging map: blue, black for no change, red; safe for colour-blind readers
# These, and the blue, follow the page's theme: in the SVG they become CSS variables of the same names.
INK, MUTED, GRID = "#1b1b1e", "#6a6a74", "#d8d8de"
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", BLUE: "var(--blue)"}

RC = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "braing3n",
}


def styled() -> AbstractContextManager:
    """Matplotlib's settings of the report, for the time of one drawing, without a display."""
    import matplotlib

    matplotlib.use("Agg")
    return matplotlib.rc_context(RC)


def save_chart(figure: Figure, stem: Path) -> list[Path]:
    """Write a chart as SVG (for the page, follows its theme) and PNG (on white), and close it."""
    import matplotlib.pyplot as plt

    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Creator": None, "Date": None})
    write_text(stem.with_suffix(".svg"), _inline(svg.getvalue(), f"{stem.parent.name}-{stem.name}"))
    png = io.BytesIO()
    figure.savefig(png, format="png", facecolor="white", metadata={"Software": None})
    write_bytes(stem.with_suffix(".png"), png.getvalue())
    plt.close(figure)
    return [stem.with_suffix(".png"), stem.with_suffix(".svg")]


def save_picture(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure of slices as PNG in the report's 256 colours, a quarter of the size in all colours; close it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    raw, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    plt.close(figure)
    palette = Image.new("P", (1, 1))
    palette.putpalette(picture_palette())
    image = Image.open(raw).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(packed, "png", optimize=True)
    write_bytes(stem.with_suffix(".png"), packed.getvalue())
    return [stem.with_suffix(".png")]


@cache
def picture_palette() -> bytes:
    """256 RGB triples: greys, the colours of changes, and outlines fading into dark and light."""
    import matplotlib
    from matplotlib.colors import to_rgb

    greys = [(level / 139,) * 3 for level in range(140)]
    changes = [matplotlib.colormaps[CHANGE_COLOURS](position / 91)[:3] for position in range(92)]
    lines = [to_rgb(colour) for colour in (YELLOW, SKY, ORANGE)]
    shades = [tuple(weight * c for c in line) for line in lines for weight in (1.0, 0.8, 0.6, 0.4)]
    tints = [tuple(weight * c + 1 - weight for c in line) for line in lines for weight in (0.75, 0.5, 0.25, 0.9)]
    colours = [*greys, *changes, *shades, *tints]
    return bytes(round(255 * channel) for colour in colours[:256] for channel in colour)


def _inline(svg: str, prefix: str) -> str:
    """An SVG document -> an element to put into a page: no prologue, unique ids, colours of the page's theme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    head, body = svg.split(">", 1)
    view = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', head)
    prefix = re.sub(r"\W+", "-", prefix)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for colour, variable in THEME.items():
        body = body.replace(colour, variable)
    return f'<svg {view.group(0)} style="width: 100%; max-width: {float(view.group(1)) * 4 / 3:.0f}px">{body}'
