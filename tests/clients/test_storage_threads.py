"""The drop-in interface for threads and their states."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentstorage import GrpcStorage, Thread, errors


async def test_create_gives_defaults_and_stamps_the_owner(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    assert isinstance(thread, Thread)
    assert len(thread.thread_id) == 32
    assert thread.metadata == {"owner": alice}
    assert (thread.config, thread.status, thread.values, thread.interrupts) == ({}, "idle", {}, {})
    assert thread.created_at.tzinfo is UTC
    assert abs(thread.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert thread.updated_at == thread.created_at
    assert await storage.threads.get(thread.thread_id, alice) == thread


async def test_create_takes_everything(storage: GrpcStorage, alice: str, bob: str) -> None:
    data = {
        "thread_id": f"t {alice}",
        "metadata": {"topic": "tea", "owner": bob},
        "config": {"configurable": {"model": "m"}},
        "status": "interrupted",
        "values": {"n": 2**70, "x": 1.5, "list": [1, None, "ä"]},
        "interrupts": {"task": [{"value": "sure?"}]},
        "not_known": "ignored",
    }
    thread = await storage.threads.create(data, alice)
    assert thread.metadata == {"topic": "tea", "owner": alice}
    for name in ("thread_id", "config", "status", "values", "interrupts"):
        assert getattr(thread, name) == data[name]


async def test_a_second_create_is_refused_or_answers_the_first(storage: GrpcStorage, alice: str, bob: str) -> None:
    first = await storage.threads.create({"thread_id": alice, "metadata": {"a": 1}}, alice)
    for data in ({"thread_id": alice, "metadata": {"a": 1}}, {"thread_id": alice, "if_exists": "raise"}):
        with pytest.raises(errors.AlreadyExists, match=f"^Thread {alice} already exists$") as caught:
            await storage.threads.create(data, alice)
        assert isinstance(caught.value, ValueError)
    again = await storage.threads.create({"thread_id": alice, "metadata": {"b": 1}, "if_exists": "do_nothing"}, alice)
    assert again == first
    with pytest.raises(errors.AlreadyExists):
        await storage.threads.create({"thread_id": alice, "if_exists": "do_nothing"}, bob)


async def test_absent_and_foreign_are_none(storage: GrpcStorage, alice: str, bob: str) -> None:
    thread = await storage.threads.create({}, alice)
    for thread_id, owner in (
        (thread.thread_id, bob),
        ("absent", alice),
        ("", alice),
        ("x" * 300, alice),
        ("\0", alice),
    ):
        assert await storage.threads.get(thread_id, owner) is None
        assert await storage.threads.update(thread_id, {"metadata": {"a": 1}}, owner) is None
        assert await storage.threads.delete(thread_id, owner) is False
        assert await storage.threads.get_state(thread_id, owner) is None
        assert await storage.threads.get_history(thread_id, owner) is None
        assert await storage.threads.add_state_snapshot(thread_id, {"values": {}}, owner) is False
    assert await storage.threads.get(thread.thread_id, alice) == thread


async def test_update_changes_what_it_names(storage: GrpcStorage, alice: str, bob: str) -> None:
    thread = await storage.threads.create({"metadata": {"a": 1, "b": 2}, "values": {"v": 1}, "config": {"c": 1}}, alice)
    changed = await storage.threads.update(
        thread.thread_id, {"metadata": {"b": None, "c": 3, "owner": bob}, "status": "busy", "other": 1}, alice
    )
    assert changed is not None
    assert changed.metadata == {"a": 1, "b": None, "c": 3, "owner": alice}
    assert (changed.status, changed.values, changed.config) == ("busy", {"v": 1}, {"c": 1})
    assert changed.created_at == thread.created_at
    assert changed.updated_at > thread.updated_at
    changed = await storage.threads.update(
        thread.thread_id, {"values": [1, 2], "config": {}, "interrupts": {"i": 1}, "metadata": None}, alice
    )
    assert changed is not None
    assert (changed.values, changed.config, changed.interrupts, changed.status) == ([1, 2], {}, {"i": 1}, "busy")
    assert await storage.threads.get(thread.thread_id, alice) == changed


async def test_delete(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    run = await storage.runs.create({"thread_id": thread.thread_id, "assistant_id": "a"}, alice)
    assert await storage.threads.delete(thread.thread_id, alice) is True
    assert await storage.threads.delete(thread.thread_id, alice) is False
    assert await storage.threads.get(thread.thread_id, alice) is None
    assert await storage.runs.get(run.run_id, alice) is None


async def test_list_returns_all_newest_first(storage: GrpcStorage, alice: str, bob: str) -> None:
    made = [await storage.threads.create({"metadata": {"n": n}}, alice) for n in range(12)]
    await storage.threads.create({}, bob)
    assert await storage.threads.list(alice) == made[::-1]
    assert await storage.threads.count(alice) == 12
    assert await storage.threads.list(f"{alice}x") == []


async def test_list_goes_on_past_the_largest_page(
    storage: GrpcStorage, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.storage.resource.PAGE", 3)
    made = [await storage.threads.create({}, alice) for _ in range(8)]
    assert [thread.thread_id for thread in await storage.threads.list(alice)] == [t.thread_id for t in made[::-1]]


async def test_filters_are_equalities_and_none_is_ignored(storage: GrpcStorage, alice: str) -> None:
    one = await storage.threads.create({"status": "busy", "metadata": {"k": "v"}, "values": {"n": 1}}, alice)
    two = await storage.threads.create({"metadata": {"k": "v", "more": 1}, "values": {"n": 2}}, alice)
    expected: list[tuple[dict[str, Any], list[Thread]]] = [
        ({"status": "busy"}, [one]),
        ({"status": "idle"}, [two]),
        ({"status": "nonsense"}, []),
        ({"status": None}, []),
        ({"thread_id": one.thread_id}, [one]),
        ({"thread_id": ""}, []),
        ({"thread_id": "x" * 300}, []),
        ({"metadata": {"k": "v"}}, [one]),
        ({"metadata": {"k": "v", "more": 1, "owner": alice}}, [two]),
        ({"metadata": {"more": True}}, []),
        ({"values": {"n": 2}}, [two]),
        ({"values": {"n": 2}, "status": "busy"}, []),
        ({"created_at": one.created_at}, [one]),
        ({"status": "idle", "metadata": {"k": "v", "more": 1}}, [two]),
    ]
    for filters, rows in expected:
        assert await storage.threads.list(alice, **filters) == rows, filters
        assert await storage.threads.count(alice, **filters) == len(rows), filters
    with pytest.raises(TypeError, match="color"):
        await storage.threads.list(alice, color="red")
    with pytest.raises(TypeError, match="color"):
        await storage.threads.count(alice, color="red")


@pytest.mark.parametrize(
    ("data", "error", "name"),
    [
        ("text", TypeError, "data"),
        ({"thread_id": 5}, TypeError, "thread_id"),
        ({"metadata": []}, TypeError, "metadata"),
        ({"config": "{}"}, TypeError, "config"),
        ({"status": "sleeping"}, ValueError, "status"),
        ({"status": 1}, TypeError, "status"),
        ({"values": {"x": float("nan")}}, ValueError, "values"),
        ({"values": {1, 2}}, TypeError, "values"),
        ({"if_exists": "replace"}, ValueError, "if_exists"),
        ({"thread_id": "a\0"}, ValueError, "thread_id"),
        ({"values": {"x": "\0"}}, ValueError, "values"),
    ],
)
async def test_wrong_data_is_refused_by_name(
    storage: GrpcStorage, alice: str, data: Any, error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        await storage.threads.create(data, alice)
    assert await storage.threads.count(alice) == 0


async def test_the_empty_owner_is_refused_and_no_owner_is_unscoped(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    with pytest.raises(errors.InvalidRequest, match="owner_id"):
        await storage.threads.get(thread.thread_id, "")
    with pytest.raises(TypeError, match="owner_id"):
        await storage.threads.get(thread.thread_id, 7)  # type: ignore[arg-type]  # what is wrong on purpose
    assert await storage.threads.get(thread.thread_id) == thread
    orphan = await storage.threads.create({})
    assert orphan.metadata == {}
    assert await storage.threads.get(orphan.thread_id, alice) is None
    assert await storage.threads.delete(orphan.thread_id) is True


async def test_the_connections_owner_is_the_default(server: Any, storage: GrpcStorage, alice: str, bob: str) -> None:
    async with GrpcStorage(server.target, owner_id=alice) as hers:
        thread = await hers.threads.create({})
        assert thread.metadata == {"owner": alice}
        assert await hers.threads.list() == [thread]
        assert await hers.threads.get(thread.thread_id, bob) is None
    assert await storage.threads.get(thread.thread_id, bob) is None


async def test_state_without_a_snapshot(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({"values": {"v": 1}, "metadata": {"m": 1}}, alice)
    state = await storage.threads.get_state(thread.thread_id, alice)
    assert state is not None
    assert state.values == {"v": 1}
    assert state.checkpoint == {"thread_id": thread.thread_id, "checkpoint_ns": "", "checkpoint_id": None}
    assert (state.next, state.tasks, state.parent_checkpoint) == ([], [], None)
    assert await storage.threads.get_history(thread.thread_id, alice) == []


async def test_snapshots(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    first = {
        "values": {"n": 1},
        "next": ["node"],
        "tasks": [{"id": "t", "name": "node"}],
        "metadata": {"step": 1},
        "interrupts": [{"value": "sure?"}],
    }
    assert await storage.threads.add_state_snapshot(thread.thread_id, first, alice) is True
    assert await storage.threads.add_state_snapshot(thread.thread_id, {"n": 2, "checkpoint_id": "x"}, alice) is True
    history = await storage.threads.get_history(thread.thread_id, alice)
    assert history is not None
    newest, oldest = history
    assert (oldest.values, oldest.next, oldest.tasks) == (first["values"], first["next"], first["tasks"])
    assert (oldest.metadata, oldest.interrupts) == (first["metadata"], first["interrupts"])
    assert oldest.parent_checkpoint is None
    assert newest.values == {"n": 2, "checkpoint_id": "x"}
    assert (newest.next, newest.tasks, newest.interrupts) == ([], [], [])
    assert newest.parent_checkpoint == oldest.checkpoint
    assert newest.checkpoint["thread_id"] == thread.thread_id
    assert newest.checkpoint["checkpoint_id"]
    assert newest.created_at is not None
    assert newest.created_at.endswith("Z")
    assert datetime.fromisoformat(newest.created_at) > datetime.fromisoformat(oldest.created_at or "")
    assert await storage.threads.get_state(thread.thread_id, alice) == newest
    changed = await storage.threads.get(thread.thread_id, alice)
    assert changed is not None
    assert changed.values == newest.values


async def test_history_goes_on_past_the_largest_page(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    for number in range(1002):
        await storage.threads.add_state_snapshot(thread.thread_id, {"values": number}, alice)
    for limit, expected in ((1001, 1001), (5000, 1002)):
        states = await storage.threads.get_history(thread.thread_id, alice, limit=limit)
        assert [state.values for state in states or ()] == list(range(1001, 1001 - expected, -1))


async def test_history_is_cut_by_limit_and_before(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    for number in range(13):
        await storage.threads.add_state_snapshot(thread.thread_id, {"values": number}, alice)

    async def values(**cut: Any) -> list[Any]:
        states = await storage.threads.get_history(thread.thread_id, alice, **cut)
        assert states is not None
        return [state.values for state in states]

    everything = list(range(12, -1, -1))
    assert await values() == everything[:10]
    assert await values(limit=1000) == await values(limit=5000) == everything
    assert await values(limit=0) == await values(limit=-3) == [12]
    states = await storage.threads.get_history(thread.thread_id, alice, limit=100)
    assert states is not None
    before = states[4].checkpoint
    assert await values(before=before["checkpoint_id"], limit=3) == [7, 6, 5]
    assert await values(before=before, limit=3) == [7, 6, 5]
    assert await values(before={"configurable": before}, limit=3) == [7, 6, 5]
    assert await values(before="unknown") == await values(before="\0") == []
    assert await values(before=states[-1].checkpoint["checkpoint_id"]) == []
    with pytest.raises(TypeError, match="limit"):
        await storage.threads.get_history(thread.thread_id, alice, limit="3")  # type: ignore[arg-type]  # on purpose
    assert await storage.threads.get_history("absent", alice, before="unknown") is None


async def test_wrong_states_are_refused_by_name(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({}, alice)
    for state, name in (
        ([], "state"),
        ({"values": {}, "next": "node"}, "next"),
        ({"values": {}, "tasks": {}}, "tasks"),
    ):
        with pytest.raises(TypeError, match=name):
            await storage.threads.add_state_snapshot(thread.thread_id, state, alice)  # type: ignore[arg-type]  # on purpose
    assert await storage.threads.get_history(thread.thread_id, alice) == []


async def test_results_turn_into_dicts(storage: GrpcStorage, alice: str) -> None:
    thread = await storage.threads.create({"metadata": {"a": 1}}, alice)
    shown = thread.to_dict()
    assert shown == thread.model_dump(mode="json")
    assert set(shown) == {
        "thread_id", "metadata", "config", "status", "values", "interrupts", "created_at", "updated_at",
    }  # fmt: skip
    assert shown["created_at"] == thread.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert thread.model_dump(include={"thread_id", "created_at"}) == {
        "thread_id": thread.thread_id,
        "created_at": thread.created_at,
    }
    assert Thread(**thread.model_dump()) == thread
