"""Settings that would leave a server that can't serve are refused."""

from __future__ import annotations

import re

import pytest

from storage_service.settings import SettingsError, load
from tests.docs.markdown import ROOT


@pytest.mark.parametrize("text", ["0", "1", "65536", "1048575"])
def test_an_exchange_that_holds_too_little(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"STORAGE_EXCHANGE_BYTES": text})
    assert str(caught.value) == "STORAGE_EXCHANGE_BYTES takes a number of 1048576 or more"
    assert re.search(rf"`Error: {caught.value}`", (ROOT / "docs" / "operation.md").read_text())


def test_the_least_exchange() -> None:
    assert load({"STORAGE_EXCHANGE_BYTES": "1048576"}).limits.exchange_bytes == 1024 * 1024
