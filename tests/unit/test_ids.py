from __future__ import annotations

import time
import uuid

from storage_service.ids import new_id


def test_ids_are_uuid7_in_the_order_of_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(200)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 200
    for id in ids:
        value = uuid.UUID(hex=id)
        assert value.hex == id
        assert (value.version, value.variant) == (7, uuid.RFC_4122)
        assert before <= value.int >> 80 <= after
    stamps = [id[:12] for id in ids]
    assert stamps == sorted(stamps)
