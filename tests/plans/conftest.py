from __future__ import annotations

from tests.plans.filled import bench

__all__ = ["bench"]
