from __future__ import annotations

from tests.service import Api


async def test_thread_round_trip(api: Api, owner: str) -> None:
    made = await api.call("CreateThread", owner_id=owner, metadata='{"a": 1}')
    found = await api.call("GetThread", owner_id=owner, thread_id=made.thread.thread_id)
    assert found.thread == made.thread
