"""The pages say what is so: links lead somewhere, tables equal the code, nothing of the API is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstorage.v1 import common_pb2
from storage_service import errors
from storage_service.settings import described
from storage_service.status import reason_of
from tests.docs.markdown import PAGES, ROOT, anchors, links, rows
from tests.service import METHODS

README = ROOT / "README.md"
CONTRACT = ROOT / "docs" / "contract.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert not {page for page in PAGES if page.parent == index.parent} - listed - {index}


def test_the_settings_table_is_that_of_the_server() -> None:
    expected = [[name, default or "empty", meaning] for name, default, meaning in described()]
    assert rows(README, "variable") == expected


def test_every_method_is_told() -> None:
    text = CONTRACT.read_text()
    assert not [name for name in METHODS if f"`{name}`" not in text]


def test_every_reason_is_told_with_its_status() -> None:
    failures: list[type[errors.Failure]] = [errors.Failure]
    for kind in failures:
        failures.extend(kind.__subclasses__())
    expected = {reason_of(kind.__new__(kind)): kind.code.name for kind in failures if hasattr(kind, "reason")}
    assert len(expected) == len(common_pb2.ErrorReason.keys()) - 1
    assert {row[0]: row[1] for row in rows(CONTRACT, "reason")} == expected
