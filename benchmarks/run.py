"""Measures what onnxfix promises: `python benchmarks/run.py [--quick] [--only PART]... [--out DIR]`.

Parts are `latency/conformer`, `latency/gpt2`, `conversion`, `surgery/conformer`, `surgery/gpt2`, `zoo`, or the word
before the slash for both. What is measured takes the place of the same part in DIR/results.json; what is not stays
there. Tables and picture show all that the file then has.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import conversion
import environment
import latency
import picture
import report
import surgery
import zoo

from onnxfix.errors import OnnxfixError

HERE = Path(__file__).resolve().parent
ROUNDS, QUICK_ROUNDS = 21, 3


def parts(
    is_quick: bool, rounds: int, threads: Sequence[int], lengths: Sequence[int] = ()
) -> Mapping[str, Callable[[], dict[str, Any]]]:
    """Gives what can be measured, by name."""
    families = latency.QUICK if is_quick else latency.FAMILIES
    depths = surgery.QUICK if is_quick else surgery.DEPTHS
    cases = conversion.QUICK if is_quick else conversion.CASES

    def measure_latency(family: latency.Family) -> dict[str, Any]:
        family = replace(family, lengths=tuple(lengths) or family.lengths)
        design = family.design
        cells = latency.measure(family, rounds, threads)
        return {"layers": design.layers, "width": design.width, "to": family.to, "cells": cells}

    return {
        **{f"latency/{name}": lambda family=family: measure_latency(family) for name, family in families.items()},
        "conversion": lambda: {"cases": conversion.measure(cases)},
        **{f"surgery/{name}": lambda name=name: surgery.measure(name, depths[name]) for name in depths},
        "zoo": lambda: zoo.measure(zoo.QUICK if is_quick else zoo.FULL),
    }


def main() -> None:
    """Measures what was asked for, and shows everything."""
    arguments = read_arguments()
    out: Path = arguments.out or HERE / ("quick" if arguments.quick else "results")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    results: dict[str, Any] = {"sections": {}}
    if file.exists():
        results = json.loads(file.read_text(encoding="utf-8"))
    failed: list[str] = []
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    threads = arguments.threads or ([1] if arguments.quick else [1, 2])
    for name, measure in parts(arguments.quick, rounds, threads, arguments.length).items():
        if not is_wanted(name, arguments.only) or arguments.show:
            continue
        try:
            section = {"environment": environment.describe(), **measure()}
            results["sections"][name] = with_other_cells(section, results["sections"].get(name, {}))
        except (subprocess.CalledProcessError, RuntimeError, OnnxfixError) as error:
            failed.append(name)
            print(f"{name}: {error}\n{getattr(error, 'stderr', None) or ''}", file=sys.stderr)
        # After every part: a run that is interrupted loses only what it was at.
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "latency.svg").write_text(picture.draw(results), encoding="utf-8")
    (out / "README.md").write_text(report.markdown(results), encoding="utf-8")
    report.show(results)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def with_other_cells(section: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the cells of a latency that were measured before, and not again."""
    if "cells" not in section:
        return section
    measured = {(cell["threads"], cell["length"]) for cell in section["cells"]}
    others = [cell for cell in before.get("cells", []) if (cell["threads"], cell["length"]) not in measured]
    cells = sorted([*others, *section["cells"]], key=lambda cell: (cell["threads"], cell["length"]))
    return {**section, "cells": cells}


def is_wanted(name: str, only: list[str]) -> bool:
    """Says whether a part was asked for, by its name or by the word before its slash."""
    return not only or name in only or name.split("/")[0] in only


def read_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: shows that all works")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="measure a part; may be repeated")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of the latency ({ROUNDS})")
    parser.add_argument("--threads", type=int, action="append", metavar="N", help="of the latency (1 and 2)")
    parser.add_argument(
        "--length", type=int, action="append", default=[], metavar="N", help="of the latency's caches (64, 512, 2048)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (benchmarks/results)")
    parser.add_argument("--show", action="store_true", help="measure nothing; write tables and picture again")
    arguments = parser.parse_args()
    names = parts(False, 0, [])
    for name in arguments.only:
        if not any(is_wanted(part, [name]) for part in names):
            parser.error(f"--only {name}: there are {', '.join(names)}")
    return arguments


if __name__ == "__main__":
    main()
