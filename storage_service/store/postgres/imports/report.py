"""What an import found and did: how many rows, and each that did not come over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_SHOWN_CHARACTERS = 200


class SourceError(Exception):
    """The source of an import can't be read; the one-line message says why."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of a source that can't come over, with the reason."""

    what: str
    reason: str


@dataclass(slots=True)
class Counts:
    """Rows of one kind. What was read is the sum of all others; ``lost`` was written and was not there when it was looked for."""

    read: int = 0
    written: int = 0
    same: int = 0
    clashing: int = 0
    refused: int = 0
    lost: int = 0


class Report:
    """Counts by kind, in the order of the work. ``tell`` gets a line for each row that did not come over, as it is met.

    With ``dry_run`` nothing is written, and what counts as written would be.
    """

    def __init__(self, tell: Callable[[str], None], *, dry_run: bool = False) -> None:
        self.counts: dict[str, Counts] = {}
        self.tell = tell
        self.dry_run = dry_run

    def of(self, kind: str) -> Counts:
        """The counts of a kind."""
        return self.counts.setdefault(kind, Counts())

    def refuse(self, kind: str, refused: Refused) -> None:
        """Count and tell a row that can't come over."""
        self.of(kind).refused += 1
        self.tell(f"refused: {kind}: {refused.what}: {refused.reason}")

    def settle(self, kind: str, what: str, *, written: bool, equal: bool | None) -> None:
        """Count a row by what is there now: content that is equal to the source's, other content (told), or nothing (None; told)."""
        counts = self.of(kind)
        if self.dry_run and equal is None:
            counts.written += 1
        elif equal is None:
            counts.lost += 1
            self.tell(f"lost: {kind}: {what}: it was written, and something has deleted it")
        elif not equal:
            counts.clashing += 1
            self.tell(f"clash: {kind}: {what}: other content is there, and stays")
        elif written:
            counts.written += 1
        else:
            counts.same += 1

    @property
    def is_complete(self) -> bool:
        """Whether everything of the source is there, or in a dry run would be."""
        return not any(counts.clashing or counts.refused or counts.lost for counts in self.counts.values())

    def lines(self) -> list[str]:
        """The counts as text, a line for each kind, and what they prove."""
        did = "to be written" if self.dry_run else "written"
        lines = [
            f"{kind}: {counts.read} read, {counts.written} {did}, {counts.same} there already, {counts.clashing} clashing,"
            f" {counts.refused} refused" + (f", {counts.lost} lost" if counts.lost else "")
            for kind, counts in self.counts.items()
        ]
        equal = sum(counts.same + (0 if self.dry_run else counts.written) for counts in self.counts.values())
        return [*lines, f"read back and compared with the source: {equal} rows, equal"]


def shown(parts: Iterable[object]) -> str:
    """The parts of a key in one line."""
    text = " / ".join(str(part) for part in parts)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
