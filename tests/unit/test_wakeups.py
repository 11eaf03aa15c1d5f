from __future__ import annotations

import asyncio
import time

import pytest

from storage_service.errors import ShuttingDown
from storage_service.wakeups import ALL, Waiter, Wakeups, log_of, queue_of


async def woken(waiter: Waiter) -> bool:
    """Whether it was woken since it was asked last."""
    started = time.monotonic()
    await waiter.wait(0.05)
    return time.monotonic() - started < 0.04


async def test_who_hears_of_what() -> None:
    wakeups = Wakeups()
    with (
        wakeups.waiter(log_of("run", "a")) as one,
        wakeups.waiter(log_of("run", "a")) as two,
        wakeups.waiter(log_of("thread", "a")) as other,
    ):
        wakeups.tell(log_of("run", "a"))
        assert [await woken(waiter) for waiter in (one, two, other)] == [True, True, False]
        wakeups.tell(log_of("run", "b"))
        assert [await woken(waiter) for waiter in (one, two, other)] == [False, False, False]
        wakeups.hear([ALL])
        assert [await woken(waiter) for waiter in (one, two, other)] == [True, True, True]


async def test_a_wake_up_before_the_wait_counts() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("a/b") as waiter:
        wakeups.tell("a/b")
        await asyncio.sleep(0)
        assert await woken(waiter)
        assert not await woken(waiter)


async def test_of_those_who_claim_one_after_the_other() -> None:
    wakeups = Wakeups()
    with (
        wakeups.waiter(queue_of("alice")) as one,
        wakeups.waiter(queue_of("alice")) as two,
        wakeups.waiter(queue_of(None)) as all_of_them,
    ):
        wakeups.tell(queue_of("alice"), queue_of(None))
        assert [await woken(waiter) for waiter in (one, two, all_of_them)] == [True, False, True]
        wakeups.tell(queue_of("alice"))
        assert [await woken(waiter) for waiter in (one, two, all_of_them)] == [False, True, False]
        wakeups.tell(queue_of("bob"))
        assert [await woken(waiter) for waiter in (one, two, all_of_them)] == [False, False, False]


async def test_the_end() -> None:
    wakeups = Wakeups()
    with wakeups.waiter("a/b") as waiter:
        waiting = asyncio.create_task(waiter.wait(10))
        await asyncio.sleep(0)
        wakeups.close()
        with pytest.raises(ShuttingDown):
            await waiting
    with pytest.raises(ShuttingDown), wakeups.waiter("a/b"):
        raise AssertionError("nobody waits any more")


async def test_others_are_told_and_somebody_waits() -> None:
    told: list[str] = []
    wakeups = Wakeups()
    wakeups.relay = told.extend
    wakeups.on_first = lambda: told.append("waits")
    with wakeups.waiter("a/b"):
        wakeups.hear(["a/b"])
        wakeups.tell("c/d")
    assert told == ["waits", "c/d"]
