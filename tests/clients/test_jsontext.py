"""JSON text and Python values: what goes in comes out, and what JSON cannot hold is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from agentstorage import jsontext


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**53) - 1,
        2**64,
        10**400,
        1.5,
        "",
        "é\u2028'\"\\\n",
        "😀",
        [],
        {},
        {"": {"a": [1, None, {"b": "c"}]}},
    ],
)
def test_round_trip(value: Any) -> None:
    found = jsontext.load(jsontext.dump(value, "value"), "absent")
    assert found == value
    assert type(found) is type(value)


def test_empty_text_is_absent() -> None:
    assert jsontext.load("", []) == []
    assert jsontext.load("null", []) is None


def test_an_integer_of_any_length_is_read() -> None:
    digits = "9" * 10_000
    found = jsontext.load(f'{{"n":{digits}}}', None)
    assert found["n"] == 10**10_000 - 1


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\ud800", {"k": "\udfff"}, 10**5000],
    ids=["nan", "infinity", "surrogate", "surrogate inside", "too long an integer"],
)
def test_values_that_json_does_not_have_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="metadata is not JSON"):
        jsontext.dump(value, "metadata")


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, {(1, 2): 3}])
def test_kinds_that_json_does_not_have_are_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="metadata is not JSON"):
        jsontext.dump(value, "metadata")


def test_cycles_and_deep_nesting_are_refused_by_name() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(ValueError, match="values is not JSON"):
            jsontext.dump(value, "values")


def test_models_are_dumped() -> None:
    class Model:
        def model_dump(self) -> dict[str, int]:
            return {"a": 1}

    assert jsontext.dump(Model(), "config") == '{"a":1}'
