"""The drop-in interface for crons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentstorage import Cron, GrpcStorage, errors


async def create(storage: GrpcStorage, owner: str, **more: Any) -> Cron:
    return await storage.crons.create({"assistant_id": "a", "schedule": "0 * * * *", **more}, owner)


async def test_create_gives_defaults(storage: GrpcStorage, alice: str) -> None:
    cron = await create(storage, alice)
    assert isinstance(cron, Cron)
    assert (cron.assistant_id, cron.thread_id, cron.schedule, cron.user_id) == ("a", None, "0 * * * *", None)
    assert (cron.payload, cron.metadata, cron.end_time) == ({}, {"owner": alice}, None)
    assert (cron.timezone, cron.enabled, cron.on_run_completed) == ("UTC", True, "delete")
    assert cron.next_run_date is not None
    assert cron.next_run_date.minute == 0
    assert timedelta(0) < cron.next_run_date - cron.created_at <= timedelta(hours=1)
    assert await storage.crons.get(cron.cron_id, alice) == cron


async def test_create_takes_everything(storage: GrpcStorage, alice: str) -> None:
    end = datetime.now(UTC).replace(microsecond=5) + timedelta(days=30)
    data = {
        "cron_id": f"c-{alice}",
        "thread_id": "t",
        "user_id": "u",
        "payload": {"input": {"n": 2**70}},
        "metadata": {"m": 1},
        "end_time": end,
        "timezone": "Europe/Berlin",
        "enabled": False,
        "on_run_completed": "keep",
        "next_run_date": "ignored",
    }
    cron = await create(storage, alice, **data)
    for name in ("cron_id", "thread_id", "user_id", "payload", "end_time", "timezone", "enabled", "on_run_completed"):
        assert getattr(cron, name) == data[name]
    assert cron.metadata == {"m": 1, "owner": alice}
    as_text = await create(storage, alice, end_time=end.isoformat())
    naive = await create(storage, alice, end_time=end.replace(tzinfo=None))
    assert as_text.end_time == naive.end_time == end
    with pytest.raises(ValueError, match=f"^Cron c-{alice} already exists$"):
        await create(storage, alice, **data)


@pytest.mark.parametrize("name", ["assistant_id", "schedule"])
async def test_create_wants_an_assistant_and_a_schedule(storage: GrpcStorage, alice: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is required$"):
        await create(storage, alice, **{name: ""})


@pytest.mark.parametrize(
    ("more", "error", "name"),
    [
        ({"schedule": "61 * * * *"}, ValueError, "schedule"),
        ({"schedule": "0 0 31 2 *"}, ValueError, "schedule"),
        ({"timezone": "Mars/Phobos"}, ValueError, "timezone"),
        ({"end_time": "tomorrow"}, ValueError, "end_time"),
        ({"end_time": 5}, TypeError, "end_time"),
        ({"end_time": datetime(2001, 1, 1, tzinfo=UTC)}, ValueError, "end_time"),
        ({"enabled": "yes"}, TypeError, "enabled"),
        ({"on_run_completed": "explode"}, ValueError, "on_run_completed"),
        ({"payload": [1]}, TypeError, "payload"),
    ],
)
async def test_wrong_data_is_refused_by_name(
    storage: GrpcStorage, alice: str, more: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        await create(storage, alice, **more)
    assert await storage.crons.count(alice) == 0


async def test_a_foreign_thread_is_not_found(storage: GrpcStorage, alice: str, bob: str) -> None:
    thread = await storage.threads.create({}, alice)
    with pytest.raises(errors.NotFound):
        await create(storage, bob, thread_id=thread.thread_id)


async def test_update(storage: GrpcStorage, alice: str, bob: str) -> None:
    end = datetime.now(UTC) + timedelta(days=3)
    cron = await create(storage, alice, metadata={"a": 1}, payload={"x": 1}, end_time=end)
    changed = await storage.crons.update(
        cron.cron_id, alice, {"schedule": "30 * * * *", "metadata": {"b": 2}, "end_time": None, "other": 1}
    )
    assert changed is not None
    assert (changed.schedule, changed.metadata) == ("30 * * * *", {"a": 1, "b": 2, "owner": alice})
    assert (changed.payload, changed.end_time) == ({"x": 1}, end)
    assert changed.next_run_date is not None
    assert changed.next_run_date.minute == 30
    changed = await storage.crons.update(
        cron.cron_id, alice, {"payload": {"y": 2}, "end_time": "", "user_id": "u", "enabled": False}
    )
    assert changed is not None
    assert (changed.payload, changed.end_time, changed.user_id, changed.enabled) == ({"y": 2}, None, "u", False)
    assert await storage.crons.get(cron.cron_id, alice) == changed
    for cron_id, owner in ((cron.cron_id, bob), ("absent", alice), ("", alice)):
        assert await storage.crons.update(cron_id, owner, {"user_id": "v"}) is None
        assert await storage.crons.get(cron_id, owner) is None
        assert await storage.crons.delete(cron_id, owner) is False
    assert await storage.crons.delete(cron.cron_id, alice) is True
    assert await storage.crons.delete(cron.cron_id, alice) is False


async def test_list_and_count(storage: GrpcStorage, alice: str, bob: str) -> None:
    one = await create(storage, alice, assistant_id="a1", thread_id="t1")
    two = await create(storage, alice, assistant_id="a2", thread_id="t1", enabled=False)
    three = await create(storage, alice, assistant_id="a1", user_id="u")
    await create(storage, bob, assistant_id="a1")
    for filters, rows in (
        ({}, [three, two, one]),
        ({"assistant_id": "a1"}, [three, one]),
        ({"assistant_id": "a1", "thread_id": "t1"}, [one]),
        ({"thread_id": None}, [three]),
        ({"user_id": "u"}, [three]),
        ({"enabled": False}, [two]),
        ({"enabled": 0}, []),
        ({"cron_id": two.cron_id}, [two]),
        ({"next_run_date": one.next_run_date, "user_id": "u"}, [three]),
    ):
        assert await storage.crons.list(alice, **filters) == rows, filters
        assert await storage.crons.count(alice, **filters) == len(rows), filters
    assert await storage.crons.list(alice, "a2") == [two]
    assert await storage.crons.count(alice, "a2") == 1
    with pytest.raises(TypeError, match="color"):
        await storage.crons.list(alice, color="red")
