"""Statements of calls that come together are committed together: what one of them fails with is its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.regressions.conftest import Bench
from tests.service import CallFailed

_REFUSE = """
CREATE OR REPLACE FUNCTION langgraph_server.refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id LIKE 'refused-%' THEN RAISE EXCEPTION 'refused'; END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER refuse_some BEFORE INSERT ON langgraph_server.threads
    FOR EACH ROW EXECUTE FUNCTION langgraph_server.refuse_some()
"""


async def test_a_call_that_fails_fails_alone(bench: Bench, owner: str) -> None:
    await bench.connection.execute(_REFUSE)
    try:
        ids = [f"{'refused' if number % 10 == 7 else 'taken'}-{owner}-{number}" for number in range(200)]
        outcomes = await asyncio.gather(
            *(bench.api.call("CreateThread", owner_id=owner, thread_id=id) for id in ids), return_exceptions=True
        )
    finally:
        await bench.connection.execute("DROP TRIGGER refuse_some ON langgraph_server.threads")
    for id, outcome in zip(ids, outcomes, strict=True):
        if id.startswith("refused"):
            assert isinstance(outcome, CallFailed)
            assert outcome.code.name == "INTERNAL"
        else:
            assert not isinstance(outcome, BaseException), outcome
            assert outcome.thread.thread_id == id
    kept = await bench.number("SELECT count(*) FROM langgraph_server.threads WHERE owner_id = %s", owner)
    assert kept == 180


async def test_calls_that_change_one_row_each_count(bench: Bench, owner: str) -> None:
    id = f"t-{owner}"
    await bench.api.call("CreateThread", owner_id=owner, thread_id=id)
    await asyncio.gather(
        *(
            bench.api.call("UpdateThread", owner_id=owner, thread_id=id, metadata=f'{{"k{number}": {number}}}')
            for number in range(150)
        )
    )
    thread = (await bench.api.call("GetThread", owner_id=owner, thread_id=id)).thread
    assert thread.metadata.count('"k') == 150


async def test_puts_that_expect_a_version_agree_on_one_winner(bench: Bench, owner: str) -> None:
    place: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k"}
    outcomes = await asyncio.gather(
        *(bench.api.call("PutItem", value=str(number), expected_version=0, **place) for number in range(64)),
        return_exceptions=True,
    )
    found = Counter(
        outcome.reason if isinstance(outcome, CallFailed) else type(outcome).__name__ for outcome in outcomes
    )
    assert found == {"PutItemResponse": 1, "VERSION_MISMATCH": 63}
