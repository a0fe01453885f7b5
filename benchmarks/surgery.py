"""How the surgery itself grows with the graph: planned, rewritten and cancelled, for ever deeper networks."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from models import Design, exported
from pairs import exponent

WIDTH = 16
DEPTHS = {"conformer": (24, 62, 162), "gpt2": (32, 82, 216)}
"""For 3,000, 7,600 and 20,000 nodes, after simplifying."""
QUICK = {"conformer": (3, 6), "gpt2": (3, 6)}
REPEATS = 5


def measure(network: str, depths: Sequence[int]) -> dict[str, Any]:
    """Measures one network at all depths, in turns."""
    paths = {depth: exported(Design(network, depth, WIDTH), is_simplified=True) for depth in depths}
    seconds: dict[int, list[float]] = {depth: [] for depth in depths}
    cpu_seconds: dict[int, list[float]] = {depth: [] for depth in depths}
    facts: dict[int, dict[str, Any]] = {}
    for number in range(REPEATS):
        print(f"surgery: {network}, round {number + 1} of {REPEATS}", file=sys.stderr)
        for depth, path in paths.items():
            taken, cpu, facts[depth] = operate(str(path))
            seconds[depth].append(taken)
            cpu_seconds[depth].append(cpu)
    points = [
        {
            "layers": depth,
            **facts[depth],
            "seconds": median(seconds[depth]),
            "cpu_seconds": median(cpu_seconds[depth]),
        }
        for depth in depths
    ]
    return {
        "points": points,
        "exponent": exponent((point["nodes"], point["cpu_seconds"]) for point in points),
    }


def operate(path: str) -> tuple[float, float, dict[str, Any]]:
    """Rewrites one model in memory; gives the seconds, those of a CPU, and what became of its nodes."""
    from onnxfix.request import open_model, plan_conversion
    from onnxfix.surgery.rewrite import rewrite

    model = open_model(path)
    gc.collect()  # what the model before left is no part of this one
    begin, cpu_begin = time.perf_counter(), time.process_time()
    plan = plan_conversion(model)
    report = rewrite(model, plan)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    if report.refused:
        raise RuntimeError(f"{path}: adapters stay: {report.refused}")
    return (
        seconds,
        cpu_seconds,
        {
            "nodes": report.nodes_before,
            "nodes_with_adapters": report.nodes_adapters,
            "nodes_after": report.nodes_after,
        },
    )
