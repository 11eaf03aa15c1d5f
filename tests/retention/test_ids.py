"""What an id says of the time that it was made."""

from __future__ import annotations

import time

import pytest
from langgraph.checkpoint.base import id as langgraph_ids

from storage_service.store.retention import id_before, is_before, time_of

SECONDS = (0.0, 1.5, 1e9, 1_763_740_800.123456, 4e9)


@pytest.mark.parametrize("seconds", SECONDS)
def test_langgraphs_ids_say_when_they_were_made(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(langgraph_ids, "_last_v6_timestamp", None)
    monkeypatch.setattr(time, "time_ns", lambda: round(seconds * 1e6) * 1000)
    for clock_seq in (-2, -1, 0, 5):
        id = str(langgraph_ids.uuid6(clock_seq=clock_seq))
        made = time_of(id, None)
        assert made is not None
        assert abs(made - seconds) < 1e-5
        assert is_before(id, id_before(seconds + 0.01))
        assert not is_before(id, id_before(seconds - 0.01))


def test_bounds_are_ordered_by_time() -> None:
    bounds = [id_before(seconds) for seconds in (-1e12, *SECONDS)]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("id", ["", "1", "checkpoint_1763740800000_abc", "1f0c6c1e-0000-7000-8000-000000000000"])
def test_other_ids_say_nothing(id: str) -> None:
    assert not is_before(id, "z")
    assert time_of(id, None) is None
    assert time_of(id, "yesterday") is None
    assert time_of(id, "2025-11-21T16:00:00+00:00") == 1_763_740_800
    # As LangGraph.js writes it.
    assert time_of(id, "2025-11-21T16:00:00.000Z") == 1_763_740_800
