"""What the creates of assistants, threads, runs and crons do alike: ids, retries, duplicates."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.expect import exists, invalid, not_found
from tests.conformance.rows import THREADS, Kind, every_kind, metadata_of
from tests.service import Api, CallFailed


@every_kind
async def test_server_makes_the_id_the_times_and_the_stamp(api: Api, kind: Kind, owner: str) -> None:
    row = await kind.create(api, owner)
    id = kind.id_of(row)
    assert len(id) == 32
    assert set(id) <= set("0123456789abcdef")
    assert id[12] == "7"
    assert row.created_at.ToMicroseconds() > 1_700_000_000_000_000
    assert row.created_at.nanos % 1000 == 0
    assert row.updated_at == row.created_at
    assert metadata_of(row) == {"owner": owner}
    assert await kind.get(api, owner, id) == row


@every_kind
async def test_ids_of_one_server_grow(api: Api, kind: Kind, owner: str) -> None:
    rows = [await kind.create(api, owner) for _ in range(3)]
    assert len({kind.id_of(row) for row in rows}) == 3
    assert await kind.search(api, owner) == [kind.id_of(row) for row in reversed(rows)]


@every_kind
async def test_content_is_kept_over_a_second_create_of_other_content(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, **{kind.content: kind.values[0]})
    with exists(kind.name, id):
        await kind.create(api, owner, id, **{kind.content: kind.values[1]})
    with exists(kind.name, id):
        await kind.create(api, owner, id, **{kind.content: kind.values[0]}, metadata='{"more": 1}')
    assert await kind.get(api, owner, id) == row


@every_kind
async def test_create_sent_again_answers_the_first_row(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, **{kind.content: '{"a": 1, "b": [1.0]}'}, metadata='{"x": 1}')
    again = await kind.create(api, owner, id, **{kind.content: '{"a": 1, "b": [1.0]}'}, metadata='{"x": 1}')
    assert again == row
    assert await kind.count(api, owner) == 1
    # What became of the row meanwhile makes the same create no other one.
    changed = await kind.call(api, "Update", owner, **{kind.id: id}, metadata='{"x": 2}')
    assert changed != row
    assert await kind.create(api, owner, id, **{kind.content: '{"a": 1, "b": [1.0]}'}, metadata='{"x": 1}') == changed
    # A retry sends the same; what says the same otherwise is another create.
    with exists(kind.name, id):
        await kind.create(api, owner, id, **{kind.content: '{"b":[1.0],"a":1}'}, metadata='{ "x":1 }')


@every_kind
async def test_request_id_with_another_content_is_refused(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, request_id="r1", **{kind.content: kind.values[0]})
    with invalid("request_id"):
        await kind.create(api, owner, id, request_id="r1", **{kind.content: kind.values[1]})
    assert await kind.get(api, owner, id) == row


@every_kind
async def test_request_id_without_an_id_makes_one_row(api: Api, kind: Kind, owner: str, other: str) -> None:
    row = await kind.create(api, owner, "", request_id="r1", **{kind.content: kind.values[0]})
    assert await kind.create(api, owner, "", request_id="r1", **{kind.content: kind.values[0]}) == row
    assert await kind.count(api, owner) == 1
    with invalid("request_id"):
        await kind.create(api, owner, "", request_id="r1", **{kind.content: kind.values[1]})
    # Another owner's request_id is its own.
    assert getattr(await kind.create(api, other, "", request_id="r1"), kind.id) != getattr(row, kind.id)


@every_kind
@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("1", ""), ("", "2")])
@pytest.mark.parametrize("if_exists", ["IF_EXISTS_RAISE", "IF_EXISTS_DO_NOTHING"])
async def test_request_id_with_another_id_is_refused(
    api: Api, kind: Kind, owner: str, other: str, first: str, second: str, if_exists: str
) -> None:
    request = f"r-{owner}"
    ids = [f"{owner}-{end}" if end else "" for end in (first, second)]
    row = await kind.create(api, owner, ids[0], request_id=request)
    for _ in range(2):
        with invalid("request_id"):
            await kind.create(api, owner, ids[1], request_id=request, if_exists=if_exists)
    assert await kind.create(api, owner, ids[0], request_id=request) == row
    assert await kind.search(api, owner) == [kind.id_of(row)]
    # To others it is another request, also where no owner is named.
    for who in (other, None):
        await kind.create(api, who, f"{owner}-{who}", request_id=request)
    with exists(kind.name, kind.id_of(row)):
        await kind.create(api, other, kind.id_of(row), request_id=f"{request}-2")
    # With the row goes what was known of its request.
    await kind.call(api, "Delete", owner, **{kind.id: kind.id_of(row)})
    assert kind.id_of(await kind.create(api, owner, f"{owner}-3", request_id=request)) == f"{owner}-3"


@every_kind
async def test_one_request_id_with_many_ids_at_once(api: Api, kind: Kind, owner: str) -> None:
    creates = [kind.create(api, owner, f"{owner}-{number}", request_id="r1") for number in range(12)]
    results = await asyncio.gather(*creates, return_exceptions=True)
    made = [kind.id_of(result) for result in results if not isinstance(result, BaseException)]
    refused = [result for result in results if isinstance(result, CallFailed)]
    assert (len(made), len(refused)) == (1, 11)
    assert {(failure.reason, *failure.fields) for failure in refused} == {("INVALID_REQUEST", "request_id")}
    assert await kind.search(api, owner) == made


async def test_request_id_of_a_copy_with_another_id_is_refused(api: Api, owner: str) -> None:
    source: dict[str, Any] = {"owner_id": owner, "thread_id": THREADS.id_of(await THREADS.create(api, owner))}
    copy = (await api.call("CopyThread", new_thread_id=f"{owner}-1", request_id="r1", **source)).thread
    for new in (f"{owner}-2", ""):
        with invalid("request_id"):
            await api.call("CopyThread", new_thread_id=new, request_id="r1", **source)
    assert (await api.call("CopyThread", new_thread_id=f"{owner}-1", request_id="r1", **source)).thread == copy
    assert await THREADS.count(api, owner) == 2


@every_kind
async def test_request_id_tells_a_retry_from_a_duplicate(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, request_id="r1", **{kind.content: kind.values[0]})
    changed = await kind.call(api, "Update", owner, **{kind.id: id}, metadata='{"x": 2}')
    assert changed != row
    assert await kind.create(api, owner, id, request_id="r1", **{kind.content: kind.values[0]}) == changed
    with exists(kind.name, id):
        await kind.create(api, owner, id, request_id="r2", **{kind.content: kind.values[0]})
    with exists(kind.name, id):
        await kind.create(api, owner, id, **{kind.content: kind.values[0]})


@every_kind
async def test_request_id_is_no_retry_of_a_create_without_one(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    await kind.create(api, owner, id)
    with exists(kind.name, id):
        await kind.create(api, owner, id, request_id="r1")


@every_kind
async def test_do_nothing_answers_the_row_as_it_is(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, **{kind.content: kind.values[0]})
    second = await kind.create(
        api, owner, id, if_exists="IF_EXISTS_DO_NOTHING", **{kind.content: kind.values[1]}, metadata='{"x": 1}'
    )
    assert second == row
    assert await kind.get(api, owner, id) == row
    new = await kind.create(api, owner, f"{owner}-2", if_exists="IF_EXISTS_DO_NOTHING")
    assert kind.id_of(new) == f"{owner}-2"


@every_kind
@pytest.mark.parametrize("if_exists", ["IF_EXISTS_RAISE", "IF_EXISTS_DO_NOTHING"])
async def test_id_of_another_owner_is_taken(api: Api, kind: Kind, owner: str, other: str, if_exists: str) -> None:
    id = f"{owner}-1"
    row = await kind.create(api, owner, id, request_id="r1")
    for more in ({}, {"request_id": "r1"}):
        with exists(kind.name, id):
            await kind.create(api, other, id, if_exists=if_exists, **more)
    with not_found(kind.name, id):
        await kind.get(api, other, id)
    assert await kind.get(api, owner, id) == row


@every_kind
async def test_ids_are_compared_byte_for_byte(api: Api, kind: Kind, owner: str) -> None:
    ids = [
        f"{owner}{end}"
        for end in (
            "a",
            "A",
            "é",
            "e\u0301",
            "%",
            "_",
            "/../x",
            "\u202ea",
            "a\u200b",
            " ",
            "*",
            "\\",
            "\U0001f600",
            "'",
        )
    ]
    for id in ids:
        assert kind.id_of(await kind.create(api, owner, id)) == id
    for id in ids:
        assert kind.id_of(await kind.get(api, owner, id)) == id
        assert await kind.search(api, owner, **{f"{kind.id}s": [id]}) == [id]
    assert await kind.count(api, owner) == len(ids)
    with not_found(kind.name, f"{owner}E"):
        await kind.get(api, owner, f"{owner}E")


@every_kind
async def test_limits_of_an_id(api: Api, kind: Kind, owner: str) -> None:
    longest = owner + "é" * 100 + "x" * (55 - len(owner))
    assert len(longest.encode()) == 255
    assert kind.id_of(await kind.create(api, owner, longest)) == longest
    for bad in (longest + "x", "é" * 128, "a\n", "a\x7f", "\x1b", "a\u0085"):
        for verb in ("Create", "Get", "Update", "Delete"):
            with invalid(kind.id):
                await kind.call(api, verb, owner, **{**(kind.required if verb == "Create" else {}), kind.id: bad})
    for verb in ("Get", "Update", "Delete"):
        with invalid(kind.id):
            await kind.call(api, verb, owner)


@every_kind
async def test_unknown_if_exists(api: Api, kind: Kind, owner: str) -> None:
    with invalid("if_exists"):
        await kind.create(api, owner, if_exists=3)


@every_kind
async def test_delete(api: Api, kind: Kind, owner: str) -> None:
    first, second = [kind.id_of(await kind.create(api, owner)) for _ in range(2)]
    await kind.call(api, "Delete", owner, **{kind.id: first})
    with not_found(kind.name, first):
        await kind.get(api, owner, first)
    with not_found(kind.name, first):
        await kind.call(api, "Delete", owner, **{kind.id: first})
    with not_found(kind.name, first):
        await kind.call(api, "Update", owner, **{kind.id: first}, metadata='{"x": 1}')
    await kind.call(api, "Delete", owner, **{kind.id: first}, allow_missing=True)
    assert await kind.search(api, owner) == [second]
    # The id is free again.
    assert kind.id_of(await kind.create(api, owner, first)) == first
