"""`onnxfix inspect MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_sizes, size_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from onnxfix.inspection import Inspection, PortFacts

_NEAREST = 3
"""How many conventions are named that nearly fit."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@from_option
@size_option
@click.option(
    "--propose",
    is_flag=True,
    help="Print a convention for a model that speaks no known one, as a TOML file to look at and to give to --from.",
)
@json_option
def inspect(model: Path, from_: tuple[str, ...], sizes: tuple[str, ...], propose: bool, as_json: bool) -> None:
    """Show the ports of MODEL, its caches, the convention that they follow and why, and what else the file says."""
    if propose:
        _propose(model, {"--from": from_, "--size": sizes, "--json": as_json})
        return
    from onnxfix.cli.console import print_json, results
    from onnxfix.inspection import inspect as look

    inspection = look(model, from_=from_ or None, sizes=read_sizes("--size", sizes))
    if as_json:
        print_json(inspection.to_json())
        return
    console = results()
    _show_file(console, inspection)
    _show_convention(console, inspection)
    _show_ports(console, inspection)


def _propose(model: Path, others: Mapping[str, object]) -> None:
    from onnxfix.cli.console import people, results
    from onnxfix.errors import UsageError
    from onnxfix.proposal import propose

    for option, value in others.items():
        if value:
            raise UsageError(
                f"this does not go with {option}", where="--propose", hint="it prints TOML, and asks nobody"
            )
    proposal = propose(model)
    results().out(proposal.text.rstrip(), highlight=False)
    if proposal.known is not None:
        remark = f"note  the model speaks {proposal.known}: nothing needs to be proposed"
    else:
        remark = "note  look at the axes that are guesses before anything but names is changed"
    people().print(remark, soft_wrap=True)


def _show_file(console: Console, inspection: Inspection) -> None:
    from rich.text import Text

    from onnxfix.cli.console import count_text, print_table
    from onnxfix.report import bytes_text

    title = Text().append(inspection.path, "bold").append(f"  {bytes_text(inspection.bytes)}")
    console.print(title, soft_wrap=True)
    rows = _grid()
    opsets = ", ".join(f"{domain} {version}" for domain, version in inspection.opsets.items())
    rows.add_row("format", f"IR {inspection.ir_version}, opset {opsets or 'none'}")
    rows.add_row("producer", Text(inspection.producer or "not said"))
    functions = f", {count_text(inspection.functions, 'function')}" if inspection.functions else ""
    rows.add_row("graph", f"{count_text(inspection.nodes, 'node')}{functions}")
    rows.add_row("weights", f"{inspection.parameters:,} in {bytes_text(inspection.parameter_bytes)}")
    for file in inspection.data_files:
        size = "" if file.size is None else f" of {bytes_text(file.size)}"
        rows.add_row("data file", Text(f"{file.location}: {bytes_text(file.used)}{size} used"))
    if inspection.metadata:
        rows.add_row(
            "metadata", Text("\n").join(Text(f"{key} = {value}") for key, value in inspection.metadata.items())
        )
    print_table(console, rows)


def _show_convention(console: Console, inspection: Inspection) -> None:
    from rich.text import Text

    from onnxfix.cli.console import print_table

    rows = _grid()
    if inspection.convention is not None:
        text = Text().append(inspection.convention, "bold green")
        text.append(f", replaced by {inspection.successor}" if inspection.successor else "")
    elif inspection.ties:
        text = Text(f"ambiguous: {' and '.join(inspection.ties)} fit equally well, say --from", "bold yellow")
    elif inspection.refused is not None:
        text = Text(inspection.refused.name, "bold yellow").append(", which onnxfix does not move")
    else:
        text = Text("none", "bold yellow")
    rows.add_row("convention", text)
    if inspection.refused is not None:
        rows.add_row("", Text(f"- {inspection.refused.reason}"))
        rows.add_row("", Text(f"- {inspection.refused.needs}"))
    for candidate in inspection.candidates:
        if candidate.name == inspection.convention or candidate.name in inspection.ties:
            if inspection.ties:
                rows.add_row("", Text(candidate.name, "bold"))
            for reason in candidate.reasons:
                rows.add_row("", Text(f"- {reason}"))
        elif inspection.convention not in candidate.twins:
            rows.add_row("", Text(f"less likely: {candidate.name}").append(_against(candidate.reasons), "dim"))
    rejections = () if inspection.refused is not None else inspection.rejections
    for name, reason in rejections[:_NEAREST]:
        rows.add_row("", Text(f"not {name}: ").append(reason, "dim"))
    if more := len(rejections[_NEAREST:]):
        rows.add_row("", Text(f"nor {more} more of which it has some ports", "dim"))
    if inspection.convention is None and not inspection.ties and inspection.refused is None:
        rows.add_row("", Text("onnxfix inspect MODEL --propose looks for caches in the graph", "dim"))
    console.print()
    print_table(console, rows)


def _against(reasons: tuple[str, ...]) -> str:
    objections = [reason for reason in reasons if reason.startswith("but ")]
    return f", {'; '.join(objections)}" if objections else ""


def _show_ports(console: Console, inspection: Inspection) -> None:
    from rich.table import Table

    from onnxfix.cli.console import print_table

    for is_input, title, partner in ((True, "inputs", "fed by"), (False, "outputs", "feeds")):
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
        for heading in (title, "dtype", "dims", "what", partner, "layout"):
            table.add_column(heading, overflow="fold")
        for one in inspection.ports:
            if one.is_input is is_input:
                table.add_row(*_cells(one))
        console.print()
        print_table(console, table)


def _cells(one: PortFacts) -> tuple[Text, ...]:
    from rich.text import Text

    from onnxfix.convention.layout import show_dims

    what = one.role
    if one.is_state:
        what = f"state: {one.cache}" + (f", {one.part}" if one.part else "")
    cells = (one.port.dtype, show_dims(one.port.dims), what, one.partner, _layout_text(one))
    return (Text(one.port.name, "bold" if one.is_state else ""), *(Text(cell) for cell in cells))


def _layout_text(one: PortFacts) -> str:
    """Returns the layout with the sizes that are numbers: `layer=12 head=4 time (kv=2 dim=64)`."""
    words = []
    for word in one.layout.split():
        axis = word.strip("()")
        size = one.sizes.get(axis)
        words.append(word.replace(axis, f"{axis}={size}") if isinstance(size, int) else word)
    return " ".join(words)


def _grid() -> Table:
    from rich.table import Table

    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="cyan", no_wrap=True)
    rows.add_column(overflow="fold")
    return rows
