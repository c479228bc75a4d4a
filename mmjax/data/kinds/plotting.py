"""Plots that several kinds share."""

import textwrap
from typing import Any


def draw_text(axis: Any, text: str, color: str = "black") -> None:
    """Writes a text, wrapped and cut to eight lines, in the middle of an axis."""
    axis.set_xticks([])
    axis.set_yticks([])
    wrapped = textwrap.fill(text, 16, max_lines=8, placeholder=" ...")
    centered = {"ha": "center", "va": "center", "transform": axis.transAxes}
    axis.text(0.5, 0.5, wrapped, fontsize=8, color=color, **centered)
