"""Ticks of schedules, over summer time too."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from storage_service.schedule import ALIASES, InvalidSchedule, next_tick

NEW_YORK = "America/New_York"


def ticks(schedule: str, zone: str, after: str, count: int = 1) -> list[str]:
    """The next ticks in the zone's own time, with its offset."""
    at, found = datetime.fromisoformat(after), []
    for _ in range(count):
        at = next_tick(schedule, zone, at)
        assert at.tzinfo is UTC
        found.append(at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "found"),
    [
        # Summer time begins on 2026-03-08: 02:30 does not exist, the tick comes when the clock has moved.
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        # It ends on 2026-11-01: 01:30 is twice, the tick once.
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        # Schedules of every so many minutes go on through both.
        (
            "*/30 * * * *", NEW_YORK, "2026-11-01T00:45-04:00",
            ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-01T01:00-05:00", "2026-11-01T01:30-05:00",
             "2026-11-01T02:00-05:00"],
        ),
        ("*/30 * * * *", NEW_YORK, "2026-03-08T01:15-05:00", ["2026-03-08T01:30-05:00", "2026-03-08T03:00-04:00"]),
        ("0 * * * *", "Europe/Vienna", "2026-10-25T01:30+02:00", ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]),
        # Day of month or day of week, either will do.
        ("0 0 13 * 5", "UTC", "2026-03-01T00:00+00:00", ["2026-03-06T00:00+00:00", "2026-03-13T00:00+00:00"]),
        ("0 0 * * 7", "UTC", "2026-03-02T00:00+00:00", ["2026-03-08T00:00+00:00"]),
        ("0 0 * * SUN", "UTC", "2026-03-02T00:00+00:00", ["2026-03-08T00:00+00:00"]),
        ("0 0 L * *", "UTC", "2026-02-02T00:00+00:00", ["2026-02-28T00:00+00:00", "2026-03-31T00:00+00:00"]),
        ("0 0 * * 5#2", "UTC", "2026-03-01T00:00+00:00", ["2026-03-13T00:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00+00:00", ["2028-02-29T00:00+00:00"]),
        ("0 9-17/4 * * MON-FRI", "UTC", "2026-03-06T16:00+00:00", ["2026-03-06T17:00+00:00", "2026-03-09T09:00+00:00"]),
        ("0 0 1 1 *", "Asia/Kolkata", "2026-06-01T00:00+00:00", ["2027-01-01T00:00+05:30"]),
        # The moment itself is past.
        ("0 0 * * *", "UTC", "2026-03-01T00:00+00:00", ["2026-03-02T00:00+00:00"]),
    ],
)  # fmt: skip
def test_ticks(schedule: str, zone: str, after: str, found: list[str]) -> None:
    assert ticks(schedule, zone, after, len(found)) == found


@pytest.mark.parametrize(
    ("alias", "found"),
    [
        ("@hourly", "2026-03-04T06:00+00:00"),
        ("@daily", "2026-03-05T00:00+00:00"),
        ("@midnight", "2026-03-05T00:00+00:00"),
        ("@weekly", "2026-03-08T00:00+00:00"),
        ("@monthly", "2026-04-01T00:00+00:00"),
        ("@yearly", "2027-01-01T00:00+00:00"),
        ("@annually", "2027-01-01T00:00+00:00"),
        (" @Daily ", "2026-03-05T00:00+00:00"),
    ],
)
def test_aliases(alias: str, found: str) -> None:
    assert ticks(alias, "UTC", "2026-03-04T05:06+00:00") == [found]
    assert alias.strip().lower() in ALIASES


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * *",
        "* * * * * *",
        "0 0 31 2 *",
        "60 * * * *",
        "* 24 * * *",
        "@reboot",
        "* * * * MOO",
        "a",
        "-1 * * * *",
        "é * * * *",
    ],
)
def test_bad_schedules(schedule: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        next_tick(schedule, "UTC", datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.field == "schedule"


@pytest.mark.parametrize("zone", ["", "Nowhere", "../UTC", "/etc/passwd", "Europe", "a\0", "UTC\n", "é", "."])
def test_bad_zones(zone: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        next_tick("@daily", zone, datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.field == "timezone"
