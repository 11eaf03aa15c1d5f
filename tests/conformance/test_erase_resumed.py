from __future__ import annotations

import dataclasses

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store import Store
from tests.service import DirectApi


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_erase_that_runs_out_of_time_goes_on_at_the_next_call(
    stores: dict[str, Store], backend: str, owner: str
) -> None:
    # With less time than the margin that EraseOwner leaves, a call does one batch and says that there is more.
    limits = dataclasses.replace(Limits(), call_seconds=0.9)
    hurried = DirectApi(build_pipeline(Settings(limits=limits), stores[backend]), backend)
    patient = DirectApi(build_pipeline(Settings(), stores[backend]), backend)
    puts = [{"put": {"namespace": ["a"], "key": f"{number}", "value": "1"}} for number in range(450)]
    await patient.call("Batch", owner_id=owner, operations=puts)
    deleted = 0
    for _ in range(10):
        response = await hurried.call("EraseOwner", owner_id=owner)
        deleted += response.deleted
        if response.done:
            break
        assert 0 < response.deleted < 450
    assert response.done
    assert deleted == 450
    assert (await patient.call("SearchItems", owner_id=owner)).items[:] == []
