"""The drop-in interface for assistants."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from agentstorage import Assistant, GrpcStorage, errors


async def test_create_gives_defaults(storage: GrpcStorage, alice: str) -> None:
    made = await storage.assistants.create({"graph_id": "g"}, alice)
    assert isinstance(made, Assistant)
    assert len(made.assistant_id) == 32
    assert (made.graph_id, made.version, made.name, made.description) == ("g", 1, None, None)
    assert (made.context, made.metadata) == ({}, {"owner": alice})
    assert (made.config.tags, made.config.recursion_limit, made.config.configurable) == ([], 25, {})
    assert await storage.assistants.get(made.assistant_id, alice) == made


async def test_config_is_an_object_and_a_dict(storage: GrpcStorage, alice: str) -> None:
    data = {"graph_id": "g", "config": {"recursion_limit": 7, "configurable": {"model": "m"}, "extra": [1]}}
    config = (await storage.assistants.create(data, alice)).config
    assert (config.recursion_limit, config.configurable, config.tags) == (7, {"model": "m"}, [])
    assert config["extra"] == [1]
    assert json.loads(json.dumps(config)) == config.model_dump() == {**data["config"], "tags": []}  # type: ignore[dict-item]  # a dict it is
    copy = await storage.assistants.create({"graph_id": "g", "config": config}, alice)
    assert copy.config == config


@pytest.mark.parametrize("data", [{}, {"graph_id": ""}, {"graph_id": None}, {"name": "n"}])
async def test_create_wants_a_graph(storage: GrpcStorage, alice: str, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^graph_id is required$"):
        await storage.assistants.create(data, alice)


async def test_create_honours_the_id(storage: GrpcStorage, alice: str, bob: str) -> None:
    assistant_id = str(uuid.uuid4())
    made = await storage.assistants.create({"assistant_id": assistant_id, "graph_id": "g"}, alice)
    assert made.assistant_id == assistant_id
    with pytest.raises(ValueError, match=f"^Assistant {assistant_id} already exists$"):
        await storage.assistants.create({"assistant_id": assistant_id, "graph_id": "g"}, alice)
    data = {"assistant_id": assistant_id, "graph_id": "h", "if_exists": "do_nothing"}
    assert await storage.assistants.create(data, alice) == made
    with pytest.raises(errors.AlreadyExists):
        await storage.assistants.create(data, bob)
    for call in (
        storage.assistants.get(assistant_id, bob),
        storage.assistants.update(assistant_id, {"name": "n"}, bob),
    ):
        assert await call is None
    assert await storage.assistants.delete(assistant_id, bob) is False


async def test_update_adds_a_version(storage: GrpcStorage, alice: str) -> None:
    made = await storage.assistants.create(
        {
            "graph_id": "g",
            "name": "n",
            "description": "d",
            "metadata": {"a": 1},
            "config": {"x": 1},
            "context": {"c": 1},
        },
        alice,
    )
    changed = await storage.assistants.update(made.assistant_id, {"name": "m", "metadata": {"b": 2}}, alice)
    assert changed is not None
    assert (changed.version, changed.name, changed.description) == (2, "m", "d")
    assert changed.metadata == {"a": 1, "b": 2, "owner": alice}
    assert (changed.config["x"], changed.context) == (1, {"c": 1})
    changed = await storage.assistants.update(
        made.assistant_id, {"config": {"y": 2}, "context": {}, "graph_id": "h", "description": "", "name": None}, alice
    )
    assert changed is not None
    assert (changed.version, changed.graph_id, changed.name, changed.description) == (3, "h", "m", None)
    assert changed.config == {"y": 2, "tags": [], "recursion_limit": 25, "configurable": {}}
    assert changed.context == {}


async def test_concurrent_updates_lose_nothing(storage: GrpcStorage, alice: str) -> None:
    made = await storage.assistants.create({"graph_id": "g"}, alice)
    await asyncio.gather(
        *(storage.assistants.update(made.assistant_id, {"metadata": {f"k{n}": n}}, alice) for n in range(16))
    )
    found = await storage.assistants.get(made.assistant_id, alice)
    assert found is not None
    assert found.version == 17
    assert found.metadata == {"owner": alice, **{f"k{n}": n for n in range(16)}}


async def test_the_system_owners_are_readable_by_all(storage: GrpcStorage, alice: str) -> None:
    shared = await storage.assistants.create({"graph_id": f"g-{alice}"}, "system")
    own = await storage.assistants.create({"graph_id": f"g-{alice}"}, alice)
    assert await storage.assistants.get(shared.assistant_id, alice) == shared
    assert await storage.assistants.list(alice, graph_id=f"g-{alice}") == [own, shared]
    assert await storage.assistants.count(alice, graph_id=f"g-{alice}") == 2
    assert await storage.assistants.update(shared.assistant_id, {"name": "mine"}, alice) is None
    assert await storage.assistants.delete(shared.assistant_id, alice) is False
    assert await storage.assistants.delete(shared.assistant_id, "system") is True


async def test_filters(storage: GrpcStorage, alice: str) -> None:
    graph = f"g-{alice}"
    one = await storage.assistants.create({"graph_id": graph, "name": "Tea", "metadata": {"k": 1}}, alice)
    two = await storage.assistants.create({"graph_id": graph, "name": "tea pot"}, alice)
    for filters, rows in (
        ({"graph_id": graph}, [two, one]),
        ({"graph_id": graph, "name": "Tea"}, [one]),
        ({"graph_id": graph, "name": "tea"}, []),
        ({"assistant_id": two.assistant_id}, [two]),
        ({"graph_id": graph, "version": 1, "metadata": {"k": 1}}, [one]),
        ({"graph_id": graph, "description": None}, [two, one]),
        ({"graph_id": ""}, []),
    ):
        assert await storage.assistants.list(alice, **filters) == rows, filters
        assert await storage.assistants.count(alice, **filters) == len(rows), filters
    with pytest.raises(TypeError, match="limit"):
        await storage.assistants.list(alice, limit=3)
