"""Ids that the client makes, so that a create which is sent again is the same create."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """Make an id: a UUID of version 7 (RFC 9562) as 32 hex digits, which sorts by the millisecond of its making."""
    random = int.from_bytes(os.urandom(10), "big")
    number = (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80 | random
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{number:032x}"
