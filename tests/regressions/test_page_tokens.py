"""Page tokens of which the digest is right and the place is not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from storage_service.caller import AllOwners, Owner
from storage_service.paging import Paging
from storage_service.store import Order
from storage_service.store.tables import ASSISTANT_VERSIONS, ASSISTANTS, CRONS, RUNS, THREAD_STATES, THREADS, Table
from tests.service import Api, CallFailed, request_of

pytestmark = pytest.mark.parametrize("api", ["memory-direct", "postgres-direct"], indirect=True)

# A method, what it asks for, its table, and the fields of its order.
SEARCHES: list[tuple[str, dict[str, Any], Table[Any], tuple[str, ...]]] = [
    ("SearchThreads", {}, THREADS, ("created_at", "thread_id")),
    ("SearchThreads", {"sort_by": 3}, THREADS, ("state_updated_at", "thread_id")),
    ("SearchThreads", {"sort_by": 4}, THREADS, ("status", "thread_id")),
    ("SearchThreads", {"sort_by": 5, "sort_order": 1}, THREADS, ("thread_id",)),
    ("SearchRuns", {"sort_by": 3}, RUNS, ("status", "run_id")),
    ("SearchAssistants", {"sort_by": 3}, ASSISTANTS, ("name", "assistant_id")),
    ("SearchAssistants", {"sort_by": 4}, ASSISTANTS, ("graph_id", "assistant_id")),
    ("SearchCrons", {"sort_by": 3}, CRONS, ("next_run_date", "cron_id")),
    ("SearchCrons", {"sort_by": 5}, CRONS, ("assistant_id", "cron_id")),
    ("ListAssistantVersions", {"assistant_id": "a"}, ASSISTANT_VERSIONS, ("version",)),
    ("ListThreadStates", {"thread_id": "t"}, THREAD_STATES, ("sequence",)),
]
IDS = [f"{method}-{fields[0]}" for method, _, _, fields in SEARCHES]
_FAR = 253402300800 * 1_000_000
_DEEP = b"[" * 2000
TEXTS = [b"", b"[", b"null", b"1", b'"x"', b"{}", b"\xff", b"\xff\xfe[\x00", b"[1,]", _DEEP, _DEEP + b"]" * 2000]
# What no place of a time, of a number, or of a text is.
NO_TIME: list[Any] = ["x", "2026-01-01T00:00:00Z", 1.5, True, [], {}, 10**30, -(10**30), _FAR, -_FAR]
NO_NUMBER: list[Any] = ["x", None, 1.5, True, [1], {}, 2**31, -(2**63), 10**400]
NO_TEXT: list[Any] = [None, 1, 1.5, True, ["x"], {}, "\ud800", "a\udfff", "\x00", "a\x00b"]


def token(method: str, asked: dict[str, Any], table: Table[Any], order: tuple[str, ...], text: bytes) -> str:
    """A token for a search with any text in it."""
    owner = asked.get("owner_id")
    paging = Paging(table, Order(order, True), request_of(method, asked), Owner(owner) if owner else AllOwners())
    return base64.urlsafe_b64encode(paging._digest(text) + text).decode()


def places(table: Table[Any], order: tuple[str, ...]) -> list[bytes]:
    """Places that rows in this order can't have."""
    good: list[Any] = []
    wrong: list[list[Any]] = []
    for name in order:
        if table.columns[name].is_time:
            good.append(1_700_000_000_000_000)
            wrong.append([*NO_TIME, float("nan"), float("inf")])
        elif isinstance(getattr(table.message(), name), str):
            good.append("x")
            wrong.append(NO_TEXT)
        else:
            good.append(1)
            wrong.append([*NO_NUMBER, float("nan")])
    found: list[list[Any]] = [[], good[:-1], [*good, 1], [good], [None] * (len(order) + 1)]
    for index, values in enumerate(wrong):
        found += [[*good[:index], value, *good[index + 1 :]] for value in values]
    return [json.dumps(place).encode() for place in found]


@pytest.mark.parametrize(("method", "fields", "table", "order"), SEARCHES, ids=IDS)
@pytest.mark.parametrize("scoped", [True, False], ids=["owner", "unscoped"])
async def test_a_place_that_no_row_has_is_refused(
    api: Api, owner: str, method: str, fields: dict[str, Any], table: Table[Any], order: tuple[str, ...], scoped: bool
) -> None:
    asked = {**fields, "owner_id": owner} if scoped else dict(fields)
    for text in [*TEXTS, *places(table, order)]:
        forged = token(method, asked, table, order, text)
        if len(forged) > 4096:
            continue
        with pytest.raises(CallFailed) as refused:
            await api.call(method, **asked, page_token=forged)
        assert (refused.value.code.name, refused.value.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), text


@pytest.mark.parametrize(("method", "fields", "table", "order"), SEARCHES[:9], ids=IDS[:9])
async def test_a_place_that_a_row_may_have_is_taken(
    api: Api, owner: str, method: str, fields: dict[str, Any], table: Table[Any], order: tuple[str, ...]
) -> None:
    asked = {**fields, "owner_id": owner}
    times: list[Any] = [None, 0, -62135596800 * 1_000_000, _FAR - 1]
    texts = ["", "x", "\U0001f600", "'; --", "\u200b", "x" * 255]
    numbers = [0, 1, -1, 99, 2**31 - 1]
    first = order[0]
    of_text = isinstance(getattr(table.message(), first), str)
    for value in times if table.columns[first].is_time else texts if of_text else numbers:
        text = json.dumps([value, "x"][: len(order)]).encode()
        await api.call(method, **asked, page_token=token(method, asked, table, order, text))
