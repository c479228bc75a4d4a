"""Writers of metrics: functions `write(step, {name: float})`, one per replica."""

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


def open_jsonl_writer(path: Path, resume_at: int = 0) -> Writer:
    """Returns a writer of JSON lines; removes the lines after the step at which a run resumes.

    Numbers are written such that they read back as the same bits. The file has no times, so that
    two runs of one configuration can be compared byte by byte. Each line has a checksum; see
    `mmjax.files`. A damaged log is set aside, and the new one continues without the bad lines.
    """
    _truncate_log(path, resume_at)

    def write(step: int, values: Mapping[str, float]) -> None:
        files.append_line(path, files.format_log_line({"step": step, **values}))

    return write


def _truncate_log(path: Path, resume_at: int) -> None:
    """Removes the lines after a step from a log, and warns of damaged or missing ones before it."""
    log = files.read_log(path) if resume_at else files.JsonLog([], [])
    steps = [record["step"] for record in log.records]
    count = sum(step <= resume_at for step in steps)
    damage = [reason for before, reason in log.damage if before <= count]
    content = "".join(files.format_log_line(record) + "\n" for record in log.records[:count])
    if damage:
        aside = files.set_aside_damaged(path)
        LOGGER.warning(
            "%s. The log continues without %s; the damaged one is kept as %s.",
            "; ".join(damage),
            "that line" if len(damage) == 1 else f"those {len(damage)} lines",
            aside.name,
        )
    elif resume_at and (not count or steps[count - 1] < resume_at):
        last = f"ends at step {steps[count - 1]}" if count else "has no line"
        LOGGER.warning(
            "%s %s, but the run resumes at step %d; the lines in between are lost.",
            path,
            last,
            resume_at,
        )
    files.write_text(path, content)


def open_tensorboard_writer(directory: Path, resume_at: int = 0) -> Writer:
    """Returns a writer of TensorBoard event files (by tensorboardX, without TensorFlow).

    Events are in the file when `write` returns: a `SummaryWriter` would keep them in a queue for
    minutes, and a killed run would lose them.
    """
    with _hide_package(
        "torch"
    ):  # tensorboardX would import it for more than a second, without need
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

    directory.mkdir(parents=True, exist_ok=True)
    events = EventsWriter(str(directory / "events"), f".{resume_at}")
    if resume_at:  # readers drop the events after this step
        start = SessionLog(status=SessionLog.START)
        events.write_event(Event(step=resume_at + 1, wall_time=time.time(), session_log=start))

    def write(step: int, values: Mapping[str, float]) -> None:
        with files.name_file_in_errors(directory):
            for name, value in values.items():
                summary = scalar(name, value)
                events.write_event(Event(step=step, wall_time=time.time(), summary=summary))
            events.flush()

    weakref.finalize(write, _close_events, events)
    return write


def _close_events(events: Any) -> None:
    with contextlib.suppress(OSError):  # the last write has raised it already
        events.close()


@contextlib.contextmanager
def _hide_package(package: str) -> Iterator[None]:
    """Hides a package from imports inside the context, unless it is imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def combine_writers(*writers: Writer) -> Writer:
    """Returns a writer that writes to all of the writers."""

    def write(step: int, values: Mapping[str, float]) -> None:
        for write_to_one in writers:
            write_to_one(step, values)

    return write
