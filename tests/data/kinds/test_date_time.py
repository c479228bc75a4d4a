"""Dates and times against the calendar of Python's standard library."""

import calendar
import datetime
import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmjax.data import DateTime


def encode(cell, spec, first="2024-01-01"):
    return spec.read_cells([cell], Path(), spec.learn([[first]], None))


def angle(sine, cosine):
    return math.atan2(sine, cosine) % (2 * math.pi) / (2 * math.pi)


@pytest.mark.parametrize("cell", ["2024-02-29T18:00", "2023-12-31 23:59:59", "2025-07-01"])
def test_parts_are_shares_of_day_week_and_year(cell):
    moment = datetime.datetime.fromisoformat(cell)
    spec = DateTime("t", parts=("linear", "day", "week", "year"))
    linear, *circles = encode(cell, spec).astype(float).tolist()
    day = (
        moment - datetime.datetime.combine(moment.date(), datetime.time())
    ).total_seconds() / 86400
    assert linear == pytest.approx((moment - datetime.datetime(2024, 1, 1)).total_seconds() / 86400)
    length = 366 if calendar.isleap(moment.year) else 365
    expected = [
        day,
        (moment.weekday() + day) / 7,
        (moment.timetuple().tm_yday - 1 + day) / length,
    ]
    for i, share in enumerate(expected):
        difference = abs(angle(*circles[2 * i : 2 * i + 2]) - share)
        assert min(difference, 1 - difference) < 1e-5


def test_time_zones_are_those_stated():
    day, paris = ("day",), "Europe/Paris"
    utc = encode("2024-07-01T10:00", DateTime("t", parts=day))
    np.testing.assert_array_equal(encode("2024-07-01T12:00+02:00", DateTime("t", parts=day)), utc)
    local = encode("2024-07-01T10:00", DateTime("t", timezone=paris, parts=day))
    np.testing.assert_array_equal(local, utc)  # 10 o'clock is 10 o'clock on the clock
    moved = encode("2024-07-01T08:00+00:00", DateTime("t", timezone=paris, parts=day))
    np.testing.assert_array_equal(moved, local)
    spec = DateTime("t", timezone=paris, parts=("linear",))
    assert encode("2024-07-01", spec) == pytest.approx(182 - 1 / 24, abs=1e-5)  # summer time


def test_days_without_times_have_no_part_of_the_day():
    learned = DateTime("t").learn([["2024-05-01", "2023-05-01"]], None)
    assert learned["parts"] == ["linear", "week", "year"]
    assert learned["start"] == datetime.datetime(2023, 5, 1, tzinfo=datetime.UTC).timestamp()
    assert "day" in DateTime("t").learn([["2024-05-01T01:00"]], None)["parts"]
    assert json.loads(json.dumps(learned)) == learned


def test_epochs_far_apart_from_1970_keep_their_seconds(load):
    start = datetime.datetime(2026, 1, 1)
    cells = [(start + datetime.timedelta(seconds=i)).isoformat() for i in range(0, 400)]
    data = load({"t": cells}, {"t": DateTime("t", parts=("linear",))}, standardize=())
    days = data.splits["train"].batch.inputs["t"][:, 0] * 86400
    np.testing.assert_allclose(days, np.arange(200), atol=1e-3)


def test_cells_and_settings_that_are_not_understood_are_named(load):
    good = ["2024-05-01"] * 3
    for spec, cell, message in (
        (
            DateTime("t"),
            "1.5.2024",
            r"line 5, 't': '1\.5\.2024' is not an ISO 8601",
        ),
        (DateTime("t", format="%d.%m.%Y"), "1.5.2024", "'2024-05-01' is not of the format"),
        (DateTime("t", timezone="Paris"), "2024-05-01", "time zone 'Paris' is unknown"),
        (DateTime("t", parts=("hour",)), "2024-05-01", "has no part 'hour'"),
    ):
        with pytest.raises(ValueError, match=message):
            load({"t": [*good, cell]}, {"t": spec})
    assert encode("01.05.2024", DateTime("t", format="%d.%m.%Y"), "01.01.2024")[0] == 121


@pytest.mark.parametrize("cell", ["1712011512345", "17120115012"])
def test_milliseconds_are_no_dates_of_the_eighteenth_century(cell):
    assert datetime.datetime.fromisoformat(cell).year == 1712  # so Python reads them
    with pytest.raises(ValueError, match=f"'{cell}' is not an ISO 8601 date or time"):
        encode(cell, DateTime("t"))
    assert encode("20240102", DateTime("t", parts=("linear",))).tolist() == [1]


def test_dates_are_inferred_but_numbers_and_years_are_not(load):
    cells = ["2024-05-01", "2024-05-02", "", "2024-06-01"]
    data = load({"t": cells}, {"t": "t"})
    assert data.modalities["t"].shape == (5,)
    assert data.splits["test"].batch.present["t"].tolist() == [False, True]
    assert DateTime.matches_cells([datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1)])
    assert not DateTime.matches_cells(["20240501"]) and not DateTime.matches_cells(["2024-13-01"])
