"""Where metrics go: `write(step, {name: float})`, one writer a seed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

Writer = Callable[[int, Mapping[str, float]], None]


def jsonl(path: Path, resume_at: int = 0) -> Writer:
    """Appends one JSON object a line, first removing what lies behind the step resumed at.

    Numbers are written so that they read back as the same bits; there are no times in the file, so
    two runs of one configuration can be compared byte by byte.
    """
    kept = [line for line in read_lines(path) if json.loads(line)["step"] <= resume_at]
    path.write_text("".join(line + "\n" for line in kept) if resume_at else "")

    def write(step: int, values: Mapping[str, float]) -> None:
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    return write


def read_lines(path: Path) -> list[str]:
    """The complete lines of a log; the last one of a killed run may be cut off."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=False) if line.endswith("}")]


def tensorboard(directory: Path, resume_at: int = 0) -> Writer:
    """Writes TensorBoard event files (by tensorboardX, without TensorFlow)."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(directory), purge_step=resume_at + 1 if resume_at else None)

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write


def tee(*writers: Writer) -> Writer:
    """Writes to all of them."""

    def write(step: int, values: Mapping[str, float]) -> None:
        for one in writers:
            one(step, values)

    return write
