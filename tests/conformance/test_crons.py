"""CronService beyond what all kinds of rows do alike: schedules, zones, ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conformance.expect import invalid, not_found
from tests.conformance.rows import ASSISTANTS, CRONS, THREADS, metadata_of
from tests.service import Api

YEARLY = {"schedule": "0 0 1 1 *"}
END = "2100-06-01T12:00:00.123456Z"


def time_of(row: Any, field: str = "next_run_date") -> datetime | None:
    return getattr(row, field).ToDatetime(UTC) if row.HasField(field) else None


def next_new_year(zone: str = "UTC") -> datetime:
    now = datetime.now(ZoneInfo(zone))
    return datetime(now.year + 1, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


async def update(api: Api, owner: str, cron: Any, **fields: Any) -> Any:
    return await CRONS.call(api, "Update", owner, cron_id=cron.cron_id, **fields)


async def test_defaults(api: Api, owner: str) -> None:
    cron = await CRONS.create(api, owner, assistant_id="a", thread_id="", schedule="*/5 * * * *")
    assert (cron.assistant_id, cron.thread_id, cron.schedule, cron.timezone) == ("a", "", "*/5 * * * *", "UTC")
    assert (cron.enabled, cron.user_id, cron.payload) == (True, "", "{}")
    assert (cron.on_run_completed, cron.misfire_policy) == (1, 1)
    assert not cron.HasField("end_time")
    next_run = time_of(cron)
    assert next_run is not None
    made = time_of(cron, "created_at")
    assert made is not None
    assert timedelta(0) < next_run - made <= timedelta(minutes=5)
    assert (next_run.minute % 5, next_run.second, next_run.microsecond) == (0, 0, 0)


async def test_every_field_is_kept(api: Api, owner: str) -> None:
    given: dict[str, Any] = {
        "assistant_id": "a", "thread_id": "t", "schedule": "30 2 * * MON-FRI", "timezone": "Europe/Vienna", "enabled": False,
        "user_id": "é", "payload": '{"input": [1]}', "on_run_completed": 2, "misfire_policy": 2,
    }  # fmt: skip
    cron = await CRONS.create(api, owner, **given, end_time=END, metadata='{"m": 1}')
    for name, value in given.items():
        assert getattr(cron, name) == value
    assert cron.end_time.ToJsonString() == END
    assert metadata_of(cron) == {"m": 1, "owner": owner}
    assert not cron.HasField("next_run_date")
    assert await CRONS.get(api, owner, cron.cron_id) == cron


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
async def test_next_run_is_of_the_zone(api: Api, owner: str, zone: str) -> None:
    cron = await CRONS.create(api, owner, **YEARLY, timezone=zone)
    assert time_of(cron) == next_new_year(zone)
    other = await CRONS.create(api, owner, schedule="@yearly", timezone=zone)
    assert (other.schedule, other.next_run_date) == ("@yearly", cron.next_run_date)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", ""),
        ("schedule", "* * * *"),
        ("schedule", "* * * * * *"),
        ("schedule", "60 * * * *"),
        ("schedule", "@often"),
        ("schedule", "0 0 31 2 *"),
        ("schedule", "a b c d e"),
        ("schedule", "0 0 * * *\0"),
        ("schedule", "0 " * 128),
        ("timezone", "Mars/Olympus"),
        ("timezone", "../etc/passwd"),
        ("timezone", "/etc/passwd"),
        ("timezone", "Europe"),
        ("timezone", "x" * 256),
        ("end_time", "2001-01-01T00:00:00Z"),
        ("user_id", "x" * 256),
        ("on_run_completed", 3),
        ("misfire_policy", 3),
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
async def test_bad_fields(api: Api, owner: str, field: str, value: Any, enabled: bool) -> None:
    with invalid(field):
        await CRONS.create(api, owner, enabled=enabled, **{field: value})
    cron = await CRONS.create(api, owner, enabled=enabled)
    with invalid(field):
        await update(api, owner, cron, **{field: value})
    assert await CRONS.get(api, owner, cron.cron_id) == cron
    assert await CRONS.count(api, owner) == 1


@pytest.mark.parametrize("absent", ["thread", "assistant"])
async def test_references(api: Api, owner: str, absent: str) -> None:
    named: dict[str, Any] = {
        "thread_id": THREADS.id_of(await THREADS.create(api, owner)),
        "assistant_id": ASSISTANTS.id_of(await ASSISTANTS.create(api, owner)),
        "record_only": False,
    }
    with not_found(absent, "absent"):
        await CRONS.create(api, owner, **{**named, f"{absent}_id": "absent"})
    with invalid("assistant_id"):
        await CRONS.create(api, owner, **{**named, "assistant_id": ""})
    await CRONS.create(api, owner, **{**named, "thread_id": ""})
    await CRONS.create(api, owner, **named)
    assert await CRONS.count(api, owner) == 2


async def test_end_before_the_next_run(api: Api, owner: str) -> None:
    end = next_new_year()
    before = (end - timedelta(microseconds=1)).isoformat().replace("+00:00", "Z")
    cron = await CRONS.create(api, owner, **YEARLY, end_time=before)
    assert time_of(cron) is None
    cron = await CRONS.create(api, owner, **YEARLY, end_time=end.isoformat().replace("+00:00", "Z"))
    assert time_of(cron) == end
    assert time_of(await update(api, owner, cron, end_time=before)) is None
    assert time_of(await update(api, owner, cron, metadata='{"m": 1}')) is None
    cleared = await update(api, owner, cron, clear_end_time=True)
    assert not cleared.HasField("end_time")
    assert time_of(cleared) == end
    with invalid("clear_end_time"):
        await update(api, owner, cron, clear_end_time=True, end_time=END)


async def test_schedule_zone_and_enabling_compute_the_next_run_anew(api: Api, owner: str) -> None:
    cron = await CRONS.create(api, owner, **YEARLY)
    first = time_of(cron)
    moved = await update(api, owner, cron, timezone="Asia/Tokyo")
    assert (moved.timezone, time_of(moved)) == ("Asia/Tokyo", next_new_year("Asia/Tokyo"))
    back = await update(api, owner, cron, timezone="")
    assert (back.timezone, time_of(back)) == ("UTC", first)
    off = await update(api, owner, cron, enabled=False)
    assert (off.enabled, time_of(off)) == (False, None)
    daily = await update(api, owner, cron, schedule="0 0 2 1 *", timezone="America/New_York")
    assert (daily.enabled, time_of(daily)) == (False, None)
    on = await update(api, owner, cron, enabled=True)
    assert time_of(on) == (next_new_year("America/New_York") + timedelta(days=1))
    assert (on.schedule, on.timezone) == ("0 0 2 1 *", "America/New_York")


@pytest.mark.parametrize(
    ("field", "value"),
    [("user_id", "u"), ("user_id", ""), ("payload", '{"p": 1}'), ("on_run_completed", 2), ("misfire_policy", 2)],
)
async def test_update_changes_one_field_and_keeps_the_others(api: Api, owner: str, field: str, value: Any) -> None:
    cron = await CRONS.create(api, owner, end_time=END, user_id="x", payload='{"a": 1}', metadata='{"m": 1}')
    changed = await update(api, owner, cron, **{field: value})
    assert getattr(changed, field) == value
    assert changed.updated_at.ToMicroseconds() > cron.updated_at.ToMicroseconds()
    for name in cron.DESCRIPTOR.fields_by_name:
        if name not in (field, "updated_at"):
            assert getattr(changed, name) == getattr(cron, name)
    for number in (0, 3):
        with invalid("on_run_completed"):
            await update(api, owner, cron, on_run_completed=number)
    with not_found("cron", "absent"):
        await CRONS.call(api, "Update", owner, cron_id="absent", schedule="@daily")


async def test_concurrent_updates_of_timing_end_in_one_that_fits(api: Api, owner: str) -> None:
    cron = await CRONS.create(api, owner, **YEARLY)
    zones = ["Asia/Tokyo", "UTC", "America/New_York", "Asia/Kolkata"]
    await asyncio.gather(
        *(update(api, owner, cron, timezone=zone) for zone in zones),
        *(update(api, owner, cron, schedule=f"0 0 {day} 1 *") for day in (1, 2, 3, 4)),
    )
    cron = await CRONS.get(api, owner, cron.cron_id)
    day = int(cron.schedule.split()[2])
    assert time_of(cron) == next_new_year(cron.timezone) + timedelta(days=day - 1)


async def test_search(api: Api, owner: str) -> None:
    crons = [
        await CRONS.create(
            api, owner, assistant_id=f"a{number % 2}", thread_id=f"t{number % 3}", enabled=number % 2 == 0
        )
        for number in range(6)
    ]
    ids = [cron.cron_id for cron in crons]
    for filters, places in (
        ({"assistant_id": "a1"}, [5, 3, 1]),
        ({"thread_id": "t0"}, [3, 0]),
        ({"enabled": True}, [4, 2, 0]),
        ({"enabled": False}, [5, 3, 1]),
        ({"cron_ids": [ids[2], "absent"]}, [2]),
        ({"assistant_id": "a0", "thread_id": "t2", "enabled": True, "cron_ids": ids}, [2]),
        ({"assistant_id": "A1"}, []),
    ):
        assert await CRONS.search(api, owner, **filters) == [ids[place] for place in places]
        assert await CRONS.count(api, owner, **filters) == len(places)
