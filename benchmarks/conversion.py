"""What a conversion costs: time and peak memory of the whole process, beside the least possible and beside peers.

The files are one network at growing width, so that the graph stays what it is. A tool whose memory would not fit is
not started: what it took for the next smaller file, byte for byte of the file, says how much that is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import memory
from environment import compile_package, load
from models import HERE, Design, exported, widened
from pairs import medians, ratios_to

TO = "wenet-kv"
FLOOR, SIMPLIFIER = "floor", "onnxsim"
LIMIT = 600  # seconds
SLACK = 1.1  # of the memory that a tool is expected to take


@dataclass(frozen=True)
class Case:
    """A file to convert, how often, and why some tools are not asked."""

    title: str
    make: Callable[[], Path]
    rounds: int
    left_out: Mapping[str, str]


NARROW = Design("conformer", 12, 42)
COPIES = ("floor + copy", "onnxfix, copy")
INLINE = dict.fromkeys(COPIES, "the weights are in the model's file")
SPARSE = {
    **dict.fromkeys(COPIES, "the data file is sparse: a copy would fill the disk"),
    "onnxfix, all on": "the weights are all zero: nothing could be proven",
}
CASES = (
    Case("5 MB", lambda: exported(NARROW), 5, INLINE),
    Case("140 MB", lambda: exported(Design("conformer", 12, 256)), 5, INLINE),
    Case("1.5 GB external", lambda: widened(NARROW, 864, is_sparse=False), 5, {}),
    Case("6 GB external", lambda: widened(NARROW, 1728, is_sparse=True), 3, SPARSE),
)
QUICK = (Case("5 MB", lambda: exported(NARROW), 2, INLINE),)


@dataclass(frozen=True)
class Tool:
    """A command, with `{old}`, `{new}` in the same folder and `{far}` in another; heavy ones run in one round only."""

    words: str
    is_heavy: bool = False


TOOLS = {
    FLOOR: Tool(f"{HERE / 'floor.py'} {{old}} {{new}}"),
    "floor + copy": Tool(f"{HERE / 'floor.py'} {{old}} {{far}} --copy"),
    "onnxfix": Tool(f"onnxfix convert {{old}} {{new}} --to {TO} --no-verify --quiet"),
    "onnxfix, copy": Tool(f"onnxfix convert {{old}} {{far}} --to {TO} --no-verify --quiet"),
    "onnxfix, all on": Tool(f"onnxfix convert {{old}} {{new}} --to {TO} --quiet", is_heavy=True),
    SIMPLIFIER: Tool("onnxsim {old} {far}"),
    "onnxslim": Tool("onnxslim {old} {far}"),
}


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


class FailedError(Exception):
    """A tool failed; the message is its last words."""


def measure(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Measures all tools on all files, from the smallest on."""
    compile_package()  # the peers were, by pip
    measured: list[dict[str, Any]] = []
    for case in cases:
        measured.append(measure_case(case, measured))
    return measured


def measure_case(case: Case, smaller: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measures all tools on one file, in turns."""
    print(f"conversion: {case.title}", file=sys.stderr)
    source = case.make()
    size = sum(path.stat().st_size for path in (source, *source.parent.glob("*.data")) if path.exists())
    left_out = dict(case.left_out)
    for name in TOOLS:
        reason = left_out.get(name) or reason_of_memory(name, size, smaller)
        if reason:
            left_out[name] = reason
    rounds: list[dict[str, Cost]] = []
    for number in range(case.rounds):
        costs: dict[str, Cost] = {}
        for name, tool in TOOLS.items():
            if name in left_out or (number and tool.is_heavy and size > 1e9):
                continue
            try:
                costs[name] = run(tool, source)
            except FailedError as error:
                left_out[name] = f"failed: {error}"
        rounds.append(costs)
    return {
        "title": case.title,
        "bytes": size,
        "rounds": case.rounds,
        "load": load(),
        "tools": summary(rounds),
        "left_out": {name: left_out[name] for name in TOOLS if name in left_out},
    }


def summary(rounds: Sequence[Mapping[str, Cost]]) -> dict[str, dict[str, Any]]:
    """Gives medians, and the ratios to the floor and to the simplifier within each round."""
    seconds = [{name: cost.seconds for name, cost in costs.items()} for costs in rounds]
    to_floor, to_simplifier = ratios_to(seconds, FLOOR), ratios_to(seconds, SIMPLIFIER)
    result: dict[str, dict[str, Any]] = {}
    for name, middle in medians(seconds).items():
        runs = [costs[name] for costs in rounds if name in costs]
        peaks = [cost.peak_bytes for cost in runs if cost.peak_bytes is not None]
        result[name] = {
            "seconds": middle,
            "cpu_seconds": median(cost.cpu_seconds for cost in runs),
            "peak_bytes": max(peaks, default=None),
            "to_floor": asdict(to_floor[name]),
            "to_onnxsim": asdict(to_simplifier[name]) if name in to_simplifier else None,
        }
    return result


def reason_of_memory(name: str, size: int, smaller: Sequence[Mapping[str, Any]]) -> str | None:
    """Says why a tool is not started; None if its memory fits, or nothing is known of it."""
    known = [case for case in smaller if case["tools"].get(name, {}).get("peak_bytes")]
    free = memory.available_bytes()
    if not known or free is None:
        return None
    factor = known[-1]["tools"][name]["peak_bytes"] / known[-1]["bytes"]
    # The libraries weigh more than a small file; a large one is what tells how memory grows.
    if known[-1]["bytes"] < 100e6 or factor * size * SLACK <= free:
        return None
    needed = factor * size / 1e9
    return f"not run: needs about {needed:.0f} GB ({factor:.1f} x the file, as at {known[-1]['title']})"


def run(tool: Tool, source: Path) -> Cost:
    """Runs a tool on a file, and removes what it wrote.

    Raises:
        FailedError: It failed, or took too long.
    """
    near = source.with_name("converted.onnx")
    with tempfile.TemporaryDirectory(prefix=".far-", dir=source.parent) as folder:
        facts = Path(folder) / "facts.json"
        paths = {"old": source, "new": near, "far": Path(folder) / "converted.onnx"}
        command = [sys.executable, str(HERE / "probe.py"), str(facts)]
        command += [word.format_map(paths) for word in tool.words.split()]
        begin = time.perf_counter()
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            seconds = time.perf_counter() - begin
        except subprocess.TimeoutExpired:
            raise FailedError(f"not done after {LIMIT} s") from None
        finally:
            near.unlink(missing_ok=True)
        if ran.returncode or not facts.exists():
            said = (ran.stderr or ran.stdout).strip().splitlines() or [f"exit code {ran.returncode}"]
            raise FailedError(said[-1][:200])
        taken = json.loads(facts.read_text(encoding="utf-8"))
        return Cost(seconds, taken["cpu"], taken["peak"])
