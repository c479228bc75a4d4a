"""Formats the rows of all workers as Markdown tables."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmjax.printing.escapes import format_markdown_table

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]  # a title, and row -> cell

NOTES = """\
A ratio is the median over the rounds of PyTorch's time over mmjax's in the same round: above 1,
mmjax is faster. "single" is one step per dispatch, "scanned" eight steps per dispatch by
`lax.scan`; both carry and donate the state, and compute the norms that mmjax logs, which PyTorch's
side does not. "rate" and "bandwidth" are the shares of the machine's measured matrix product and
copy that the single step reaches. FLOPs are counted by `mmjax.inspection.flops`, bytes by XLA,
which counts the body of a loop once, so that recurrent networks move more than stated; it also
counts what the caches serve, so that the share of a copy's bandwidth can exceed 100%. In its
convolutions mmjax applies ReLU after max pooling, which gives the same values with fewer
operations; PyTorch's side applies it before, as it is usually written.
"""
BOUND = """\
≥: PyTorch's side makes the backward pass of every task, the Gramian and the update with equal
weights; the method's own weights would come on top, so its time is a lower bound.
"""
MEMORY = """\
"compiled" is what XLA's compiled step holds: arguments, results and all between. The others are
the growth of a fresh process that trains on one batch: "whole" from building the model on, mmjax's
compilation included, "steps" while twenty steps are made.
"""
NO_TORCH = "PyTorch is not installed, so its columns are empty: `pip install -e '.[bench]'`.\n"


def format_number(key: str, digits: int = 2, factor: float = 1.0) -> Callable[[Row], str]:
    """Returns a function that formats one number of the row, empty if the row has none."""
    return lambda row: f"{row[key] * factor:.{digits}f}" if row.get(key) is not None else ""


def format_percent(key: str) -> Callable[[Row], str]:
    """Returns a function that formats a share of a row."""
    return lambda row: f"{row[key]:.0%}"


def format_ratio(key: str) -> Callable[[Row], str]:
    """Returns a function that formats a ratio, marked if PyTorch's time is a lower bound."""
    plain = format_number(key)
    return lambda row: ("≥ " if row.get("bound") and row.get(key) else "") + plain(row)


CASE: Column = ("case", lambda row: row["case"])
THREADS: Column = ("threads", lambda row: str(row["threads"]))

STEPS: Sequence[Column] = (
    CASE,
    THREADS,
    ("single (ms)", format_number("single_ms")),
    ("scanned (ms)", format_number("scanned_ms")),
    ("PyTorch (ms)", format_number("torch_ms")),
    ("PyTorch / single", format_ratio("torch_over_single")),
    ("PyTorch / scanned", format_ratio("torch_over_scanned")),
    ("scanned / single", format_number("scanned_over_single")),
    ("MFLOP", format_number("flops", 1, 1e-6)),
    ("MB", format_number("bytes", 1, 1e-6)),
    ("rate", format_percent("share_of_rate")),
    ("bandwidth", format_percent("share_of_bandwidth")),
)
MEMORIES: Sequence[Column] = (
    CASE,
    ("compiled (MB)", format_number("compiled_mb", 1)),
    ("mmjax whole", lambda row: format_memory(row, "mmjax", "whole_mb")),
    ("PyTorch whole", lambda row: format_memory(row, "torch", "whole_mb")),
    ("mmjax steps", lambda row: format_memory(row, "mmjax", "steps_mb")),
    ("PyTorch steps", lambda row: format_memory(row, "torch", "steps_mb")),
    ("mmjax / PyTorch, steps", lambda row: format_memory_ratio(row)),
)
EPOCHS: Sequence[Column] = (
    CASE,
    THREADS,
    ("data", lambda row: row["data"]),
    ("mmjax (s)", format_number("mmjax_s")),
    ("PyTorch (s)", format_number("torch_s")),
    ("PyTorch / mmjax", format_number("torch_over_mmjax")),
)
SEEDS: Sequence[Column] = (
    CASE,
    THREADS,
    ("one seed (ms)", format_number("one_ms")),
    ("five seeds (ms)", format_number("five_ms")),
    ("five / one", format_number("five_over_one")),
)
STARTS: Sequence[Column] = (
    CASE,
    THREADS,
    ("cold (s)", format_number("cold_s")),
    ("warm (s)", format_number("warm_s")),
)
ROOFS: Sequence[Column] = (
    ("device", lambda row: f"{row['device']} ({row['platform']})"),
    THREADS,
    ("matrix product (GFLOP/s)", format_number("flops", 1, 1e-9)),
    ("copy (GB/s)", format_number("bytes", 1, 1e-9)),
)
FAILURES: Sequence[Column] = (CASE, THREADS, ("error", lambda row: row["error"].split("\n")[0]))


def format_memory(row: Row, side: str, what: str) -> str:
    """Formats the memory of one side."""
    memory = row["memory"].get(side)
    return f"{memory[what]:.0f}" if memory else ""


def format_memory_ratio(row: Row) -> str:
    """Formats mmjax's memory over PyTorch's during the steps."""
    memory = row["memory"]
    if "torch" not in memory or memory["torch"]["steps_mb"] <= 0:
        return ""
    return f"{memory['mmjax']['steps_mb'] / memory['torch']['steps_mb']:.2f}"


def format_tables(rows: Sequence[Row]) -> str:
    """Formats all tables that have rows, with their notes."""
    return "\n".join(iterate_sections(rows))


def iterate_sections(rows: Sequence[Row]) -> Iterator[str]:
    """Yields one section per kind of row."""
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in {r["kind"] for r in rows}}
    steps = kinds.get("step", [])
    parts = (
        ("The machine", ROOFS, kinds.get("roof", []), ""),
        ("A training step", STEPS, steps, NOTES),
        ("Peak memory", MEMORIES, [r for r in steps if r.get("memory")], MEMORY),
        ("An epoch with its data", EPOCHS, kinds.get("epoch", []), ""),
        ("Five seeds as one program", SEEDS, kinds.get("seeds", []), ""),
        ("Start to first step", STARTS, kinds.get("start", []), ""),
        ("Failed", FAILURES, kinds.get("failed", []), ""),
    )
    if not all(row["torch"] for row in kinds.get("roof", [])):
        yield NO_TORCH
    for title, columns, selected, note in parts:
        if selected:
            yield f"## {title}\n\n{format_table(columns, selected)}"
            yield from [note] * bool(note)
    if any(row["bound"] for row in steps):
        yield BOUND


def format_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Formats a Markdown table."""
    cells = [[show(row) for _, show in columns] for row in rows]
    return format_markdown_table([[title for title, _ in columns], *cells])
