"""What a conversion did, or would do, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxfix.cli.console import count_text, print_table
from onnxfix.report import ConversionReport, Outcome, bytes_text, copied_text

if TYPE_CHECKING:
    from onnxfix.sidefiles.change import SideFile
    from onnxfix.surgery.copies import Copies
    from onnxfix.verify.report import VerifyReport

_FEW = 3
"""Ports of one cache that are still listed one by one."""
_GONE, _NEW, _QUIET = "red", "green", "dim"


def show_report(console: Console, report: ConversionReport) -> None:
    """Prints what a conversion did."""
    if report.outcome is Outcome.UNCHANGED:
        _show_unchanged(console, report)
        return
    rows = _grid()
    for kind in ("inputs", "outputs"):
        before, after = _port_lines(report, kind)
        rows.add_row(kind, before)
        rows.add_row("", Text("-> ", _QUIET) + after)
    rows.add_row("nodes", _nodes(report))
    if report.copies is not None:
        rows.add_row("copies", _copies(report.copies))
    rows.add_row("proof", _proof(report.proof))
    if report.refused:
        rows.add_row("kept", Text(f"adapters, since {_few(report.refused)}"))
    for note in (*report.notes, *(report.proof.notes if report.proof else ())):
        rows.add_row("note", Text(note))
    for file in report.side_files:
        rows.add_row("config", Text("\n".join(file.changes) or f"{file.source.name} stays as it is"))
    rows.add_row("time", _time(report))
    console.print(_headline(report, "converted", "bold green"), soft_wrap=True)
    print_table(console, rows)
    if report.destination:
        console.print(_written(report), soft_wrap=True)
    _show_side_files(console, report.side_files)


def _show_side_files(console: Console, files: Iterable[SideFile]) -> None:
    """Prints where the files beside the model went, and where those are that stood there."""
    for file in files:
        if file.kept is None and file.destination == file.source and not file.is_changed:
            continue
        text = Text("wrote ").append(str(file.destination), "bold")
        console.print(text.append(f", the old one is {file.kept.name}" if file.kept else ""), soft_wrap=True)


def _show_unchanged(console: Console, report: ConversionReport) -> None:
    text = Text().append("unchanged", "bold green").append(f"  the model speaks {report.speaks}")
    text.append(" already" if report.target == report.speaks else f", for which {report.target} is the same")
    console.print(text, soft_wrap=True)
    for note in report.notes:
        console.print(Text().append("note", "cyan").append(f"  {note}"), soft_wrap=True)
    if report.destination:
        console.print(_written(report), soft_wrap=True)
    _show_side_files(console, report.side_files)


def _headline(report: ConversionReport, word: str, style: str) -> Text:
    text = Text().append(word, style).append(f"  {_quoted(report.speaks)}")
    return text.append(" -> ", _QUIET).append(_quoted(report.target), "bold")


def _quoted(convention: str) -> str:
    """Sentences have arrows of their own."""
    return f"'{convention}'" if " " in convention else convention


def _grid() -> Table:
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="cyan", no_wrap=True)
    rows.add_column(overflow="fold")
    return rows


def _port_lines(report: ConversionReport, kind: str) -> tuple[Text, Text]:
    """Returns the ports before and after, those of one cache abbreviated, what went red and what came green."""
    families_before, families_after = [], []
    for cache in report.caches:
        past = kind == "inputs"
        families_before.append(cache.past_before if past else cache.present_before)
        families_after.append(cache.past_after if past else cache.present_after)
    before = [port.name for port in (report.before.inputs if kind == "inputs" else report.before.outputs)]
    after = [port.name for port in (report.after.inputs if kind == "inputs" else report.after.outputs)]
    return (
        _listed(before, families_before, set(before) - set(after), _GONE),
        _listed(after, families_after, set(after) - set(before), _NEW),
    )


def _listed(names: Sequence[str], families: Sequence[Sequence[str]], changed: set[str], style: str) -> Text:
    text = Text()
    for run in _runs(names, families):
        if text:
            text.append(", ", _QUIET)
        marked = style if set(run) & changed else _QUIET
        if len(run) > _FEW:
            text.append(f"{run[0]} ... {run[-1]} ({len(run)})", marked)
        else:
            text.append(", ".join(run), marked)
    return text


def _runs(names: Sequence[str], families: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Yields neighbours that belong to one cache together, all others alone."""
    family_of = {name: index for index, family in enumerate(families) for name in family}
    run: list[str] = []
    for name in names:
        if run and not (name in family_of and family_of.get(run[-1]) == family_of[name]):
            yield run
            run = []
        run.append(name)
    if run:
        yield run


