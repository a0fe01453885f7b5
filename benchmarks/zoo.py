"""What a migration of many models costs: with one process and with two, and beside a shell loop over `convert`.

Each run is a command of its own, from its start to its end, with its proofs and its reports: what users run. What is
compared takes turns, so that what slows the machine down for a while slows down all.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from environment import compile_package, load
from models import FOLDER, HERE
from pairs import medians, ratios_to
from zoo_making import Breed, Form, Zoo, large, make_zoo, part_of, sample

ONNXFIX = str(Path(sys.executable).with_name("onnxfix"))
T = TypeVar("T")
LOOP = "shell loop"
JOBS = (1, 2)
SMALL = 300_000  # bytes; of larger models, the loop is asked for none
LIMIT = 1800  # seconds


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        name: The folder of the zoo.
        breeds: What is in it.
        rounds: How often it is migrated, with one process and with two.
        looped: How many models the shell loop is asked for.
        loop_rounds: How often.
        idle: How many models have nothing to do.
    """

    name: str
    breeds: Sequence[Breed]
    rounds: int
    looped: int
    loop_rounds: int
    idle: int


FULL = Scale(
    "zoo",
    (
        Breed("vad", large("vad", 1, 3), 60),
        Breed("vad", sample("vad_state"), 60),
        Breed("vad", sample("vad_state_dynamo"), 30),
        Breed("vad", sample("vad_state"), 10, form=Form.WITH_DATA),
        Breed("vad", sample("vad_hc"), 40, "unchanged"),
        Breed("vad", sample("plain"), 20, "skipped"),
        Breed("vad", sample("vad_state"), 10, "failed", Form.TRUNCATED),
        Breed("vad", sample("vad_state"), 10, "failed", Form.WITHOUT_DATA),
        Breed("text", sample("spoken/decoder_genai"), 30),
        Breed("text", sample("spoken/decoder_trt-edge"), 20),
        Breed("text", sample("spoken/decoder_native-llm"), 20),
        Breed("text", sample("spoken/decoder_llm-export"), 20),
        Breed("text", sample("spoken/decoder_optimum"), 20, "unchanged"),
        Breed("text", sample("gpt2_stacked"), 20),
        Breed("text", sample("gpt2_stacked_dynamo"), 10),
        Breed("text", large("gpt2", 3, 64), 8),
        Breed("text", large("gpt2", 3, 64), 4, "failed", Form.TRUNCATED),
        Breed("speech", sample("conformer_packed"), 20),
        Breed("speech", sample("conformer_packed_dynamo"), 10),
        Breed("speech", sample("conformer_gpu"), 10),
        Breed("speech", sample("conformer_bpu"), 10),
        Breed("speech", sample("conformer_kv_stacked"), 10),
        Breed("speech", sample("conformer_kv"), 24, "unchanged"),
        Breed("speech", sample("conformer_gpu"), 6, "failed", Form.TRUNCATED),
        Breed("speech", large("conformer", 3, 64), 10),
        Breed("speech", large("conformer", 12, 42), 5),
        Breed("speech", large("conformer", 12, 42), 1, form=Form.WITH_DATA),
        Breed("speech", large("conformer", 12, 256), 2),
    ),
    rounds=3,
    looped=40,
    loop_rounds=2,
    idle=10_000,
)
QUICK = Scale(
    "zoo-quick",
    (
        Breed("vad", sample("vad_state"), 3),
        Breed("vad", sample("vad_state"), 1, form=Form.WITH_DATA),
        Breed("vad", sample("vad_hc"), 1, "unchanged"),
        Breed("vad", sample("plain"), 1, "skipped"),
        Breed("vad", sample("vad_state"), 1, "failed", Form.TRUNCATED),
        Breed("vad", sample("vad_state"), 1, "failed", Form.WITHOUT_DATA),
    ),
    rounds=1,
    looped=2,
    loop_rounds=1,
    idle=50,
)


@dataclass(frozen=True)
class Run:
    """What one command took.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of all its processes.
        own_cpu_seconds, peak_bytes: Of the first of them, which gives out the work; None where that is not known.
    """

    seconds: float
    cpu_seconds: float
    own_cpu_seconds: float | None = None
    peak_bytes: int | None = None


def measure(scale: Scale) -> dict[str, Any]:
    """Makes the zoo, and measures."""
    FOLDER.mkdir(exist_ok=True)
    zoo = make_zoo(FOLDER / scale.name, scale.breeds)
    with tempfile.TemporaryDirectory(prefix=".zoo-", dir=FOLDER) as name:
        folder = Path(name)
        part = part_of(zoo, zoo.some(scale.looped, SMALL), folder / "part")
        warm_up(zoo, part, folder)
        beside = measure_loop(part, scale.loop_rounds, folder)
        whole = measure_jobs(zoo, scale.rounds, folder)
        idle = measure_idle(scale.idle, folder)
    sizes = [inmate.size for inmate in zoo.inmates]
    return {
        "models": len(sizes),
        "bytes": sum(sizes),
        "smallest": min(sizes),
        "largest": max(sizes),
        "outcomes": dict(sorted(zoo.outcomes.items())),
        "load": load(),
        "whole": whole,
        "loop": beside,
        "idle": idle,
    }


