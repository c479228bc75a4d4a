"""Where metrics go: `write(step, {name: float})`, one writer a seed."""

import contextlib
import json
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Writer = Callable[[int, Mapping[str, float]], None]


def jsonl(path: Path, resume_at: int = 0) -> Writer:
    """Appends one JSON object a line, first removing what lies behind the step resumed at.

    Numbers are written so that they read back as the same bits; there are no times in the file, so
    two runs of one configuration can be compared byte by byte.
    """
    kept = [line for line in read_lines(path) if json.loads(line)["step"] <= resume_at]
    partial = path.with_suffix(".partial")  # in one move, lest a kill here should lose the log
    partial.write_text("".join(line + "\n" for line in kept) if resume_at else "")
    partial.replace(path)

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
    """Writes TensorBoard event files (by tensorboardX, without TensorFlow).

    What is written is in the file when `write` returns: a `SummaryWriter` would keep it in a queue
    for minutes, and a killed run would lose it.
    """
    with hidden("torch"):  # imported where it is installed, for more than a second and no use
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

    directory.mkdir(parents=True, exist_ok=True)
    events = EventsWriter(str(directory / "events"), f".{resume_at}")
    if resume_at:  # whoever reads the files drops what lies behind
        start = SessionLog(status=SessionLog.START)
        events.write_event(Event(step=resume_at + 1, wall_time=time.time(), session_log=start))

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            one = scalar(name, value)
            events.write_event(Event(step=step, wall_time=time.time(), summary=one))
        events.flush()

    weakref.finalize(write, events.close)
    return write


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """A package that is not imported yet is not found by what is imported inside."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def tee(*writers: Writer) -> Writer:
    """Writes to all of them."""

    def write(step: int, values: Mapping[str, float]) -> None:
        for one in writers:
            one(step, values)

    return write
