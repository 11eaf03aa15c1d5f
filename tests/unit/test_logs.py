from __future__ import annotations

import io
import json
from select import PIPE_BUF

from storage_service.logs import Lines


class _Stream(io.StringIO):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


def _written(worker: int, texts: list[str]) -> list[str]:
    stream = _Stream()
    lines = Lines(stream, worker)
    for text in texts:
        lines.add(json.dumps({"event": text}, ensure_ascii=False))
    lines.flush()
    return stream.writes


def test_one_process_writes_all_at_once() -> None:
    (written,) = _written(0, ["a", "b"])
    assert written == '{"event": "a"}\n{"event": "b"}\n'


def test_a_worker_writes_what_stays_whole_and_says_who_it_is() -> None:
    # As many bytes as several processes can write to one pipe without mixing them; letters may have several.
    texts = [f"{'é' * (number % 200)} {number}" for number in range(300)]
    written = _written(7, [*texts[:150], "x" * 2 * PIPE_BUF, *texts[150:]])
    assert [len(text) > PIPE_BUF for text in map(str.encode, written)].count(True) == 1
    # Not each for itself, which would cost more than the line.
    assert len(written) < 40
    found = [json.loads(line) for line in "".join(written).splitlines()]
    assert all(text.endswith("\n") for text in written)
    assert [line["event"] for line in found] == [*texts[:150], "x" * 2 * PIPE_BUF, *texts[150:]]
    assert {line["worker"] for line in found} == {7}


def test_nothing_to_write() -> None:
    assert _written(0, []) == _written(1, []) == []
