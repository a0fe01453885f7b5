"""The results as tables: on the terminal, and as a page beside the file that they are kept in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgets import budgets, threads

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is what the others speak of."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> Iterator[Table]:
    """Gives all tables of the sections at hand, the budgets last."""
    for name, section in sorted(results["sections"].items()):
        kind, _, rest = name.partition("/")
        if kind == "latency":
            yield from latency_tables(rest, section)
        elif kind == "conversion":
            yield conversion_table(section)
        elif kind == "zoo":
            yield from zoo_tables(section)
        else:
            yield surgery_table(rest, section)
    verdicts = [
        (budget.title, f"{budget.measured:.2f}", budget.limits, "yes" if budget.is_met else "NO")
        for budget in budgets(results)
    ]
    yield Table("Budgets", ("", "measured", "budget", "met"), verdicts)


def latency_tables(family: str, section: Results) -> Iterator[Table]:
    """Gives a table for each number of threads: a row a variant, a column a cache length."""
    for count in sorted({cell["threads"] for cell in section["cells"]}):
        cells = [cell for cell in section["cells"] if cell["threads"] == count]
        header = ["", "nodes", *(f"cache {cell['length']}" for cell in cells)]
        rows = [
            (name, str(facts["nodes"]), *(latency_entry(cell["variants"][name]) for cell in cells))
            for name, facts in cells[0]["variants"].items()
        ]
        what = f"{family}, {section['layers']} layers x {section['width']}, {threads(cells[0])}"
        title = f"{what}: ms of a step (beside native), peak MB"
        yield Table(title, header, rows)


def latency_entry(facts: Results) -> str:
    """Says how long a step takes, how that compares, and how much memory the steps took."""
    memory = f", {facts['peak_bytes'] / 1e6:.0f}" if facts["peak_bytes"] else ""
    return f"{facts['milliseconds']:.1f} ({facts['to_native']['median']:.2f}){memory}"


def conversion_table(section: Results) -> Table:
    """Gives a row for each tool and file."""
    rows: list[tuple[str, ...]] = []
    for case in section["cases"]:
        for name, facts in case["tools"].items():
            peer = facts["to_onnxsim"]
            rows.append(
                (
                    f"{case['title']}: {name}",
                    f"{facts['seconds']:.2f} s",
                    f"{facts['cpu_seconds']:.2f} s",
                    f"{facts['peak_bytes'] / 1e6:,.0f} MB" if facts["peak_bytes"] else "",
                    f"{facts['to_floor']['median']:.1f}",
                    f"{peer['median']:.2f}" if peer else "",
                )
            )
        rows += [(f"{case['title']}: {name}", reason, "", "", "", "") for name, reason in case["left_out"].items()]
    return Table("Converting a Conformer", ("", "time", "of a CPU", "peak memory", "/ floor", "/ onnxsim"), rows)


def surgery_table(network: str, section: Results) -> Table:
    """Gives a row for each graph."""
    rows = [
        (
            f"{point['layers']} layers",
            f"{point['nodes']:,} -> {point['nodes_with_adapters']:,} -> {point['nodes_after']:,}",
            f"{point['seconds']:.2f} s",
            f"{point['cpu_seconds']:.2f} s",
        )
        for point in section["points"]
    ]
    title = f"Surgery on {network}: time grows with nodes to the power of {section['exponent']:.2f}"
    return Table(title, ("", "nodes: before, with adapters, after", "time", "of a CPU"), rows)


def zoo_tables(section: Results) -> Iterator[Table]:
    """Gives a table of the whole zoo, one of the models that a shell loop converts too, and one of empty hands."""
    sizes = "{} to {}".format(*(size_text(section[key]) for key in ("smallest", "largest")))
    outcomes = ", ".join(f"{count:,} {word}" for word, count in section["outcomes"].items())
    title = f"A zoo of {section['models']:,} models, {sizes} ({outcomes}), {rounds_text(section['whole'])}"
    yield runs_table(title, section["whole"]["variants"], "1")
    loop = section["loop"]
    sizes = "{} to {}".format(*(size_text(loop[key]) for key in ("smallest", "largest")))
    title = f"{loop['models']:,} of its models, {sizes}, also by a shell loop over convert, {rounds_text(loop)}"
    yield runs_table(title, loop["variants"], "shell loop")
    idle = section["idle"]
    rows = [
        (
            what,
            f"{facts['seconds']:.1f} s",
            f"{facts['cpu_seconds']:.1f} s",
            f"{1e3 * facts['seconds'] / idle['models']:.2f} ms",
        )
        for what, facts in (
            ("a first run", idle["first"]),
            ("a second run", idle["again"]),
            ("its reports", idle["reports"]),
        )
    ]
    peak = f", at most {idle['peak_bytes'] / 1e6:.0f} MB" if idle["peak_bytes"] else ""
    yield Table(f"{idle['models']:,} models with nothing to do{peak}", ("", "time", "of a CPU", "a model"), rows)


def runs_table(title: str, variants: Results, reference: str) -> Table:
    """Gives a row for each way to migrate the same models."""
    rows = [
        (
            name if name == "shell loop" else f"migrate --jobs {name}",
            f"{facts['seconds']:.1f} s",
            f"{facts['per_minute']:,.0f}",
            f"{facts['times_the_rate']['median']:.2f}",
            f"{facts['cpu_seconds']:.1f} s",
            f"{facts['own_cpu_seconds']:.1f} s" if facts["own_cpu_seconds"] else "",
            f"{facts['peak_bytes'] / 1e6:,.0f} MB" if facts["peak_bytes"] else "",
        )
        for name, facts in variants.items()
    ]
    beside = reference if reference == "shell loop" else f"--jobs {reference}"
    header = ("", "time", "models a minute", f"/ {beside}", "of CPUs", "of the first process", "its peak memory")
    return Table(title, header, rows)


def rounds_text(measured: Results) -> str:
    """Says how often something was measured."""
    return "one round" if measured["rounds"] == 1 else f"{measured['rounds']} rounds"


def size_text(size: int) -> str:
    """Says how large a file is."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def show(results: Results) -> None:
    """Prints all tables."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for table in tables(results):
        shown = RichTable(title=table.title, title_justify="left")
        for index, column in enumerate(table.header):
            shown.add_column(column, justify="right" if index else "left")
        for row in table.rows:
            shown.add_row(*row, style="bold red" if row[-1] == "NO" else None)
        console.print(shown)


def markdown(results: Results) -> str:
    """Gives all tables as a page, with what they were measured on."""
    lines = ["# Results", "", "Written by `python benchmarks/run.py`; [what is measured](../README.md).", ""]
    for name, section in sorted(results["sections"].items()):
        lines.append(f"- `{name}`: {setting(section)}")
    lines += ["", "![Step latency beside the native export](latency.svg)", ""]
    for table in tables(results):
        lines += [f"## {table.title}", "", _line(table.header), _line(["---", *["--:"] * (len(table.header) - 1)])]
        lines += [*map(_line, table.rows), ""]
    return "\n".join(lines)


def setting(section: Results) -> str:
    """Says what a section was measured on, and how busy the machine was: before, and at the busiest."""
    environment = section["environment"]
    measured = [section, *section.get("cells", ()), *section.get("cases", ())]
    load = " .. ".join(str(number) for number in (environment["load"], *busiest(measured)))
    versions = ", ".join(f"{package} {number}" for package, number in environment["versions"].items())
    where = f"{environment['cpu']}, {environment['cpus']} CPUs, {environment['system']}, load {load}"
    return f"{where}; {versions}"


def busiest(measured: Sequence[Results]) -> list[float]:
    """Gives the highest load, if any was noted."""
    return sorted(one["load"] for one in measured if "load" in one)[-1:]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
