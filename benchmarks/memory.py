"""How much memory a process took at most, from Linux's /proc; it starts anew with each program, as rusage does not."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")
MEMORY = Path("/proc/meminfo")


def peak_bytes() -> int | None:
    """Gives the most memory that this process ever held; None where there is no /proc."""
    return _field(STATUS, "VmHWM")


def forget_peak() -> None:
    """Starts the peak over at what is held now."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available_bytes() -> int | None:
    """Gives the memory that is free for a new process; None where there is no /proc."""
    return _field(MEMORY, "MemAvailable")


def _field(path: Path, name: str) -> int | None:
    if not path.exists():
        return None
    line = next(line for line in path.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
