"""How a call must fail: code, reason, metadata of the reason and the fields named, all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.service import CallFailed


@contextmanager
def fails(code: str, reason: str, *fields: str, **metadata: str) -> Iterator[None]:
    """The call inside must end with exactly this status."""
    with pytest.raises(CallFailed) as caught:
        yield
    failed = caught.value
    assert (failed.code.name, failed.reason) == (code, reason), failed
    assert failed.info.domain == "agentstorage"
    assert set(failed.fields) == set(fields), failed.fields
    assert failed.metadata == metadata
    assert len(failed.details) < 1024


def invalid(*fields: str) -> AbstractContextManager[None]:
    """INVALID_ARGUMENT that names these fields."""
    return fails("INVALID_ARGUMENT", "INVALID_REQUEST", *fields)


def not_found(resource: str, id: str) -> AbstractContextManager[None]:
    """NOT_FOUND of this row."""
    return fails("NOT_FOUND", "NOT_FOUND", resource=resource, id=id)


def exists(resource: str, id: str) -> AbstractContextManager[None]:
    """ALREADY_EXISTS of this row."""
    return fails("ALREADY_EXISTS", "ALREADY_EXISTS", resource=resource, id=id)
