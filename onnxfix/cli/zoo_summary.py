"""What a migration has come to: for people, and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxfix.cli.console import count_text, print_table
from onnxfix.cli.zoo_progress import STYLES, rate_text
from onnxfix.zoo.outcome import WORDS, Failed, Outcome, Refused, outcome_to_json

if TYPE_CHECKING:
    from onnxfix.report import Json
    from onnxfix.zoo.migration import Migration

_MOST = 20
"""Models whose errors are told in full; of others the names are."""


def show_migration(console: Console, migration: Migration, seconds: float, *, is_quiet: bool = False) -> None:
    """Prints counts and what went wrong; if people want it quiet, only what went wrong."""
    if not is_quiet:
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(style="cyan", no_wrap=True)
        rows.add_column(justify="right")
        for word in (word for word in WORDS if migration.counts.get(word)):
            rows.add_row(Text(word, STYLES.get(word, "green")), Text(f"{migration.counts[word]:,}"))
        print_table(console, rows)
    bad = [(path, one) for path, one in migration.outcomes if isinstance(one, Failed | Refused)]
    bad.sort(key=lambda entry: (not isinstance(entry[1], Refused), entry[0]))
    for path, outcome in bad[:_MOST]:
        console.print(_trouble(path, outcome), soft_wrap=True)
    if rest := bad[_MOST:]:
        names = ", ".join(printable(path) for path, _ in rest)
        console.print(Text(f"and {count_text(len(rest), 'more model')}: {names}"), soft_wrap=True)
    for gap in migration.gaps:
        if gap.is_error or not is_quiet:
            word, style = ("missed", "bold red") if gap.is_error else ("note", "cyan")
            console.print(Text(word, style).append(f"  {printable(gap.path)}: {gap.reason}", "default"), soft_wrap=True)
    if is_quiet:
        return
    for note in migration.notes:
        console.print(Text("note", "cyan").append(f"  {printable(note)}", "default"), soft_wrap=True)
    for line in _closing(migration, seconds):
        console.print(line, soft_wrap=True)


def _trouble(path: str, outcome: Failed | Refused) -> Text:
    text = Text(outcome.word, STYLES[outcome.word]).append(f"  {printable(path)}", "bold")
    text.append(f": {outcome.where}: " if outcome.where else ": ", "default").append(outcome.message, "default")
    return text.append(f"\n  {outcome.hint}", "cyan") if outcome.hint else text


def _closing(migration: Migration, seconds: float) -> list[Text]:
    done = len(migration.outcomes) if migration.out is None else len(migration.outcomes) - migration.kept
    rate = f", {rate_text(done, seconds)}" if done else ""
    lines = [Text(f"time  {seconds:.1f} s for {count_text(done, 'model')}{rate}", "dim")]
    if migration.kept:
        lines.append(Text(f"{count_text(migration.kept, 'model')} were done already"))
    if migration.copied:
        lines.append(Text(f"{count_text(migration.copied, 'other file')} copied"))
    return lines


def printable(text: str) -> str:
    """Returns a name on one line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def migration_to_json(migration: Migration, seconds: float) -> dict[str, Json]:
    """Returns what a migration has come to as plain JSON values."""
    return {
        "zoo": str(migration.root),
        "out": None if migration.out is None else str(migration.out),
        "exit_code": int(migration.exit_code),
        "counts": {word: migration.counts[word] for word in WORDS if migration.counts.get(word)},
        "kept": migration.kept,
        "copied": migration.copied,
        "models": [{"path": path, **_brief(outcome)} for path, outcome in migration.outcomes],
        "gaps": [{"path": gap.path, "reason": gap.reason, "is_error": gap.is_error} for gap in migration.gaps],
        "notes": list(migration.notes),
        "seconds": round(seconds, 4),
    }


def _brief(outcome: Outcome) -> dict[str, Json]:
    return {key: value for key, value in outcome_to_json(outcome).items() if key != "facts"}
