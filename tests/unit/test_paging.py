from __future__ import annotations

import base64
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from agentstorage.v1 import threads_pb2 as pb
from storage_service.caller import AllOwners, Owner, Scope
from storage_service.errors import InvalidPageToken, InvalidRequest
from storage_service.paging import Paging, order_by, read_mask
from storage_service.store import Order
from storage_service.store.tables import THREADS

A = Owner("a")


def paging(request: Any, scope: Scope = A, order: Order | None = None) -> Paging:
    return Paging(THREADS, order or Order(("created_at", "thread_id"), True), request, scope)


def row(id: str, micros: int = 1) -> pb.Thread:
    thread = pb.Thread(thread_id=id, metadata="{}")
    thread.created_at.FromMicroseconds(micros)
    return thread


def token_of(request: Any, scope: Scope = A, last: pb.Thread | None = None) -> str:
    of = paging(request, scope)
    return of.cut([last or row("x")] * (of.size + 1))[1]


@pytest.mark.parametrize(("asked", "size"), [(0, 10), (1, 1), (10, 10), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes(asked: int, size: int) -> None:
    of = paging(pb.SearchThreadsRequest(page_size=asked))
    assert of.size == size
    # One more is read, to know whether there is more.
    assert of.page.limit == size + 1
    assert of.cut([row(f"{number}") for number in range(size)])[1] == ""
    rows, token = of.cut([row(f"{number}") for number in range(size + 1)])
    assert len(rows) == size
    assert token


@given(
    id=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    micros=st.integers(-(10**16), 10**17),
)
def test_token_holds_the_place_of_the_last_row(id: str, micros: int) -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1), last=row(id, micros))
    place = paging(pb.SearchThreadsRequest(page_token=token)).page.after
    wanted = Timestamp()
    wanted.FromMicroseconds(micros)
    assert place == (wanted, id)


def test_place_of_a_row_without_the_time() -> None:
    order = Order(("state_updated_at", "thread_id"), False)
    _, token = paging(pb.SearchThreadsRequest(page_size=1), order=order).cut([row("a"), row("b")])
    assert paging(pb.SearchThreadsRequest(page_token=token), order=order).page.after == (None, "a")


SEARCH = {"metadata": '{"a": 1}', "thread_ids": ["x", "y"], "sort_by": 2}


def test_page_itself_may_differ() -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1, **SEARCH))  # type: ignore[arg-type]  # fields of several types
    again = pb.SearchThreadsRequest(page_size=7, page_token=token, fields=FieldMask(paths=["values"]), **SEARCH)  # type: ignore[arg-type]  # as above
    assert paging(again).page.after is not None


@pytest.mark.parametrize(
    "other",
    [
        {},
        {**SEARCH, "metadata": '{"a": 2}'},
        {**SEARCH, "thread_ids": ["x"]},
        {**SEARCH, "thread_ids": ["y", "x"]},
        {**SEARCH, "sort_by": 3},
        {**SEARCH, "sort_order": 1},
        {**SEARCH, "statuses": [1]},
        {**SEARCH, "owner_id": "b"},
    ],
)
def test_token_of_another_search(other: dict[str, Any]) -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1, **SEARCH))  # type: ignore[arg-type]  # fields of several types
    with pytest.raises(InvalidPageToken):
        paging(pb.SearchThreadsRequest(page_token=token, **other))


@pytest.mark.parametrize("scope", [Owner("b"), Owner("A"), Owner("None"), Owner("'a'"), AllOwners()])
def test_token_of_another_scope(scope: Scope) -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1))
    with pytest.raises(InvalidPageToken):
        paging(pb.SearchThreadsRequest(page_token=token), scope)


def test_token_of_another_method() -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1))
    with pytest.raises(InvalidPageToken):
        paging(pb.ListThreadStatesRequest(page_token=token))


def test_every_bit_of_a_token_counts() -> None:
    data = base64.urlsafe_b64decode(token_of(pb.SearchThreadsRequest(page_size=1)))
    for place in range(len(data)):
        forged = bytearray(data)
        forged[place] ^= 1
        with pytest.raises(InvalidPageToken):
            paging(pb.SearchThreadsRequest(page_token=base64.urlsafe_b64encode(forged).decode()))


@given(token=st.text(min_size=1, max_size=40))
def test_other_texts_are_no_tokens(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        paging(pb.SearchThreadsRequest(page_token=token))


def test_token_and_offset() -> None:
    token = token_of(pb.SearchThreadsRequest(page_size=1))
    with pytest.raises(InvalidRequest) as caught:
        paging(pb.SearchThreadsRequest(page_token=token, offset=1))
    assert set(caught.value.violations) == {"offset"}


def test_masks() -> None:
    assert read_mask(THREADS, pb.SearchThreadsRequest()) is None
    assert read_mask(THREADS, pb.CountThreadsRequest()) is None
    found = read_mask(THREADS, pb.SearchThreadsRequest(fields=FieldMask(paths=["values", "values"])))
    assert found == frozenset({"values", "thread_id"})
    for bad in ("", "nothing", "metadata.a", "Values"):
        with pytest.raises(InvalidRequest) as caught:
            read_mask(THREADS, pb.SearchThreadsRequest(fields=FieldMask(paths=["values", bad])))
        assert set(caught.value.violations) == {"fields"}


def test_order_ends_with_the_id() -> None:
    fields = ("created_at", "status", "thread_id")
    request = pb.SearchThreadsRequest
    assert order_by(request(), fields, "thread_id") == Order(("created_at", "thread_id"), True)
    assert order_by(request(sort_by=2, sort_order=1), fields, "thread_id") == Order(("status", "thread_id"), False)  # type: ignore[arg-type]  # numbers of enums
    assert order_by(request(sort_by=3, sort_order=2), fields, "thread_id") == Order(("thread_id",), True)  # type: ignore[arg-type]  # as above
