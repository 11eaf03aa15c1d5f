"""Texts that are read in time that grows with their length alone, and log lines that are never lost."""

from __future__ import annotations

import io
import sys
import threading
import time
import tracemalloc

import pytest

from storage_service import jsontext
from storage_service.logs import Lines

N = 200_000


@pytest.mark.parametrize(
    "text",
    [
        "[" * 101 + '"' + '\\"' * N,
        "[" * 101 + '"' + '\\"' * N + "\\",
        "[" * 101 + '"' + '\\"' * N + '"' + "]" * 101,
        "[" * 101 + '"' + "\\" * N,
        "[" * 101 + '"' * N,
        "{" * 101 + '"' + "a" * N,
        '"' + "[" * N + '\\"' * N,
        "[" * 101 + '"\\' * N,
    ],
    ids=[
        "never-ending",
        "ends-in-a-backslash",
        "whole",
        "backslashes",
        "quotes",
        "letters",
        "brackets-within",
        "mixed",
    ],
)
def test_a_nested_text_is_refused_at_once(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(jsontext.InvalidJson):
        jsontext.check(text, max_bytes=16 * 1024 * 1024)
    assert time.monotonic() - started < 0.5


def test_brackets_in_strings_do_not_nest() -> None:
    jsontext.check('["' + "[" * 200 + '\\"' + "{" * 200 + '\\\\", "' + "]" * 200 + '"]', max_bytes=10_000)
    deep = "[" * 100 + '"[\\""' + "]" * 100
    jsontext.check(deep, max_bytes=10_000)
    with pytest.raises(jsontext.InvalidJson, match="deeper than 100"):
        jsontext.check(f"[{deep}]", max_bytes=10_000)


def test_no_large_text_is_remembered() -> None:
    jsontext.canonical('{"warm": "up"}')
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(60):
            text = f'{{"number": {number}, "text": "{"x" * 100_000}"}}'
            assert jsontext.canonical(text) == f'{{"text": "{"x" * 100_000}", "number": {number}}}'
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000


def test_no_line_is_lost_while_others_are_written() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    threads, each = 8, 4000
    interval = sys.getswitchinterval()
    done = threading.Event()

    def add(thread: int) -> None:
        for number in range(each):
            lines.add(f"{thread} {number}")

    def flush() -> None:
        while not done.is_set():
            lines.flush()

    adders = [threading.Thread(target=add, args=(thread,)) for thread in range(threads)]
    flusher = threading.Thread(target=flush)
    # Threads change places as often as the interpreter can, so that every place between two steps is met.
    sys.setswitchinterval(1e-6)
    try:
        for thread in (flusher, *adders):
            thread.start()
        for thread in adders:
            thread.join()
    finally:
        done.set()
        sys.setswitchinterval(interval)
    flusher.join()
    lines.flush()
    written = stream.getvalue().splitlines()
    assert len(written) == threads * each
    assert set(written) == {f"{thread} {number}" for thread in range(threads) for number in range(each)}
    for adder in range(threads):
        mine = [line for line in written if line.startswith(f"{adder} ")]
        assert mine == [f"{adder} {number}" for number in range(each)]
