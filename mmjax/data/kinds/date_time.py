"""Dates and times: a linear part, and cyclical parts for the day, the week and the year."""

import contextlib
import datetime
import math
import zoneinfo
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.dataset import Modality
from mmjax.data.kinds.numbers import Numbers
from mmjax.data.kinds.protocols import Learned, RowScale, Summary
from mmjax.data.load.targets.labels import feature_to_python

Part = Literal["linear", "day", "week", "year"]
_PARTS = ("linear", "day", "week", "year")
_SECONDS_PER_DAY = 86400.0


class DateTime(NamedTuple):
    """A date, or a date and time, as numbers: a linear part and points on circles.

    The linear part is the number of days since the earliest one of the training split. The others
    are sine and cosine of the share of the day, the week (from Monday on) and the year that has
    passed, so that 23:59 is near 0:00. All are those of one time zone: a time that states its
    offset from UTC is converted to it, others are taken as local times of it.

    Attributes:
      column: holds ISO 8601 dates or times, such as "2024-05-01" or "2024-05-01T08:30+02:00", or
        dates and times of Parquet.
      format: of other texts, as for `datetime.strptime`, such as "%d.%m.%Y"; None: ISO 8601.
      timezone: IANA name of the time zone.
      parts: those of "linear", "day", "week" and "year" that are wanted; () takes all, without
        "day" if no cell of the training split has a time of day.

    Example:
      >>> moment = DateTime("when", parts=("linear", "day"))
      >>> learned = moment.learn([["2024-05-01"]], None)
      >>> moment.read_cells(["2024-05-02T06:00"], Path(), learned).round(2).tolist()
      [1.25, 1.0, 0.0]
    """

    column: str
    format: str | None = None
    timezone: str = "UTC"
    parts: tuple[Part, ...] = ()

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are dates, or texts that are ISO 8601 dates."""
        return all(_is_iso_date(cell) for cell in cells)

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Finds the earliest time, in seconds since 1970, and the parts that vary."""
        return self.learn_summary(self.summarize_cells(columns, source))

    def summarize_cells(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Finds the earliest time, and whether one is not midnight."""
        unknown = set(self.parts) - set(_PARTS)
        if unknown:
            raise ValueError(f"a `DateTime` has no part {unknown.pop()!r}, only {_PARTS}.")
        moments = []
        for cell in columns[0]:
            # A cell that is not a time is refused when its row is read, with the row's place.
            with contextlib.suppress(ValueError):
                moments.append(self._parse(feature_to_python(cell)))
        has_time = any(m.time() != datetime.time() for m in moments)
        start = min((m.timestamp() for m in moments), default=None)
        return {"start": start, "has_time": has_time}

    def merge_summaries(self, first: Summary, second: Summary) -> dict[str, Any]:
        """Takes the earlier time."""
        starts = [s["start"] for s in (first, second) if s["start"] is not None]
        has_time = first["has_time"] or second["has_time"]
        return {"start": min(starts, default=None), "has_time": has_time}

    def learn_summary(self, summary: Summary) -> dict[str, Any]:
        """Returns the earliest time and the parts that vary."""
        if summary["start"] is None:
            return {"start": 0.0, "parts": list(self.parts or _PARTS)}
        parts = [part for part in _PARTS if part != "day" or summary["has_time"]]
        return {"start": summary["start"], "parts": list(self.parts) or parts}

    def read_cells(
        self, cells: Sequence[Any], folder: Path, learned: Learned
    ) -> Float[np.ndarray, " d"]:
        """Computes the parts of a date or time."""
        moment = self._parse(cells[0])
        days = (moment.timestamp() - learned["start"]) / _SECONDS_PER_DAY
        shares = _compute_shares(moment)
        row: list[float] = []
        for part in learned["parts"]:
            if part == "linear":
                row.append(days)
            else:
                angle = 2 * math.pi * shares[part]
                row += [math.sin(angle), math.cos(angle)]
        return np.array(row, np.float64)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Reads a text or a date; None if it is empty."""
        cell = feature_to_python(values[0])
        return None if cell is None else self.read_cells([cell], Path(), learned)

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns the modality of vectors."""
        return Modality(())

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes as `Numbers` does."""
        return Numbers.name_axes(x, modality)

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the parts as `Numbers` does."""
        Numbers.draw(axis, x, scale)

    def _parse(self, cell: Any) -> datetime.datetime:
        return parse_moment(cell, self.format, self.timezone)


def parse_moment(cell: Any, format: str | None, timezone: str) -> datetime.datetime:
    """Converts a cell to a time of a time zone.

    Args:
      cell: a text, a `datetime.date` or a `datetime.datetime`.
      format: of a text, as for `datetime.strptime`; None: ISO 8601.
      timezone: IANA name of the time zone.

    Raises:
      ValueError: naming the cell, the format or the time zone that is not understood.

    Example:
      >>> parse_moment("2024-05-01T08:30+02:00", None, "UTC").isoformat()
      '2024-05-01T06:30:00+00:00'
    """
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError(
            f"time zone {timezone!r} is unknown; give an IANA name such as 'Europe/Paris'."
        ) from None
    if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
        cell = datetime.datetime.combine(cell, datetime.time())
    if isinstance(cell, str):
        text = cell.strip()
        try:
            if format is None:
                # Python takes milliseconds since 1970, such as "1712011512345", for a time of 1712.
                if text.isdigit() and len(text) != len("20240501"):
                    raise ValueError
                cell = datetime.datetime.fromisoformat(text)
            else:
                cell = datetime.datetime.strptime(text, format)
        except ValueError:
            wanted = "an ISO 8601 date or time" if format is None else f"of the format {format!r}"
            fix = "; give the `DateTime` its format, such as '%d.%m.%Y'" if format is None else ""
            raise ValueError(f"{text!r} is not {wanted}{fix}.") from None
    if not isinstance(cell, datetime.datetime):
        raise ValueError(f"{cell!r} is not a date or time.")
    # A time without an offset is a local one.
    return cell.replace(tzinfo=zone) if cell.tzinfo is None else cell.astimezone(zone)


def _compute_shares(moment: datetime.datetime) -> dict[str, float]:
    """Computes the share of the day, the week and the year that has passed."""
    clock = moment.time()
    seconds = clock.hour * 3600 + clock.minute * 60 + clock.second + clock.microsecond / 1e6
    day = seconds / _SECONDS_PER_DAY
    date = moment.date()
    year_start = datetime.date(date.year, 1, 1)
    year_days = datetime.date(date.year, 12, 31).toordinal() - year_start.toordinal() + 1
    passed = date.toordinal() - year_start.toordinal() + day
    return {"day": day, "week": (date.weekday() + day) / 7, "year": passed / year_days}


def _is_iso_date(cell: Any) -> bool:
    if isinstance(cell, datetime.date):  # a datetime is a date, too
        return True
    # "20240501" is a number and "2024" a year: only texts with dashes are clearly dates.
    if not isinstance(cell, str) or not (cell[4:5] == "-" and cell[7:8] == "-"):
        return False
    try:
        datetime.datetime.fromisoformat(cell.strip())
    except ValueError:
        return False
    return True
