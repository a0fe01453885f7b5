"""What a migration has come to: for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxfix.cli.console import count_text, print_table
from onnxfix.cli.zoo_progress import STYLES, rate_text
from onnxfix.verify.render.escaping import shown
from onnxfix.zoo.outcome import WORDS, Failed, Outcome, Refused, outcome_to_json

if TYPE_CHECKING:
    from onnxfix.report import Json
    from onnxfix.zoo.migration import Migration
    from onnxfix.zoo.survey import Gap

_MOST = 20
"""Models whose errors are told in full; of others the names are. Of notes, as many are printed."""


def show_migration(console: Console, migration: Migration, seconds: float, *, is_quiet: bool = False) -> None:
    """Prints counts and what went wrong; if people want it quiet, only what went wrong."""
    if not is_quiet:
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(style="cyan", no_wrap=True)
        rows.add_column(justify="right")
        for word in (word for word in WORDS if migration.counts.get(word)):
            rows.add_row(Text(word, STYLES.get(word, "green")), Text(f"{migration.counts[word]:,}"))
        if migration.outcomes:
            print_table(console, rows)
        elif not (migration.kept or migration.notes):  # with --check, models that are done already have no outcome
            console.print(Text("no models"))
    bad = [(path, one) for path, one in migration.outcomes if isinstance(one, Failed | Refused)]
    bad.sort(key=lambda entry: (not isinstance(entry[1], Refused), entry[0]))
    for path, outcome in bad[:_MOST]:
        console.print(_trouble(path, outcome), soft_wrap=True)
    if rest := bad[_MOST:]:
        names = ", ".join(shown(path) for path, _ in rest)
        console.print(Text(f"and {count_text(len(rest), 'more model')}: {names}"), soft_wrap=True)
    for gap in (gap for gap in migration.gaps if gap.is_error):
        console.print(Text("missed", "bold red").append(f"  {_gap_text(gap)}", "default"), soft_wrap=True)
    if is_quiet:
        return
    for line in (*_noted(migration), *_closing(migration, seconds)):
        console.print(line, soft_wrap=True)


def _trouble(path: str, outcome: Failed | Refused) -> Text:
    text = Text(outcome.word, STYLES[outcome.word]).append(f"  {shown(path)}", "bold")
    text.append(f": {shown(outcome.where)}: " if outcome.where else ": ", "default")
    text.append(shown(outcome.message, keeps_lines=True), "default")
    return text.append(f"\n  {shown(outcome.hint, keeps_lines=True)}", "cyan") if outcome.hint else text


def _noted(migration: Migration) -> Iterator[Text]:
    """Yields what is no error; where there is much of it, the rest of each kind is counted."""
    for texts in ([_gap_text(gap) for gap in migration.gaps if not gap.is_error], [*map(shown, migration.notes)]):
        for text in _first(texts):
            yield Text("note", "cyan").append(f"  {text}", "default")


def _first(notes: Sequence[str]) -> Sequence[str]:
    if len(notes) <= _MOST:
        return notes
    return [*notes[:_MOST], f"and {count_text(len(notes) - _MOST, 'more note')}, which --json has"]


def _gap_text(gap: Gap) -> str:
    return f"{shown(gap.path)}: {shown(gap.reason)}"


def _closing(migration: Migration, seconds: float) -> list[Text]:
    done = len(migration.outcomes) if migration.out is None else len(migration.outcomes) - migration.kept
    rate = f", {rate_text(done, seconds)}" if done else ""
    lines = [Text(f"time  {seconds:.1f} s for {count_text(done, 'model')}{rate}", "dim")]
    if migration.kept:
        were = "was" if migration.kept == 1 else "were"
        lines.append(Text(f"{count_text(migration.kept, 'model')} {were} done already"))
    if migration.copied:
        lines.append(Text(f"{count_text(migration.copied, 'other file')} copied"))
    return lines


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
