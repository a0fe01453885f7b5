"""What the measurements are held against; a budget that is missed is shown as such, and changes no exit code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]
NATIVE = (0.97, 1.03)  # of a step of the native export
LONG = 512  # frames or tokens from which on a step must be shorter than the source's
LINEAR = 1.1  # the power of the graph's size that still counts as linear
NEAR = 0.1  # how far a graph may be from the size that a budget speaks of
TWO_JOBS = 1.7  # times the rate of one process
LOOP = 3.0  # times the rate of a shell loop
SURGERY = {3_000: 0.5, 20_000: 4.0}  # nodes: seconds


@dataclass(frozen=True)
class Budget:
    """One promise, what was measured, and between what it must lie."""

    title: str
    measured: float
    low: float
    high: float
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the promise holds."""
        return self.low <= self.measured <= self.high

    @property
    def limits(self) -> str:
        """The limits, in words."""
        if math.isinf(self.high):
            return f">= {self.low:g}{self.unit}"
        return f"{self.low:g} .. {self.high:g}{self.unit}" if self.low else f"<= {self.high:g}{self.unit}"


def budgets(results: Results) -> list[Budget]:
    """Gives all budgets that the sections at hand can answer for."""
    kinds = {
        "latency": latency_budgets,
        "conversion": conversion_budgets,
        "surgery": surgery_budgets,
        "zoo": zoo_budgets,
    }
    return [
        budget
        for name, section in sorted(results["sections"].items())
        for budget in kinds[name.split("/")[0]](name.split("/")[-1], section)
    ]


def latency_budgets(family: str, section: Results) -> Iterator[Budget]:
    """The converted model is as fast as the native export, and faster than the source where the cache is long."""
    for cell in section["cells"]:
        converted = cell["variants"]["converted"]
        where = f"{family}, cache {cell['length']}, {threads(cell)}"
        yield Budget(f"{where}: converted / native", converted["to_native"]["median"], *NATIVE)
        if cell["length"] >= LONG:
            yield Budget(f"{where}: converted / source", converted["to_source"]["median"], 0, 1)


def conversion_budgets(_: str, section: Results) -> Iterator[Budget]:
    """Half of what onnxsim takes at 140 MB; 2 s and 200 MB at 1.5 GB."""
    for case in section["cases"]:
        ours = case["tools"].get("onnxfix")
        if not ours:
            continue
        if case["title"].startswith("140 MB") and ours["to_onnxsim"]:
            yield Budget("140 MB: onnxfix / onnxsim", ours["to_onnxsim"]["median"], 0, 0.5)
        if case["title"].startswith("1.5 GB"):
            yield Budget("1.5 GB: time", ours["seconds"], 0, 2, " s")
            if ours["peak_bytes"]:
                yield Budget("1.5 GB: peak memory", ours["peak_bytes"] / 1e6, 0, 200, " MB")


def surgery_budgets(network: str, section: Results) -> Iterator[Budget]:
    """Seconds at 3,000 and at 20,000 nodes, of a CPU since one thread does it all; in between a straight line."""
    for point in section["points"]:
        for nodes, seconds in SURGERY.items():
            if abs(point["nodes"] / nodes - 1) <= NEAR:
                title = f"{network}, surgery on {point['nodes']:,} nodes, CPU time"
                yield Budget(title, point["cpu_seconds"], 0, seconds, " s")
    yield Budget(f"{network}, surgery: CPU time grows with nodes to the power of", section["exponent"], 0, LINEAR)


def zoo_budgets(_: str, section: Results) -> Iterator[Budget]:
    """Two processes are nearly twice as fast as one, and one is faster than a shell loop: imports are paid once."""
    whole, loop = section["whole"]["variants"], section["loop"]
    title = f"zoo of {section['models']:,}: rate of --jobs 2 / --jobs 1"
    yield Budget(title, whole["2"]["times_the_rate"]["median"], TWO_JOBS, math.inf)
    title = f"{loop['models']} small models: rate of --jobs 1 / shell loop"
    yield Budget(title, loop["variants"]["1"]["times_the_rate"]["median"], LOOP, math.inf)


def threads(cell: Results) -> str:
    """Says how many threads a cell was measured with."""
    return "1 thread" if cell["threads"] == 1 else f"{cell['threads']} threads"
