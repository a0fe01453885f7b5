"""Where text goes: results to standard output, all else to standard error, colours only where a person looks on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnxfix.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from onnxfix.cli.failure import Failure
    from onnxfix.report import Json

WIDE = 100_000
"""Columns where nobody looks on: nothing is wrapped or cut in a pipe or a file."""


def people() -> Console:
    """Returns the console for people: standard error."""
    return _console(stderr=True)


def results() -> Console:
    """Returns the console for results: standard output."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console  # a quiet command does without

    # Markup stays off: file names may hold brackets.
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def print_table(console: Console, table: Table) -> None:
    """Prints a table, without the blanks behind its lines where nobody looks on."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def print_json(value: Json) -> None:
    """Prints a result for programs."""
    results().out(json.dumps(value, indent=2, ensure_ascii=False), highlight=False)


def show_failure(failure: Failure) -> None:
    """Prints what is wrong, where, and what to do about it."""
    from rich.text import Text

    text = Text().append("" if failure.exit_code is ExitCode.INTERRUPTED else "error: ", "bold red")
    text.append(f"{failure.where}: " if failure.where else "", "bold").append(failure.message)
    if failure.text is not None and failure.span is not None:
        start, stop = failure.span
        text.append(f"\n    {failure.text}\n    ")
        text.append(" " * start + "^" * max(1, stop - start), "bold red")
    if failure.hint:
        text.append(f"\n  {failure.hint}", "cyan")
    people().print(text, soft_wrap=True)


def count_text(count: int, noun: str) -> str:
    """Returns a number with its noun: `1 tick`, `12,345 values`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
