"""The orders of every search, with ties, in both directions, over pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import assistants_pb2, crons_pb2, runs_pb2, threads_pb2
from tests.conformance.expect import invalid
from tests.conformance.rows import ASSISTANTS, CRONS, RUNS, THREADS, Kind, every_kind
from tests.service import Api

# What the searches sort by, from the protos: each value of the enum names a field of the row.
ENUMS = {
    "assistant": assistants_pb2.AssistantSort,
    "thread": threads_pb2.ThreadSort,
    "run": runs_pb2.RunSort,
    "cron": crons_pb2.CronSort,
}
# What a row without the date sorts as.
ABSENT = {"state_updated_at": -(10**18), "next_run_date": 10**18, "end_time": 10**18}
TEXTS = ("", "b", "B", "a", "ä", "Z", "a", "z", "\U0001f600", "\uffff", "a b", "a-b", "", "é", "e\u0301")


async def make(api: Api, kind: Kind, owner: str) -> None:
    """Rows with ties in every field but the id."""
    for number, text in enumerate(TEXTS):
        id = f"{owner}-{text}-{number % 5}"
        match kind.name:
            case "assistant":
                await kind.create(api, owner, id, name=text, graph_id=text or "g")
            case "thread":
                await kind.create(api, owner, id, status=1 + number % 4)
            case "run":
                await kind.create(api, owner, id, status=1 + number % 6)
            case _:
                more: dict[str, Any] = {"end_time": f"20{90 + number % 3}-01-01T00:00:00Z"} if number % 4 else {}
                named = {"assistant_id": text or "a", "thread_id": text}
                await kind.create(api, owner, id, enabled=number % 3 > 0, **named, **more)
    ids = await kind.search(api, owner, page_size=100)
    for id in ids[::2]:
        more = {"values": "{}"} if kind is THREADS else {}
        await kind.call(api, "Update", owner, **{kind.id: id}, **more)


def place(row: Any, field: str) -> Any:
    """What orders a row by a field."""
    descriptor = row.DESCRIPTOR.fields_by_name[field]
    value = getattr(row, field)
    if descriptor.enum_type is not None:
        return descriptor.enum_type.values_by_number[value].name.rpartition("_")[2].lower()
    if isinstance(value, Timestamp):
        return value.ToMicroseconds() if row.HasField(field) else ABSENT[field]
    return value


@every_kind
async def test_every_order(api: Api, kind: Kind, owner: str) -> None:
    await make(api, kind, owner)
    rows = getattr(await kind.call(api, "Search", owner, page_size=100), f"{kind.name}s")
    assert len(rows) == len(TEXTS)
    for name, number in ENUMS[kind.name].items():
        field = name.partition("_SORT_")[2].lower()
        field = "created_at" if field == "unspecified" else field
        for order in ("SORT_ORDER_UNSPECIFIED", "SORT_ORDER_ASC", "SORT_ORDER_DESC"):
            ordered = sorted(
                rows, key=lambda row: (place(row, field), kind.id_of(row)), reverse=order != "SORT_ORDER_ASC"
            )
            wanted = [kind.id_of(row) for row in ordered]
            asked: dict[str, Any] = {"sort_by": number, "sort_order": order}
            assert await kind.search(api, owner, **asked, page_size=100) == wanted, (field, order)
            assert await kind.search(api, owner, **asked, page_size=3, offset=5) == wanted[5:8], (field, order)
            found: list[str] = []
            token = ""
            while True:
                page = await kind.call(api, "Search", owner, **asked, page_size=4, page_token=token)
                found += [kind.id_of(row) for row in getattr(page, f"{kind.name}s")]
                token = page.next_page_token
                if not token:
                    break
            assert found == wanted, (field, order)


@pytest.mark.parametrize(("kind", "sort"), [(ASSISTANTS, "NAME"), (ASSISTANTS, "GRAPH_ID"), (CRONS, "THREAD_ID")])
async def test_texts_that_differ_late(api: Api, kind: Kind, sort: str, owner: str) -> None:
    """Pages hold every row once also where the order's text is long."""
    field = sort.lower()
    length = 255 if kind is CRONS else 300
    wanted = set()
    for end in "abc":
        for _ in range(2):
            row = await kind.create(api, owner, **{field: "x" * (length - 1) + end})
            wanted.add(kind.id_of(row))
    found: list[str] = []
    token = ""
    while True:
        page = await kind.call(
            api, "Search", owner, sort_by=f"{kind.name.upper()}_SORT_{sort}", page_size=1, page_token=token
        )
        found += [kind.id_of(row) for row in getattr(page, f"{kind.name}s")]
        token = page.next_page_token
        if not token:
            break
    assert len(found) == len(wanted)
    assert set(found) == wanted


async def test_rows_of_one_moment_are_ordered_by_id(api: Api, owner: str) -> None:
    ids = [f"{owner}-{number:02}" for number in range(16)]
    await asyncio.gather(*(RUNS.create(api, owner, id) for id in ids))
    rows = (await RUNS.call(api, "Search", owner, page_size=100)).runs
    places = [(row.created_at.ToMicroseconds(), row.run_id) for row in rows]
    assert places == sorted(places, reverse=True)
    assert {row.run_id for row in rows} == set(ids)


@every_kind
@pytest.mark.parametrize("field", ["sort_by", "sort_order"])
async def test_unknown_order(api: Api, kind: Kind, owner: str, field: str) -> None:
    with invalid(field):
        await kind.call(api, "Search", owner, **{field: 99})
