"""The drop-in interface for runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentstorage import GrpcStorage, Run, errors


async def create(storage: GrpcStorage, owner: str, thread_id: str, **more: Any) -> Run:
    return await storage.runs.create({"thread_id": thread_id, "assistant_id": "a", **more}, owner)


async def test_create_only_writes_the_row(storage: GrpcStorage, alice: str) -> None:
    run = await create(storage, alice, "no such thread")
    assert isinstance(run, Run)
    assert len(run.run_id) == 32
    assert (run.thread_id, run.assistant_id, run.status, run.multitask_strategy) == (
        "no such thread", "a", "pending", "reject",
    )  # fmt: skip
    assert (run.metadata, run.kwargs) == ({"owner": alice}, {})
    assert await storage.runs.get(run.run_id, alice) == run


async def test_nothing_is_rejected_and_the_thread_stays_as_it_is(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    for strategy in ("reject", "enqueue", "interrupt", "rollback", "reject"):
        run = await create(storage, alice, thread.thread_id, multitask_strategy=strategy, status="running")
        assert (run.multitask_strategy, run.status) == (strategy, "running")
    assert await storage.runs.count_by_thread(thread.thread_id, alice) == 5
    found = await storage.threads.get(thread.thread_id, alice)
    assert found is not None
    assert found.status == "idle"


async def test_create_takes_everything(storage: GrpcStorage, alice: str, bob: str) -> None:
    kwargs = {"input": {"n": 2**65}, "command": None}
    run = await create(
        storage, alice, "t", run_id=f"r-{alice}", metadata={"m": 1, "owner": bob}, kwargs=kwargs, other="ignored"
    )
    assert (run.run_id, run.metadata, run.kwargs) == (f"r-{alice}", {"m": 1, "owner": alice}, kwargs)
    with pytest.raises(errors.AlreadyExists, match=f"^Run r-{alice} already exists$"):
        await create(storage, alice, "t", run_id=f"r-{alice}")


@pytest.mark.parametrize("name", ["thread_id", "assistant_id"])
async def test_create_wants_a_thread_and_an_assistant(storage: GrpcStorage, alice: str, name: str) -> None:
    data = {"thread_id": "t", "assistant_id": "a"}
    del data[name]
    with pytest.raises(ValueError, match=f"^{name} is required$"):
        await storage.runs.create(data, alice)


async def test_a_foreign_thread_is_not_found(storage: GrpcStorage, alice: str, bob: str) -> None:
    thread = await storage.threads.create({}, alice)
    with pytest.raises(errors.NotFound):
        await create(storage, bob, thread.thread_id)


async def test_absent_and_foreign_are_none(storage: GrpcStorage, alice: str, bob: str) -> None:
    run = await create(storage, alice, f"t-{alice}")
    for thread_id, run_id, owner in (
        (run.thread_id, run.run_id, bob),
        ("other", run.run_id, alice),
        (run.thread_id, "absent", alice),
        ("", run.run_id, alice),
        (run.thread_id, "", alice),
    ):
        assert await storage.runs.get_by_thread(thread_id, run_id, owner) is None
        assert await storage.runs.delete_by_thread(thread_id, run_id, owner) is False
    assert await storage.runs.get(run.run_id, bob) is None
    assert await storage.runs.update(run.run_id, {"metadata": {}}, bob) is None
    assert await storage.runs.update_status(run.run_id, "error", bob) is None
    assert await storage.runs.delete(run.run_id, bob) is False
    assert await storage.runs.get_active_run(run.thread_id, bob) is None
    assert await storage.runs.get_active_run("", alice) is None
    assert await storage.runs.list_by_thread(run.thread_id, bob) == []
    assert await storage.runs.count_by_thread(run.thread_id, bob) == 0
    assert await storage.runs.get_by_thread(run.thread_id, run.run_id, alice) == run
    assert await storage.runs.delete_by_thread(run.thread_id, run.run_id, alice) is True
    assert await storage.runs.delete(run.run_id, alice) is False


async def test_list_by_thread(storage: GrpcStorage, alice: str) -> None:
    thread_id = f"t-{alice}"
    made = [await create(storage, alice, thread_id, status="success" if n % 2 else "pending") for n in range(12)]
    await create(storage, alice, f"other-{alice}")
    newest = made[::-1]
    assert await storage.runs.list_by_thread(thread_id, alice) == newest[:10]
    assert await storage.runs.list_by_thread(thread_id, alice, 5, 2) == newest[2:7]
    assert await storage.runs.list_by_thread(thread_id, alice, limit=0) == newest[:1]
    assert await storage.runs.list_by_thread(thread_id, alice, limit=5000, offset=-1) == newest
    assert await storage.runs.list_by_thread(thread_id, alice, offset=20_000) == []
    assert await storage.runs.list_by_thread(thread_id, alice, status="success", limit=100) == newest[::2]
    assert await storage.runs.list_by_thread(thread_id, alice, status="nonsense") == []
    assert await storage.runs.list_by_thread("", alice) == []
    assert await storage.runs.count_by_thread(thread_id, alice) == 12
    assert await storage.runs.list(alice, thread_id=thread_id, status="pending") == newest[1::2]
    assert await storage.runs.count(alice, thread_id=thread_id, status="pending") == 6
    assert len(await storage.runs.list(alice)) == await storage.runs.count(alice) == 13


async def test_list_by_thread_goes_on_past_the_largest_page(storage: GrpcStorage, alice: str) -> None:
    thread_id = f"t-{alice}"
    for _ in range(10):
        await asyncio.gather(*(create(storage, alice, thread_id) for _ in range(101)))
    assert len(await storage.runs.list_by_thread(thread_id, alice, limit=1005)) == 1005
    assert len(await storage.runs.list_by_thread(thread_id, alice, limit=5000, offset=3)) == 1007


async def test_the_active_run_is_the_newest_that_has_not_ended(storage: GrpcStorage, alice: str) -> None:
    thread_id = f"t-{alice}"
    assert await storage.runs.get_active_run(thread_id, alice) is None
    await create(storage, alice, thread_id)
    newer = await create(storage, alice, thread_id, status="running")
    await create(storage, alice, thread_id, status="error")
    assert await storage.runs.get_active_run(thread_id, alice) == newer


async def test_update(storage: GrpcStorage, alice: str) -> None:
    run = await create(storage, alice, "t", metadata={"a": 1}, kwargs={"x": 1})
    changed = await storage.runs.update(run.run_id, {"metadata": {"b": 2}, "status": "running"}, alice)
    assert changed is not None
    assert (changed.metadata, changed.status, changed.kwargs) == ({"a": 1, "b": 2, "owner": alice}, "running", {"x": 1})
    changed = await storage.runs.update(run.run_id, {"kwargs": {"y": 2}, "status": None}, alice)
    assert changed is not None
    assert (changed.kwargs, changed.status) == ({"y": 2}, "running")


@pytest.mark.parametrize("final", ["success", "error", "timeout", "interrupted"])
async def test_a_final_status_stays(storage: GrpcStorage, alice: str, final: str) -> None:
    run = await create(storage, alice, "t")
    started = await storage.runs.update_status(run.run_id, "running", alice)
    assert started is not None
    assert started.status == "running"
    ended = await storage.runs.update_status(run.run_id, final, alice)
    assert ended is not None
    assert ended.status == final
    assert await storage.runs.update_status(run.run_id, "running", alice) == ended
    changed = await storage.runs.update(run.run_id, {"status": "pending", "metadata": {"k": 1}}, alice)
    assert changed is not None
    assert (changed.status, changed.metadata) == (final, {"k": 1, "owner": alice})


async def test_wrong_arguments_are_refused_by_name(storage: GrpcStorage, alice: str) -> None:
    run = await create(storage, alice, "t")
    with pytest.raises(ValueError, match="status"):
        await storage.runs.update_status(run.run_id, "sleeping", alice)
    with pytest.raises(ValueError, match="multitask_strategy"):
        await create(storage, alice, "t", multitask_strategy="hope")
    with pytest.raises(TypeError, match="kwargs"):
        await create(storage, alice, "t", kwargs="{}")
    with pytest.raises(TypeError, match="limit"):
        await storage.runs.list_by_thread("t", alice, limit="5")  # type: ignore[arg-type]  # what is wrong on purpose
