"""The rows of all workers as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]  # a title and what stands under it

NOTES = """\
A ratio is the median over the rounds of PyTorch's time over mmjax's in the same round: above 1,
mmjax is faster. "single" is one step a dispatch, "scanned" eight steps a dispatch by
`lax.scan`; both carry and donate the state, and compute the norms that mmjax logs, which PyTorch's
side does not. "rate" and "bandwidth" are the shares of the machine's measured matrix product and
copy that the single step reaches. FLOPs are counted by `mmjax.flops`, bytes by XLA, which counts
the body of a loop once, so that recurrent networks move more than is said here; and it counts what
the caches serve, so that the share of a copy's bandwidth can pass 100%. In its convolutions
mmjax applies ReLU after max pooling, which gives the same values with fewer operations; PyTorch's
side applies it before, as it is mostly written.
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


def number(key: str, digits: int = 2, factor: float = 1.0) -> Callable[[Row], str]:
    """A number of a row; empty where the row has none."""
    return lambda row: f"{row[key] * factor:.{digits}f}" if row.get(key) is not None else ""


def percent(key: str) -> Callable[[Row], str]:
    """A share of a row."""
    return lambda row: f"{row[key]:.0%}"


def ratio(key: str) -> Callable[[Row], str]:
    """PyTorch's time over mmjax's, marked where PyTorch's is a lower bound."""
    plain = number(key)
    return lambda row: ("≥ " if row.get("bound") and row.get(key) else "") + plain(row)


CASE: Column = ("case", lambda row: row["case"])
THREADS: Column = ("threads", lambda row: str(row["threads"]))

STEPS: Sequence[Column] = (
    CASE,
    THREADS,
    ("single (ms)", number("single_ms")),
    ("scanned (ms)", number("scanned_ms")),
    ("PyTorch (ms)", number("torch_ms")),
    ("PyTorch / single", ratio("torch_over_single")),
    ("PyTorch / scanned", ratio("torch_over_scanned")),
    ("scanned / single", number("scanned_over_single")),
    ("MFLOP", number("flops", 1, 1e-6)),
    ("MB", number("bytes", 1, 1e-6)),
    ("rate", percent("share_of_rate")),
    ("bandwidth", percent("share_of_bandwidth")),
)
MEMORIES: Sequence[Column] = (
    CASE,
    ("compiled (MB)", number("compiled_mb", 1)),
    ("mmjax whole", lambda row: held(row, "mmjax", "whole_mb")),
    ("PyTorch whole", lambda row: held(row, "torch", "whole_mb")),
    ("mmjax steps", lambda row: held(row, "mmjax", "steps_mb")),
    ("PyTorch steps", lambda row: held(row, "torch", "steps_mb")),
    ("mmjax / PyTorch, steps", lambda row: memory_ratio(row)),
)
EPOCHS: Sequence[Column] = (
    CASE,
    THREADS,
    ("data", lambda row: row["data"]),
    ("mmjax (s)", number("mmjax_s")),
    ("PyTorch (s)", number("torch_s")),
    ("PyTorch / mmjax", number("torch_over_mmjax")),
)
SEEDS: Sequence[Column] = (
    CASE,
    THREADS,
    ("one seed (ms)", number("one_ms")),
    ("five seeds (ms)", number("five_ms")),
    ("five / one", number("five_over_one")),
)
STARTS: Sequence[Column] = (
    CASE,
    THREADS,
    ("cold (s)", number("cold_s")),
    ("warm (s)", number("warm_s")),
)
ROOFS: Sequence[Column] = (
    ("device", lambda row: f"{row['device']} ({row['platform']})"),
    THREADS,
    ("matrix product (GFLOP/s)", number("flops", 1, 1e-9)),
    ("copy (GB/s)", number("bytes", 1, 1e-9)),
)
FAILURES: Sequence[Column] = (CASE, THREADS, ("error", lambda row: row["error"].split("\n")[0]))


def held(row: Row, side: str, what: str) -> str:
    """A side's memory."""
    found = row["memory"].get(side)
    return f"{found[what]:.0f}" if found else ""


def memory_ratio(row: Row) -> str:
    """Mmjax's memory over PyTorch's while steps are made."""
    found = row["memory"]
    if "torch" not in found or found["torch"]["steps_mb"] <= 0:
        return ""
    return f"{found['mmjax']['steps_mb'] / found['torch']['steps_mb']:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """All tables that have a row, with their notes."""
    return "\n".join(sections(rows))


def sections(rows: Sequence[Row]) -> Iterator[str]:
    """One table a kind of row."""
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
    for title, columns, some, note in parts:
        if some:
            yield f"## {title}\n\n{grid(columns, some)}"
            yield from [note] * bool(note)
    if any(row["bound"] for row in steps):
        yield BOUND


def grid(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        [title for title, _ in columns],
        [":--" if i == 0 else "--:" for i in range(len(columns))],
        *([show(row) for _, show in columns] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
