"""Metadata of assistants, threads, runs and crons: merged, stamped with the owner, searched by containment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.expect import invalid
from tests.conformance.rows import THREADS, Kind, every_kind, metadata_of
from tests.service import Api


async def update(api: Api, kind: Kind, owner: str | None, id: str, **fields: Any) -> Any:
    return await kind.call(api, "Update", owner, **{kind.id: id}, **fields)


@every_kind
async def test_update_merges_top_level_keys(api: Api, kind: Kind, owner: str) -> None:
    row = await kind.create(api, owner, metadata='{"a": 1, "b": {"c": 1, "d": 2}, "n": 1}')
    id = kind.id_of(row)
    changed = await update(api, kind, owner, id, metadata='{"b": {"e": 3}, "n": null, "z": []}')
    assert metadata_of(changed) == {"a": 1, "b": {"e": 3}, "n": None, "z": [], "owner": owner}
    assert changed.updated_at.ToMicroseconds() > row.updated_at.ToMicroseconds()
    assert changed.created_at == row.created_at
    assert await kind.get(api, owner, id) == changed


@every_kind
async def test_keys_are_removed_after_they_are_set(api: Api, kind: Kind, owner: str) -> None:
    id = kind.id_of(await kind.create(api, owner, metadata='{"a": 1, "b": 2, "c": {"a": 1}}'))
    changed = await update(api, kind, owner, id, remove_metadata_keys=["a", "absent", "owner"])
    assert metadata_of(changed) == {"b": 2, "c": {"a": 1}, "owner": owner}
    changed = await update(api, kind, owner, id, metadata='{"b": 3, "d": 4}', remove_metadata_keys=["d", "c"])
    assert metadata_of(changed) == {"b": 3, "owner": owner}


@every_kind
async def test_update_that_names_nothing_keeps_everything(api: Api, kind: Kind, owner: str) -> None:
    row = await kind.create(api, owner, metadata='{"a": 1}', **{kind.content: kind.values[0]})
    changed = await update(api, kind, owner, kind.id_of(row), metadata="", **{kind.content: ""})
    assert metadata_of(changed) == {"a": 1, "owner": owner}
    assert getattr(changed, kind.content) == kind.values[0]
    changed = await update(api, kind, owner, kind.id_of(row), **{kind.content: kind.values[1]})
    assert metadata_of(changed) == {"a": 1, "owner": owner}
    assert getattr(changed, kind.content) == kind.values[1]


@every_kind
@pytest.mark.parametrize("given", ['"somebody"', "null", '{"a": 1}', "1"])
async def test_owner_is_stamped_and_cannot_be_changed(api: Api, kind: Kind, owner: str, other: str, given: str) -> None:
    row = await kind.create(api, owner, metadata=f'{{"owner": {given}, "a": 1}}')
    assert metadata_of(row) == {"owner": owner, "a": 1}
    changed = await update(api, kind, owner, kind.id_of(row), metadata=f'{{"owner": {given}, "b": 1}}')
    assert metadata_of(changed) == {"owner": owner, "a": 1, "b": 1}
    assert await kind.search(api, other) == []
    assert await kind.search(api, owner) == [kind.id_of(row)]


@every_kind
async def test_unscoped_calls_neither_give_nor_take_an_owner(api: Api, kind: Kind, owner: str) -> None:
    mine = kind.id_of(await kind.create(api, owner))
    changed = await update(api, kind, None, mine, metadata='{"owner": "x", "a": 1}', remove_metadata_keys=["owner"])
    assert metadata_of(changed) == {"owner": owner, "a": 1}
    nobodys = await kind.create(api, None, metadata='{"owner": "x", "a": 1}')
    assert metadata_of(nobodys) == {"a": 1}
    changed = await update(api, kind, None, kind.id_of(nobodys), metadata=f'{{"owner": "{owner}"}}')
    assert metadata_of(changed) == {"a": 1}
    assert await kind.search(api, owner) == [mine]


@every_kind
@pytest.mark.parametrize("bad", ["[]", "1", '"a"', "null", "{", '{"a": NaN}', '{"a": "\\u0000"}'])
async def test_metadata_must_be_an_object(api: Api, kind: Kind, owner: str, bad: str) -> None:
    id = kind.id_of(await kind.create(api, owner))
    with invalid("metadata"):
        await kind.create(api, owner, metadata=bad)
    with invalid("metadata"):
        await update(api, kind, owner, id, metadata=bad)
    for verb in ("Search", "Count"):
        with invalid("metadata"):
            await kind.call(api, verb, owner, metadata=bad)
    with invalid(kind.content):
        await kind.create(api, owner, **{kind.content: bad})


@every_kind
async def test_keys_to_remove_are_bounded(api: Api, kind: Kind, owner: str) -> None:
    id = kind.id_of(await kind.create(api, owner, metadata='{"a": 1}'))
    with invalid("remove_metadata_keys"):
        await update(api, kind, owner, id, remove_metadata_keys=["k"] * 101)
    with invalid("remove_metadata_keys[1]"):
        await update(api, kind, owner, id, remove_metadata_keys=["k", "x" * 1025])
    assert metadata_of(await update(api, kind, owner, id, remove_metadata_keys=["k"] * 99 + ["a"])) == {"owner": owner}


@every_kind
async def test_concurrent_updates_lose_no_key(api: Api, kind: Kind, owner: str) -> None:
    id = kind.id_of(await kind.create(api, owner))
    await asyncio.gather(*(update(api, kind, owner, id, metadata=f'{{"k{number}": {number}}}') for number in range(16)))
    wanted = {f"k{number}": number for number in range(16)} | {"owner": owner}
    assert metadata_of(await kind.get(api, owner, id)) == wanted


STORED = (
    '{"a": 1, "tags": ["x", "y", 1], "deep": {"b": {"c": "d", "e": null}}}',
    '{"a": 1.0, "tags": ["y"], "deep": {"b": {"c": "D"}}}',
    '{"a": "1", "tags": "x", "deep": [{"b": 1}, {"b": 2, "c": 3}]}',
    '{"a": null, "tags": [["x"]], "big": 9007199254740993}',
    '{"t": true, "é": "Ä", "%": "_", "": 0}',
)
CONTAINED = [
    ("{}", {0, 1, 2, 3, 4}),
    ('{"a": 1}', {0, 1}),
    ('{"a": 1.00}', {0, 1}),
    ('{"a": 10e-1}', {0, 1}),
    ('{"a": "1"}', {2}),
    ('{"a": null}', {3}),
    ('{"a": [1]}', set()),
    ('{"a": [null]}', set()),
    ('{"tags": ["x"]}', {0}),
    ('{"tags": ["y", "x"]}', {0}),
    ('{"tags": ["y"]}', {0, 1}),
    ('{"tags": [1.0, "y"]}', {0}),
    ('{"tags": []}', {0, 1, 3}),
    ('{"tags": [["x"]]}', {3}),
    ('{"tags": "x"}', {2}),
    ('{"deep": {}}', {0, 1}),
    ('{"deep": {"b": {"c": "d"}}}', {0}),
    ('{"deep": {"b": {"e": null}}}', {0}),
    ('{"deep": {"b": {"c": null}}}', set()),
    ('{"deep": [{"b": 2}]}', {2}),
    ('{"deep": [{"b": 1}, {"c": 3}]}', {2}),
    ('{"deep": [{"b": 1, "c": 3}]}', set()),
    ('{"big": 9007199254740993}', {3}),
    ('{"big": 9007199254740992}', set()),
    ('{"t": true}', {4}),
    ('{"t": false}', set()),
    ('{"t": 1}', set()),
    ('{"\\u00e9": "\\u00c4"}', {4}),
    ('{"%": "_"}', {4}),
    ('{"%": "x"}', set()),
    ('{"": 0}', {4}),
    ('{"absent": null}', set()),
    ('{"a": 2, "a": 1}', {0, 1}),
]


@every_kind
async def test_search_and_count_by_containment(api: Api, kind: Kind, owner: str, other: str) -> None:
    ids = [kind.id_of(await kind.create(api, owner, metadata=metadata)) for metadata in STORED]
    await kind.create(api, other, metadata=STORED[0])
    for wanted, places in CONTAINED:
        expected = [ids[place] for place in sorted(places, reverse=True)]
        assert await kind.search(api, owner, metadata=wanted) == expected, wanted
        assert await kind.count(api, owner, metadata=wanted) == len(expected), wanted


async def test_threads_by_values(api: Api, owner: str) -> None:
    ids = [THREADS.id_of(await THREADS.create(api, owner, values=values)) for values in STORED]
    ids.append(THREADS.id_of(await THREADS.create(api, owner, values="[1, 2]")))
    ids.append(THREADS.id_of(await THREADS.create(api, owner, values='"text"')))
    for wanted, places in CONTAINED:
        expected = [ids[place] for place in sorted(places, reverse=True)]
        assert await THREADS.search(api, owner, values=wanted) == expected, wanted
        assert await THREADS.count(api, owner, values=wanted) == len(expected), wanted


@every_kind
async def test_filter_of_too_many_keys(api: Api, kind: Kind, owner: str) -> None:
    most = "{" + ", ".join(f'"k{number}": {number}' for number in range(100)) + "}"
    id = kind.id_of(await kind.create(api, owner, metadata=most))
    assert await kind.search(api, owner, metadata=most) == [id]
    more = most[:-1] + ', "k100": 1}'
    nested = '{"a": [' + ",".join(['{"k": 1}'] * 100) + "]}"
    for filter in (more, nested):
        for verb in ("Search", "Count"):
            with invalid("metadata"):
                await kind.call(api, verb, owner, metadata=filter)
