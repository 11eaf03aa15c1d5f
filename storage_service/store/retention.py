"""What ends when, for both backends: which thread is in use, how old a checkpoint is, how much is deleted at once."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Final, TypeAlias

#: What was deleted, by kind: "threads", "checkpoints", "blobs" and "items"; "pruned" threads were left with the newest alone, and the
#: time of "renewed" ones was not over after all.
Swept: TypeAlias = Counter[str]

#: The most rows that one transaction chooses.
MOST_ROWS: Final = 500
#: How long a thread must have been left alone before values that none of its checkpoints uses are taken for forgotten (seconds): the
#: values of a large checkpoint come ahead of it.
QUIET_SECONDS: Final = 3600.0
#: How soon a thread whose newest state and checkpoints were kept is looked at again, at the earliest (seconds).
AGAIN_SECONDS: Final = 86400.0

#: How ids begin that LangGraph makes: UUIDs of version 6, whose text is ordered by time.
TIMED_ID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-"
_TIMED: Final = re.compile(TIMED_ID)
# Such a UUID counts 100 ns from the beginning of the Gregorian calendar.
_EPOCH: Final = 0x01B21DD213814000


def time_of(checkpoint_id: str, ts: str | None) -> float | None:
    """When a checkpoint was made, by its id or else by its own word and its maker's clock (Unix seconds); None where neither says."""
    if _TIMED.match(checkpoint_id):
        digits = checkpoint_id[:8] + checkpoint_id[9:13] + checkpoint_id[15:18]
        return (int(digits, 16) - _EPOCH) / 1e7
    try:
        return datetime.fromisoformat(ts or "").timestamp()
    except (ValueError, OverflowError):
        return None


def id_before(seconds: float) -> str:
    """What every id of a checkpoint made before this time is less than (Unix seconds), and every later one greater."""
    ticks = max(0, int(seconds * 1e7) + _EPOCH)
    return f"{ticks >> 28:08x}-{ticks >> 12 & 0xFFFF:04x}-6{ticks & 0xFFF:03x}"


def is_before(checkpoint_id: str, before: str) -> bool:
    """Whether a checkpoint was made before the time of :func:`id_before`; no, where its id does not say."""
    return checkpoint_id < before and _TIMED.match(checkpoint_id) is not None


def in_use_until(now: float, minutes: float, checkpoint_id: str, ts: str | None) -> float | None:
    """Until when a thread whose row tells of no later use is in use, by its newest checkpoint; None when it is not (Unix seconds)."""
    used = time_of(checkpoint_id, ts)
    if used is None or min(used, now) + minutes * 60 <= now:
        return None
    return min(used, now) + minutes * 60
