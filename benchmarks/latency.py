"""How long a step takes: the source, adapters, the converted model and the native export; plain, and after peers.

Every variant is a process of its own. They take turns: in each round each streams a few ticks, in an order drawn anew,
and is compared with the native export of the same round.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple

import onnx
from environment import load
from models import HERE, Design, exported
from pairs import medians, ratios_to

REFERENCE = "native"
PLAIN = ("source", "adapters", "converted", REFERENCE)
PEERS = ("onnxsim", "onnxslim")
LIVES = 5  # where memory lies makes a process up to 7% faster or slower for as long as it lives
CLOSER = ("source", "converted", REFERENCE)  # what the promises are about
CLOSER_LIVES, CLOSER_ROUNDS, CLOSER_TICKS = 24, 12, 2  # short turns: what slows the machine down hits both
TOLERANCE = 1e-3  # of outputs, which fused operators may round differently


@dataclass(frozen=True)
class Family:
    """A network, and the convention that its source is converted to."""

    design: Design
    to: str
    lengths: tuple[int, ...]
    ticks: int


FAMILIES = {
    "conformer": Family(Design("conformer", 12, 256), "wenet-kv", (64, 512, 2048), ticks=3),
    "gpt2": Family(Design("gpt2", 12, 512), "optimum", (64, 512, 2048), ticks=4),
}
QUICK = {
    "conformer": Family(Design("conformer", 3, 64), "wenet-kv", (64, 128), ticks=2),
    "gpt2": Family(Design("gpt2", 3, 64), "optimum", (64, 128), ticks=2),
}


def measure(family: Family, rounds: int, threads: Sequence[int]) -> list[dict[str, Any]]:
    """Measures a family in all its cells: cache length by number of threads."""
    with tempfile.TemporaryDirectory(prefix="onnxfix-latency-") as folder:
        variants = make_variants(family, Path(folder))
        nodes = {name: len(onnx.load(path, load_external_data=False).graph.node) for name, path in variants.items()}
        return [
            measure_cell(family, variants, nodes, length, count, rounds)
            for count in threads
            for length in family.lengths
        ]


def make_variants(family: Family, folder: Path) -> dict[str, Path]:
    """Gives the file of each variant; what a peer fails on is left out, and said."""
    source = exported(family.design)
    variants = {
        "source": source,
        "adapters": folder / "adapters.onnx",
        "converted": folder / "converted.onnx",
        REFERENCE: exported(family.design, REFERENCE),
    }
    convert = ["onnxfix", "convert", str(source), "--to", family.to, "--quiet"]
    run([*convert, str(variants["adapters"]), "--no-cancel"])
    run([*convert, str(variants["converted"])])
    for peer in PEERS:
        for name in PLAIN:
            path = folder / f"{name}_{peer}.onnx"
            try:
                run([peer, str(variants[name]), str(path)])
            except subprocess.CalledProcessError as error:
                print(f"{peer} fails on {name}: {error.stderr[-300:]}", file=sys.stderr)
            else:
                variants[f"{name} + {peer}"] = path
    return variants


def run(command: list[str]) -> None:
    """Runs a tool that was installed beside this Python."""
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    subprocess.run([tool, *command[1:]], check=True, capture_output=True, text=True)


class Taken(NamedTuple):
    """What one tick took: on the clock on the wall, and of all CPUs together."""

    seconds: float
    cpu_seconds: float


class Stepper:
    """The process of one variant."""

    def __init__(self, path: Path, length: int, threads: int) -> None:
        options = {"--length": length, "--threads": threads}
        command = [sys.executable, str(HERE / "step.py"), str(path)]
        command += [word for option, number in options.items() for word in (option, str(number))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self) -> dict[str, Any]:
        """Reads one answer."""
        line = _open(self.process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} died")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def step(self, ticks: int) -> Taken:
        """Lets the variant stream."""
        pipe = _open(self.process.stdin)
        pipe.write(f"{ticks}\n")
        pipe.flush()
        return Taken(**self.hear())

    def finish(self) -> dict[str, Any]:
        """Ends the process, and gives its last words."""
        _open(self.process.stdin).close()
        facts = self.hear()
        self.process.wait()
        return facts


def measure_cell(
    family: Family, variants: Mapping[str, Path], nodes: Mapping[str, int], length: int, threads: int, rounds: int
) -> dict[str, Any]:
    """Measures all variants at one cache length with one number of threads, and then two of them more closely."""
    print(f"{family.design.name}: {length} frames or tokens of cache, {threads} thread(s)", file=sys.stderr)
    lives = min(LIVES, rounds)
    taken, ends = take_turns(variants, length, threads, family.ticks, rounds, lives)
    memory = {name: {key: middle([end[name][key] for end in ends]) for key in ends[0][name]} for name in variants}
    middles = medians(in_seconds(taken, "seconds"))
    pair = {name: variants[name] for name in CLOSER}
    more = CLOSER_LIVES if lives == LIVES else 0
    taken += take_turns(pair, length, threads, CLOSER_TICKS, CLOSER_ROUNDS * more, more)[0]
    wall, cpu = in_seconds(taken, "seconds"), in_seconds(taken, "cpu_seconds")
    to_native, to_source = ratios_to(wall, REFERENCE), ratios_to(wall, "source")
    cpu_to_native = ratios_to(cpu, REFERENCE)
    return {
        "length": length,
        "threads": threads,
        "rounds": rounds,
        "rounds_of_converted": len(taken),
        "load": load(),
        "variants": {
            name: {
                "nodes": nodes[name],
                "milliseconds": middles[name] * 1000,
                "to_native": asdict(to_native[name]),
                "to_source": asdict(to_source[name]),
                "cpu_to_native": asdict(cpu_to_native[name]),
                "peak_bytes": memory[name]["peak"],
                "peak_bytes_loading": memory[name]["peak_loading"],
            }
            for name in variants
        },
    }


def take_turns(
    variants: Mapping[str, Path], length: int, threads: int, ticks: int, rounds: int, lives: int
) -> tuple[list[dict[str, Taken]], list[dict[str, dict[str, Any]]]]:
    """Lets variants stream in turns; gives what each round took, and the last words of each life."""
    taken: list[dict[str, Taken]] = []
    ends: list[dict[str, dict[str, Any]]] = []
    for life in range(lives):
        with steppers(variants, length, threads) as running:
            require_same_outputs({name: stepper.hear()["output"] for name, stepper in running.items()})
            for stepper in running.values():  # memory grows in a first turn, which says nothing of later ones
                stepper.step(ticks)
            for number in range(life, rounds, lives):
                order = random.Random(number).sample(list(running), len(running))
                taken.append({name: running[name].step(ticks) for name in order})
            ends.append({name: stepper.finish() for name, stepper in running.items()})
    return taken, ends


def in_seconds(taken: Sequence[Mapping[str, Taken]], clock: str) -> list[dict[str, float]]:
    """Gives what one of the two clocks says."""
    return [{name: getattr(one, clock) for name, one in row.items()} for row in taken]


def middle(sizes: Sequence[int | None]) -> float | None:
    """Gives the median; None where the system does not tell sizes."""
    known = [size for size in sizes if size is not None]
    return median(known) if known else None


@contextlib.contextmanager
def steppers(variants: Mapping[str, Path], length: int, threads: int) -> Iterator[dict[str, Stepper]]:
    """Starts a process for each variant, and leaves none behind."""
    running: dict[str, Stepper] = {}
    try:
        for name, path in variants.items():
            running[name] = Stepper(path, length, threads)
        yield running
    finally:
        for stepper in running.values():
            stepper.process.kill()
            stepper.process.wait()


def require_same_outputs(outputs: Mapping[str, Sequence[float]]) -> None:
    """Refuses to time a variant that computes something else."""
    for name, output in outputs.items():
        apart = max(abs(ours - theirs) for ours, theirs in zip(output, outputs[REFERENCE], strict=True))
        if not apart <= TOLERANCE:
            raise RuntimeError(f"{name} puts out something else than the native export: {apart} apart")


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
