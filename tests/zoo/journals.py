"""Journals made by hand: of thousands of models, and of models that are called what no model should be."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from onnxfix.zoo.journal import Journal
from onnxfix.zoo.outcome import Converted, Failed, Outcome, Refused, Skipped, Unchanged, outcome_to_json

NASTY = "</script><script>alert(1)</script>\"'&<!--\n\r\t\x00\x1b\u202egnp.\u2028\u2066é中😀=1"
LAYERS = 12


def _ports(packed: bool) -> dict[str, object]:
    def port(name: str, *dims: int | str | None) -> dict[str, object]:
        return {"name": name, "dtype": "float32", "dims": list(dims)}

    def caches(prefix: str, time: str) -> list[dict[str, object]]:
        if packed:
            return [port(f"{prefix}att_cache", LAYERS, 4, time, 128)]
        return [port(f"{prefix}{kind}_cache_{n}", 1, 4, time, 64) for n in range(LAYERS) for kind in ("key", "value")]

    inputs = [port("chunk", 1, "frames", 80), port("offset", 1), *caches("", "T_CACHE"), port("att_mask", 1, 1, None)]
    return {"inputs": inputs, "outputs": [port("output", 1, "T", 256), *caches("r_", "T_NEW")]}


def _proof(ticks: int, gap: float = 0.0) -> dict[str, object]:
    names = ["output", *(f"r_{kind}_cache_{layer}" for layer in range(LAYERS) for kind in ("key", "value"))]
    gaps = {name: gap * (index % 5) for index, name in enumerate(names)}
    ports = [
        {
            "name": name, "is_state": index > 0, "dtype": "float32", "values": 4096 * ticks,
            "mismatched": 7 if gaps[name] else 0, "max_abs": [gaps[name] * 2.0**tick for tick in range(ticks)],
        }
        for index, name in enumerate(names)
    ]  # fmt: skip
    return {
        "passed": not gap, "exact": not gap, "mode": "closed loop", "seed": 0, "optimized": False, "ticks": ticks,
        "values": 4096 * ticks * len(names), "max_abs": max(gaps.values()) * 2.0 ** (ticks - 1), "outputs": 1,
        "states": len(names) - 1, "fed": {"chunk": "noise", "offset": "step:64,16"},
        "observable": [f"attention, layer {layer}" for layer in range(LAYERS - 1)],
        "not_observable": [f"attention, layer {LAYERS - 1}"], "notes": [],
        "runs": [{"provider": "cpu", "start": "full", "passed": not gap, "ports": ports}],
    }  # fmt: skip


def _facts(number: int) -> dict[str, object]:
    return {
        "before": _ports(packed=True), "after": _ports(packed=False),
        "plan": ["attention, past: att_cache -> key_cache_0 ... value_cache_11 (24)", "  split layer into 12"],
        "nodes": {
            "source": 1800 + number % 97, "simplified": 900, "with_adapters": 950,
            "after_cancelling": 870 + number % 31,
        },
        "copied_per_step": {
            "source": [{"bytes": 24576, "times": ["time"]}], "with_adapters": [{"bytes": 73728, "times": ["time"]}],
            "after_cancelling": [],
        },
        "cancelled": {"Slice": 24, "Split": 12}, "refused": [], "notes": [], "side_files": [], "caches": [],
        "proof": _proof(10),
    }  # fmt: skip


def outcome_of(number: int) -> Outcome | None:
    """Returns an outcome: of twenty models most were converted, and one ended in each other way."""
    match number % 20:
        case 3:
            return Failed("DetectError", f"several conventions fit ({number})", "att_cache", "--from decides")
        case 7:
            return Skipped("no cache: no output looks like an input of the next call")
        case 11:
            return Refused("DifferenceError", "they differ", "output, tick 3", "--bisect", _proof(10, 1e-6 * number))
        case 13:
            return Unchanged("wenet-kv", {**_facts(number), "plan": [], "nodes": None, "copied_per_step": None})
        case 17:
            return Failed("Crashed", "the process ended by SIGSEGV", log="line one\nline two")
        case 19 if number % 100 == 19:
            return None
    return Converted(("wenet-packed", "wenet-bpu", "optimum")[number % 3], "wenet-kv", _facts(number))


def many(count: int) -> Iterator[tuple[str, Outcome | None]]:
    """Yields models in folders, with what became of them."""
    for number in range(count):
        folder = f"{('speech', 'text', 'vision')[number % 3]}/team-{number % 41}"
        yield f"{folder}/encoder-{number:05}.onnx", outcome_of(number)


def write_journal(out: Path, models: Iterable[tuple[str, Outcome | None]]) -> Path:
    """Writes the journal of a migration that never was; None stands for a model that is being worked on."""
    (out / ".onnxfix").mkdir(parents=True)
    path = out / ".onnxfix" / "journal.sqlite"
    with Journal(path) as journal:
        journal.set_about({"zoo": "/models/zoo", "mode": "tree"})
    rows = [_row(number, path, outcome) for number, (path, outcome) in enumerate(models)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO models VALUES ({', '.join('?' * 12)})", rows)
    return out


def _row(number: int, path: str, outcome: Outcome | None) -> tuple[str, ...]:
    def mark(size: int) -> str:
        digest = hashlib.sha256(f"{path} {size}".encode("utf-8", "surrogatepass")).hexdigest()
        return json.dumps([[path, digest, size, 10**18]])

    settings, notes = json.dumps({"to": ["wenet-kv"], "sizes": [["head", 4]]}), json.dumps(["edited: done again"])
    started = f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}+00:00"
    seconds = json.dumps({"simplify": 1.5, "verify": 0.25, "all": round(2 + number % 50 / 7, 4)})
    if outcome is None:
        return (path, "running", settings, "0.1.0", "", "[]", "", "[]", "[]", started, "{}", "{}")
    results = mark(180_000) if isinstance(outcome, Converted | Unchanged | Skipped) else "[]"
    return (
        path, "done", settings, "0.1.0", mark(178_000), "[]", outcome.word, results,
        notes if number % 50 == 0 else "[]", started, seconds, json.dumps(outcome_to_json(outcome), sort_keys=True),
    )  # fmt: skip


def nasty() -> Iterator[tuple[str, Outcome | None]]:
    """Yields models whose every text is taken for something else somewhere."""
    port = {"name": NASTY, "dtype": NASTY, "dims": [NASTY, None, 1]}
    facts = {
        "before": {"inputs": [port], "outputs": []}, "after": {"inputs": [], "outputs": [port]}, "plan": [NASTY],
        "nodes": {NASTY: 1}, "copied_per_step": {NASTY: [{"bytes": 1, "times": [NASTY]}]}, "cancelled": {NASTY: 1},
        "refused": [NASTY], "notes": [NASTY],
        "proof": {**_proof(2, 1.0), "fed": {NASTY: NASTY}, "notes": [NASTY], "mode": NASTY, "not_observable": [NASTY]},
    }  # fmt: skip
    yield f"a/{NASTY}.onnx", Converted(NASTY, f"{NASTY}2", facts)
    yield f"b/{NASTY}.onnx", Failed(NASTY, NASTY, NASTY, NASTY, NASTY)
    yield (
        f"c/{NASTY}.onnx",
        Refused(NASTY, NASTY, NASTY, NASTY, {"runs": [{"ports": [{"name": NASTY, "max_abs": [None]}]}]}),
    )
    yield f"=d/{NASTY}.onnx", Skipped(NASTY)
    yield f"e/{NASTY}.onnx", None
