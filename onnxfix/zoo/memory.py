"""What this machine has: cores, memory, and how much of it a process holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_SHARE = 0.9
"""The part of the free memory that is planned with."""
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Limits that containers set (Linux, cgroup versions 2 and 1), each with what is taken already."""


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Returns how many bytes of memory can be planned with, within the limits of a container."""
    import psutil

    free: int = psutil.virtual_memory().available
    for limit, taken in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            free = min(free, max(0, int(limit.read_text()) - int(taken.read_text())))
    return int(free * _SHARE)


def memory_of(pid: int) -> int:
    """Returns how many bytes a process holds for itself; files that it has mapped do not count where that is known."""
    import psutil

    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(info.rss) - int(getattr(info, "shared", 0))


def memory_text(count: int) -> str:
    """Returns an amount of memory for people: `8 GB`, `500 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1000:.3g} kB"
