"""`onnxfix inspect MODEL`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import from_option, json_option, read_sizes, size_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from onnxfix.convention.signature import Dim
    from onnxfix.inspection import CandidateFacts, Inspection, PortFacts


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@from_option
@size_option
@json_option
def inspect(model: Path, from_: tuple[str, ...], sizes: tuple[str, ...], as_json: bool) -> None:
    """Show the ports of MODEL, its caches, the convention that they follow and why, and what else the file says."""
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


def _show_file(console: Console, inspection: Inspection) -> None:
    from rich.text import Text

    from onnxfix.cli.console import bytes_text, count_text, print_table

    console.print(Text(inspection.path, "bold").append(f"  {bytes_text(inspection.bytes)}", "not bold"), soft_wrap=True)
    rows = _grid()
    opsets = ", ".join(f"{domain} {version}" for domain, version in inspection.opsets.items())
    rows.add_row("format", f"IR {inspection.ir_version}, opset {opsets or 'none'}")
    rows.add_row("producer", inspection.producer or "not said")
    functions = f", {count_text(inspection.functions, 'function')}" if inspection.functions else ""
    rows.add_row("graph", f"{count_text(inspection.nodes, 'node')}{functions}")
    rows.add_row("weights", f"{inspection.parameters:,} in {bytes_text(inspection.parameter_bytes)}")
    for file in inspection.data_files:
        size = "" if file.size is None else f" of {bytes_text(file.size)}"
        rows.add_row("data file", f"{file.location}: {bytes_text(file.used)}{size} used")
    if inspection.metadata:
        rows.add_row(
            "metadata", Text("\n").join(Text(f"{key} = {value}") for key, value in inspection.metadata.items())
        )
    print_table(console, rows)


def _show_convention(console: Console, inspection: Inspection) -> None:
    from rich.text import Text

    console.print()
    text = Text("convention  ", "cyan")
    if inspection.convention is not None:
        text.append(inspection.convention, "bold green")
        text.append(f", replaced by {inspection.successor}" if inspection.successor else "", "default")
    elif inspection.is_ambiguous:
        best = [one.name for one in inspection.candidates if _rank(one) == _rank(inspection.candidates[0])]
        text.append(f"ambiguous: {' and '.join(best)} fit equally well, say --from", "bold yellow")
    else:
        text.append("none", "bold yellow")
    console.print(text, soft_wrap=True)
    shown = inspection.candidates if inspection.is_ambiguous else inspection.candidates[:1]
    for candidate in shown:
        if inspection.is_ambiguous:
            console.print(f"  {candidate.name}", soft_wrap=True)
        for reason in candidate.reasons:
            console.print(f"  - {reason}", soft_wrap=True)
    for candidate in inspection.candidates[len(shown) :]:
        console.print(
            Text(f"  less likely: {candidate.name}").append(_against(candidate.reasons), "dim"), soft_wrap=True
        )
    for name, reason in inspection.rejections:
        console.print(Text(f"  not {name}: ").append(reason, "dim"), soft_wrap=True)


def _rank(candidate: CandidateFacts) -> tuple[int, int]:
    return (candidate.ports, candidate.score)


def _against(reasons: tuple[str, ...]) -> str:
    objections = [reason for reason in reasons if reason.startswith("but ")]
    return f", {'; '.join(objections)}" if objections else ""


def _show_ports(console: Console, inspection: Inspection) -> None:
    from rich.table import Table

    from onnxfix.cli.console import print_table

    for is_input, title, partner in ((True, "inputs", "fed by"), (False, "outputs", "feeds")):
        ports = [one for one in inspection.ports if one.is_input is is_input]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
        for heading in (title, "dtype", "dims", "what", partner, "layout", "sizes"):
            table.add_column(heading, overflow="fold")
        for one in ports:
            table.add_row(*_cells(one))
        console.print()
        print_table(console, table)


def _cells(one: PortFacts) -> tuple[Text, ...]:
    from rich.text import Text

    from onnxfix.convention.layout import show_dims

    what = f"cache {one.cache}" + (f", {one.part}" if one.part else "") if one.is_state else one.role
    style = "bold" if one.is_state else ""
    cells = (one.port.dtype, show_dims(one.port.dims), what, one.partner, one.layout, _sizes_text(one.sizes))
    return (Text(one.port.name, style), *(Text(cell) for cell in cells))


def _sizes_text(sizes: Mapping[str, Dim]) -> str:
    return ", ".join(f"{axis} {'?' if size is None else size}" for axis, size in sizes.items())


def _grid() -> Table:
    from rich.table import Table

    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="cyan", no_wrap=True)
    rows.add_column(overflow="fold")
    return rows
