"""Mistakes in what a storage, a saver, a store or a connection is made with: each is named at once."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables.config import var_child_runnable_config

from agentstorage import Connection, GrpcStorage
from agentstorage.errors import Unreachable
from agentstorage.langgraph import AsyncGrpcSaver, AsyncGrpcStore, GrpcSaver, GrpcStore
from tests.service import ServerProcess

NOWHERE = "127.0.0.1:9"
CLASSES: tuple[Callable[..., Any], ...] = (GrpcStorage, GrpcSaver, AsyncGrpcSaver, GrpcStore, AsyncGrpcStore)
INDEX = {"embed": lambda texts: [[0.0] for _ in texts], "dims": 1}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("given", "kind_of_error", "message"),
    [
        ({"owner": "a"}, TypeError, "has no argument 'owner'; did you mean 'owner_id'"),
        ({"ownerid": "a"}, TypeError, "has no argument 'ownerid'; did you mean 'owner_id'"),
        ({"conn_string": "a"}, TypeError, "has no argument 'conn_string'"),
        ({"owner_id": 42}, TypeError, "owner_id must be a str, not int"),
        ({"owner_id": uuid.uuid4()}, TypeError, "owner_id must be a str, not UUID"),
        ({"owner_id": ""}, ValueError, "owner_id must not be empty"),
        ({"read_timeout": "5"}, TypeError, "read_timeout must be a number of seconds, not str"),
        ({"write_timeout": 0}, ValueError, "write_timeout must be more than 0 seconds"),
        ({"target": ""}, ValueError, 'target must be "host:port"'),
    ],
)
def test_arguments(
    kind: Callable[..., Any], given: dict[str, Any], kind_of_error: type[Exception], message: str
) -> None:
    with pytest.raises(kind_of_error, match=message):
        kind(**{"target": NOWHERE, **given})


def test_the_class_that_was_called_is_named() -> None:
    with pytest.raises(TypeError, match="AsyncGrpcStore has no argument 'indx'; did you mean 'index'"):
        AsyncGrpcStore(NOWHERE, indx=INDEX)
    with pytest.raises(TypeError, match="GrpcSaver has no argument 'serder'; did you mean 'serde'"):
        GrpcSaver(NOWHERE, serder=None)
    with pytest.raises(TypeError, match="token belong to the Connection"):
        GrpcSaver(Connection(NOWHERE), token="t")


@pytest.mark.parametrize(
    ("given", "kind_of_error", "message"),
    [
        ({"ttl": {"default": 5}}, ValueError, "ttl has the key 'default'; it may have default_ttl"),
        ({"ttl": 60}, TypeError, "ttl must be a dict, not int"),
        ({"ttl": {"default_ttl": "x"}}, TypeError, "default_ttl must be a number of minutes, not str"),
        ({"index": {**INDEX, "field": ["text"]}}, ValueError, "index has the key 'field'; it may have"),
        ({"index": {"dim": 2, "embed": INDEX["embed"]}}, ValueError, "index has the key 'dim'"),
        ({"index": {**INDEX, "dims": "3"}}, TypeError, "dims must be an int, not str"),
    ],
)
def test_what_a_store_embeds_and_keeps(given: dict[str, Any], kind_of_error: type[Exception], message: str) -> None:
    with pytest.raises(kind_of_error, match=message):
        GrpcStore(NOWHERE, owner_id="a", **given)


async def test_setting_up_asks_whether_the_service_is_there(servers: dict[str, ServerProcess]) -> None:
    there = servers["memory"].target
    for target in (there, NOWHERE):
        with contextlib.nullcontext() if target == there else pytest.raises(Unreachable):
            async with AsyncGrpcSaver(target) as saver:
                await saver.setup()
        with contextlib.nullcontext() if target == there else pytest.raises(Unreachable):
            async with AsyncGrpcStore(target) as store:
                await store.setup()
        for kind in (GrpcSaver, GrpcStore):
            with kind(target) as waiting, contextlib.nullcontext() if target == there else pytest.raises(Unreachable):
                await asyncio.to_thread(waiting.setup)


@pytest.mark.parametrize(
    ("owner", "kind_of_error", "message"),
    [
        ("", ValueError, "must not be empty"),
        (42, TypeError, "must be a str, not int"),
        (None, ValueError, "AGENTSTORAGE_OWNER"),
    ],
)
def test_the_owner_of_a_config(
    monkeypatch: pytest.MonkeyPatch, owner: Any, kind_of_error: type[Exception], message: str
) -> None:
    config: Any = {"configurable": {"thread_id": "t", "owner_id": owner}}
    if owner is not None:
        # Which stands in for an owner that is absent, and not for one that is wrong.
        monkeypatch.setenv("AGENTSTORAGE_OWNER", "default")
    with GrpcSaver(NOWHERE) as saver, pytest.raises(kind_of_error, match=message):
        saver.get_tuple(config)
    token = var_child_runnable_config.set(config)
    try:
        with GrpcStore(NOWHERE) as store, pytest.raises(kind_of_error, match=message):
            store.get(("a",), "k")
    finally:
        var_child_runnable_config.reset(token)
