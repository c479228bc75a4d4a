"""Where metrics go: `write(step, {name: float})`, one writer a seed."""

import contextlib
import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmjax import files

Writer = Callable[[int, Mapping[str, float]], None]
LOGGER = logging.getLogger("mmjax")


def jsonl(path: Path, resume_at: int = 0) -> Writer:
    """Appends one JSON object a line, first removing what lies behind the step resumed at.

    Numbers are written so that they read back as the same bits; there are no times in the file, so
    two runs of one configuration can be compared byte by byte. Each line has a checksum; see
    `mmjax.files`. A damaged log is kept beside the new one, which goes on without the bad lines.
    """
    restart_log(path, resume_at)

    def write(step: int, values: Mapping[str, float]) -> None:
        files.append_line(path, files.log_line({"step": step, **values}))

    return write


def restart_log(path: Path, resume_at: int) -> None:
    """Leaves the lines up to a step in a log; says what is damaged or missing among them."""
    log = files.read_log(path) if resume_at else files.Log([], [])
    steps = [record["step"] for record in log.records]
    count = sum(step <= resume_at for step in steps)
    damage = [reason for before, reason in log.damage if before <= count]
    content = "".join(files.log_line(record) + "\n" for record in log.records[:count])
    if damage:
        aside = files.set_aside(path)
        LOGGER.warning(
            "%s. The log goes on without %s; the damaged one is kept as %s.",
            "; ".join(damage),
            "that line" if len(damage) == 1 else f"those {len(damage)} lines",
            aside.name,
        )
    elif resume_at and (not count or steps[count - 1] < resume_at):
        last = f"ends at step {steps[count - 1]}" if count else "has no line"
        LOGGER.warning(
            "%s %s, but the run goes on at step %d; what was in between is lost.",
            path,
            last,
            resume_at,
        )
    files.write_text(path, content)


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
        with files.naming_file(directory):
            for name, value in values.items():
                one = scalar(name, value)
                events.write_event(Event(step=step, wall_time=time.time(), summary=one))
            events.flush()

    weakref.finalize(write, _close, events)
    return write


def _close(events: Any) -> None:
    with contextlib.suppress(OSError):  # which the last write has raised already
        events.close()


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
