"""Cron schedules: five fields or an alias, in a time zone, with Debian cron's rules for summer time (cronsim)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


# Names that some machines' databases have for what differs from one to the other.
_OF_THE_MACHINE: Final = frozenset({"localtime", "posixrules", "Factory"})


class InvalidSchedule(ValueError):
    """The schedule or the time zone cannot be used; ``field`` names which."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def next_tick(schedule: str, zone: str, after: datetime) -> datetime:
    """The first tick after a time (aware), in UTC. Raises InvalidSchedule, also for a schedule that never fires."""
    if zone in _OF_THE_MACHINE:
        raise InvalidSchedule("timezone", "is not a known IANA time zone")
    try:
        local = after.astimezone(ZoneInfo(zone))
    except (OSError, ValueError, KeyError) as error:  # unknown names, and names that are paths or directories
        raise InvalidSchedule("timezone", "is not a known IANA time zone") from error
    fields = ALIASES.get(schedule.strip().lower(), schedule)
    if len(fields.split()) != 5:
        raise InvalidSchedule("schedule", "must have five fields, or be one of " + ", ".join(ALIASES))
    try:
        return next(CronSim(fields, local)).astimezone(UTC)
    except CronSimError as error:
        # The library's words name the part that is wrong, and quote nothing.
        raise InvalidSchedule("schedule", f"is not a cron schedule ({str(error).lower()})") from error
    except (StopIteration, OverflowError) as error:
        raise InvalidSchedule("schedule", "never fires") from error