def _nodes(report: ConversionReport) -> Text:
    nodes = report.nodes
    if nodes is None:
        return Text("as they were")
    text = Text(str(nodes.source))
    steps = (
        (nodes.simplified, "simplified"), (nodes.adapters, "with adapters"), (nodes.cancelled, "after cancelling"),
    )  # fmt: skip
    for count, word in steps:
        text.append(" -> ", _QUIET)
        text.append(str(count)).append(f" {word}", _QUIET)
    return text


def _copies(copies: Copies) -> Text:
    """Returns the bytes of cache that are copied per step."""
    text = Text(copied_text(copies.before))
    for count, word in ((copies.adapters, "with adapters"), (copies.after, "after cancelling, per step")):
        text.append(" -> ", _QUIET)
        text.append(copied_text(count)).append(f" {word}", _QUIET)
    return text


def _proof(proof: VerifyReport | None) -> Text:
    if proof is None:
        return Text("none: not verified, nothing is proven", "bold yellow")
    text = Text(f"{count_text(proof.ticks, 'tick')}, {count_text(proof.values, 'value')} compared, ")
    if proof.is_exact:
        text.append("all equal to the bit", style="bold green")
        text.append(" (largest difference 0)")
    else:
        text.append(f"largest difference {proof.max_abs:.3g}", style="bold yellow")
    if proof.not_observable:
        text.append("\nnot observable in the outputs: ", style="yellow").append(_few(proof.not_observable))
    return text


def _few(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_FEW])
    return shown if len(names) <= _FEW else f"{shown}; and {len(names) - _FEW} more"


def _time(report: ConversionReport) -> Text:
    text = Text(f"{sum(report.seconds.values()):.1f} s")
    slow = [f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items() if seconds >= 0.1]
    if slow:
        text.append(f" ({', '.join(slow)})", _QUIET)
    return text


def _written(report: ConversionReport) -> Text:
    path = Path(report.destination)
    if report.outcome is Outcome.UNCHANGED and Path(report.source).exists() and path.samefile(report.source):
        return Text().append(str(path), "bold").append(" stays as it is")
    size = bytes_text(path.stat().st_size)
    return Text("wrote ").append(str(path), "bold").append(f" ({size})", _QUIET)


def show_plan(console: Console, report: ConversionReport) -> None:
    """Prints what a conversion would do."""
    if report.outcome is Outcome.UNCHANGED:
        console.print(f"unchanged: the model speaks {report.speaks} already", soft_wrap=True)
    else:
        console.print(_headline(report, "would convert", "bold yellow"), soft_wrap=True)
    for line in report.plan:
        console.print(f"  {line}", soft_wrap=True)
    for file in report.side_files:
        for line in file.changes:
            console.print(f"  {file.source.name}: {line}", soft_wrap=True)


def show_diff(console: Console, lines: Iterable[str]) -> None:
    """Prints a unified diff."""
    styles = {"---": "bold", "+++": "bold", "@@ ": "cyan"}
    for line in lines:
        style = styles.get(line[:3]) or {"+": _NEW, "-": _GONE}.get(line[:1], "")
        console.print(Text(line, style), soft_wrap=True)
