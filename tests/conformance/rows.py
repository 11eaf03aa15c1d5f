"""The four kinds of rows that have an id, and what their services do alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.service import Api


@dataclass(frozen=True)
class Kind:
    """Assistants, threads, runs or crons."""

    name: str
    required: Mapping[str, Any] = field(default_factory=dict)
    # A field beside the id and the metadata, with a first and a second value.
    content: str = ""
    values: tuple[str, str] = ("", "")

    @property
    def id(self) -> str:
        return f"{self.name}_id"

    def method(self, verb: str) -> str:
        """The method of a verb: GetThread, SearchThreads."""
        return verb + self.name.capitalize() + ("s" if verb in ("Search", "Count") else "")

    async def call(self, api: Api, verb: str, owner: str | None, **fields: Any) -> Any:
        """The row, or the response where there is none, of a verb."""
        response = await api.call(self.method(verb), **scoped(owner), **fields)
        return getattr(response, self.name) if verb in ("Create", "Get", "Update") else response

    async def create(self, api: Api, owner: str | None, id: str = "", **fields: Any) -> Any:
        """A new row."""
        return await self.call(api, "Create", owner, **{self.id: id}, **{**self.required, **fields})

    async def get(self, api: Api, owner: str | None, id: str) -> Any:
        """The row."""
        return await self.call(api, "Get", owner, **{self.id: id})

    async def search(self, api: Api, owner: str | None, **fields: Any) -> list[str]:
        """The ids of a search, in its order."""
        response = await self.call(api, "Search", owner, **fields)
        return [self.id_of(row) for row in getattr(response, f"{self.name}s")]

    async def count(self, api: Api, owner: str | None, **fields: Any) -> int:
        """The number of rows of a search."""
        return int((await self.call(api, "Count", owner, **fields)).count)

    def id_of(self, row: Any) -> str:
        """The id of a row."""
        return str(getattr(row, self.id))


ASSISTANTS = Kind("assistant", {"graph_id": "graph"}, "config", ('{"a": 1}', '{"a": 2}'))
THREADS = Kind("thread", {}, "config", ('{"a": 1}', '{"a": 2}'))
_RECORDED = {"assistant_id": "recorded-assistant", "thread_id": "recorded-thread", "record_only": True}
RUNS = Kind("run", _RECORDED, "kwargs", ('{"a": 1}', '{"a": 2}'))
CRONS = Kind("cron", {**_RECORDED, "schedule": "0 0 1 1 *"}, "payload", ('{"a": 1}', '{"a": 2}'))
KINDS = (ASSISTANTS, THREADS, RUNS, CRONS)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def scoped(owner: str | None) -> dict[str, Any]:
    """The field of the owner, absent for an unscoped call."""
    return {} if owner is None else {"owner_id": owner}


def metadata_of(row: Any) -> Any:
    """The metadata of a row, parsed."""
    return json.loads(row.metadata)


def assert_same(left: str, right: Any) -> None:
    """The JSON text is this value."""
    assert json.loads(left) == right