def warm_up(zoo: Zoo, part: Zoo, folder: Path) -> None:
    """Reads all that will be read: models, programs and libraries."""
    compile_package()
    for inmate in zoo.inmates:
        (zoo.root / inmate.path).read_bytes()
    first = Zoo(part.root, part.inmates[:1])
    run_loop(first, folder / "warm-loop")
    run_migration(part, folder / "warm", 1)


def measure_jobs(zoo: Zoo, rounds: int, folder: Path) -> dict[str, Any]:
    """Migrates a zoo with one process and with two, in turns."""
    taken: list[dict[str, Run]] = []
    for number in range(rounds):
        runs = {}
        for jobs in in_turn(JOBS, number):
            print(f"zoo: round {number + 1} of {rounds}, --jobs {jobs}", file=sys.stderr)
            out = folder / f"out-{number}-{jobs}"
            runs[str(jobs)] = run_migration(zoo, out, jobs)
            shutil.rmtree(out)
        taken.append(runs)
    return {"rounds": rounds, "variants": summary(taken, len(zoo.inmates), "1")}


def measure_loop(zoo: Zoo, rounds: int, folder: Path) -> dict[str, Any]:
    """Converts models by a shell loop, and by a migration with one process and with two, in turns."""
    taken: list[dict[str, Run]] = []
    for number in range(rounds):
        print(f"zoo: loop, round {number + 1} of {rounds}", file=sys.stderr)
        runs, results = {}, {}
        for name in in_turn((LOOP, *map(str, JOBS)), number):
            out = folder / f"few-{number}-{name}"
            runs[name] = run_loop(zoo, out) if name == LOOP else run_migration(zoo, out, int(name))
            results[name] = digests(zoo, out)
            shutil.rmtree(out)
        if any(found != results[LOOP] for found in results.values()):
            raise RuntimeError("the shell loop and the migrations did not write the same")
        taken.append(runs)
    sizes = [inmate.size for inmate in zoo.inmates]
    return {
        "models": len(sizes),
        "smallest": min(sizes),
        "largest": max(sizes),
        "rounds": rounds,
        "variants": summary(taken, len(sizes), LOOP),
    }


def measure_idle(count: int, folder: Path) -> dict[str, Any]:
    """Measures what remains where there is nothing to do."""
    print(f"zoo: {count} models with nothing to do", file=sys.stderr)
    command = [sys.executable, str(HERE / "zoo_idle.py"), str(folder / "idle"), str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT)
    return {"models": count, **json.loads(ran.stdout)}


def summary(taken: Sequence[Mapping[str, Run]], models: int, reference: str) -> dict[str, Any]:
    """Gives medians, and how many times the rate of the reference each has, within each round."""
    seconds = [{name: run.seconds for name, run in runs.items()} for runs in taken]
    result = {}
    for name, middle in medians(seconds).items():
        runs = [one[name] for one in taken]
        own = [run.own_cpu_seconds for run in runs if run.own_cpu_seconds is not None]
        peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
        result[name] = {
            "seconds": middle,
            "per_minute": 60 * models / middle,
            "cpu_seconds": median(run.cpu_seconds for run in runs),
            "own_cpu_seconds": median(own) if own else None,
            "peak_bytes": max(peaks, default=None),
            "times_the_rate": asdict(ratios_to(seconds, name)[reference]),
        }
    return {name: result[name] for name in sorted(result, key=lambda name: (name != LOOP, name))}


def run_migration(zoo: Zoo, out: Path, jobs: int) -> Run:
    """Migrates a zoo.

    Raises:
        RuntimeError: What came of the models is not what should.
    """
    facts = out.with_name(f"{out.name}.json")
    command = [sys.executable, str(HERE / "probe.py"), str(facts), "onnxfix", "migrate", str(zoo.root), str(out)]
    ran, seconds, cpu_seconds = run([*command, "--jobs", str(jobs), "--quiet", "--json"])
    expected = {"counts": dict(zoo.outcomes), "exit_code": 3 if zoo.outcomes["failed"] else 0}
    found = json.loads(ran.stdout or "{}")
    if {key: found.get(key) for key in expected} != expected:
        raise RuntimeError(f"{ran.stderr}\nexpected {expected}, not { ({key: found.get(key) for key in expected}) }")
    own = json.loads(facts.read_text(encoding="utf-8"))
    return Run(seconds, cpu_seconds, own["cpu"], own["peak"])


def run_loop(zoo: Zoo, out: Path) -> Run:
    """Converts the models of a zoo one by one, each by a command of its own.

    Raises:
        RuntimeError: One was not converted.
    """
    lines = []
    for inmate in zoo.inmates:
        source, result = zoo.root / inmate.path, out / inmate.path
        result.parent.mkdir(parents=True, exist_ok=True)
        lines.append(shlex.join([ONNXFIX, "convert", str(source), str(result), "--to", inmate.target, "--quiet"]))
    ran, seconds, cpu_seconds = run(["sh", "-e", "-c", "\n".join(lines)])
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    return Run(seconds, cpu_seconds)


def run(command: Sequence[str]) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """Runs a command, and returns the seconds that it took, and those of the CPU with all processes that it started."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return ran, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turn(names: Sequence[T], number: int) -> Sequence[T]:
    """Gives names in the order of a round: each comes first once."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def digests(zoo: Zoo, out: Path) -> dict[str, str]:
    """Returns what stands at the destination of each model."""
    return {one.path: hashlib.sha256((out / one.path).read_bytes()).hexdigest() for one in zoo.inmates}
