"""Formats the rows of compiled programs as Markdown."""

from collections.abc import Sequence
from typing import Any

from scale.chips import CHIPS, parse_slice
from scale.programs import estimate_seconds

Row = dict[str, Any]

HEADER = (
    *("case", "slice", "chips", "arguments", "temporaries", "total (GB)", "of HBM"),
    *("TFLOP", "HBM (GB)", "collectives (GB)", "compute (ms)", "HBM (ms)", "network (ms)"),
    *("step (ms)", "efficiency"),
)


def format_rows(rows: Sequence[Row]) -> str:
    """Formats one line per compiled program, per chip and step; everything is estimated."""
    lines = [HEADER, [":--", ":--", *["--:"] * (len(HEADER) - 2)]]
    lines += [_format_row(row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _format_row(row: Row) -> list[str]:
    """Formats the cells of a row."""
    chips, memory = parse_slice(row["slice"]), row["memory"]
    total = sum(memory.values())
    seconds = estimate_seconds(row, chips)
    cells = [row["case"], row["slice"], str(row["chips"])]
    cells += [f"{memory[k] / 1e9:.2f}" for k in ("arguments", "temporaries")]
    cells += [f"{total / 1e9:.2f}", f"{total / CHIPS[chips.kind].memory:.0%}"]
    cells += [f"{row['flops'] / 1e12:.3g}", f"{row['hbm_bytes'] / 1e9:.3g}"]
    moved = sum(row["collective_bytes"].values())
    cells.append(f"{moved / 1e9:.3g}" if chips.size > 1 else "0")
    cells += [f"{1e3 * seconds[k]:.3g}" for k in ("compute", "memory", "collectives")]
    cells.append(_format_range(1e3 * seconds["least"], 1e3 * seconds["most"], "{:.3g}"))
    alone = max(seconds["compute"], seconds["memory"])
    return [*cells, _format_range(alone / seconds["most"], alone / seconds["least"], "{:.0%}")]


def _format_range(least: float, most: float, form: str) -> str:
    """Formats an interval, or a number if both ends look the same."""
    one, other = form.format(least), form.format(most)
    return one if one == other else f"{one} to {other}"
