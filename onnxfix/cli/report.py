"""`onnxfix report OUT`, and the reports that every migration leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from onnxfix.errors import ExitCode, OnnxfixError, UsageError

if TYPE_CHECKING:
    from onnxfix.zoo.reports.format import Summary
    from onnxfix.zoo.state import StateFolder

_FILE = click.Path(path_type=Path)
_EPILOG = """\b
Examples:
  onnxfix report migrated
  onnxfix report migrated --junit build/models.xml
  onnxfix report migrated -o public

\b
Exit codes: 0 written, whatever became of the models; 2 usage; 3 the journal
cannot be read, or a report cannot be written; 70 a bug in onnxfix;
130 interrupted.
"""


@click.command(epilog=_EPILOG)
@click.argument("out")
@click.option("--html", type=_FILE, metavar="FILE", help="Write the page: a table that sorts, filters and searches.")
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write all that is known, a model a line.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, one test case for each model.")
@click.option("--csv", type=_FILE, metavar="FILE", help="Write a table.")
@click.option("--output", "-o", "folder", type=_FILE, metavar="FOLDER", help="Write all of them into a folder.")
@click.option(
    "--state", "home", type=_FILE, metavar="FOLDER",
    help="Where the journals of remote destinations are kept on this machine.  [default: the user's]",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def report(
    out: str, html: Path | None, json_: Path | None, junit: Path | None, csv: Path | None, folder: Path | None,
    home: Path | None, quiet: bool,
) -> int:  # fmt: skip
    """Tell what became of the models that were migrated to OUT, from its journal.

    OUT is a folder or a URL. Without options, the reports in OUT/.onnxfix are made again. A migration may be at work
    there.
    """
    from onnxfix.cli.report_files import require_free
    from onnxfix.zoo.reports.writing import report_files, write_reports
    from onnxfix.zoo.state import open_state
    from onnxfix.zoo.stores.places import open_store, place_of

    state = open_state(open_store(place_of(out)), home)
    with state.reading_what_was_done():
        pass
    asked = {"html": html, "json": json_, "junit": junit, "csv": csv}
    files = {kind: path for kind, path in asked.items() if path is not None}
    places = [(f"--{kind} {path}", path) for kind, path in files.items()]
    is_own = folder is None and not files
    if folder is not None or is_own:
        if is_own:
            state.make()
        files = {**report_files(folder or state.path), **files}
        places += [(str(path), path) for kind, path in files.items() if asked[kind] is None]
    journal = [state.journal.with_name(state.journal.name + end) for end in ("", "-wal", "-shm")]
    require_free(places, [*journal, state.path / "lock"])
    summary = write_reports(state, files)
    names = state.publish(files.values()) if is_own else [str(path) for path in files.values()]
    if not quiet:
        _show(summary, dict(zip(names, files.values(), strict=True)))
    return ExitCode.OK


def _show(summary: Summary, files: dict[str, Path]) -> None:
    from rich.text import Text

    from onnxfix.cli.console import people
    from onnxfix.report import bytes_text

    console = people()
    told = ", ".join(f"{count:,} {'not done' if word == 'waiting' else word}" for word, count in summary.counts.items())
    console.print(Text(told or "no models"), soft_wrap=True)
    for name, path in files.items():
        size = bytes_text(path.stat().st_size)
        console.print(Text("wrote ").append(name, "bold").append(f" ({size})", "dim"), soft_wrap=True)


class LeavingReports:
    """Writes the reports of a migration when it ends, however it ends: a context manager around it.

    That they cannot be written is a warning, and no failure of the migration.

    Attributes:
        state: What belongs to the destination; None as long as there is nothing to report.
        page: Where the page is that was written; None where there is none.
    """

    def __init__(self) -> None:
        self.state: StateFolder | None = None
        self.page: str | None = None

    def __enter__(self) -> LeavingReports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from onnxfix.zoo.journal import JournalError
        from onnxfix.zoo.stores.store import StoreError

        if self.state is None or isinstance(error, UsageError | JournalError | StoreError):
            return
        if not self.state.journal.exists():
            return
        from onnxfix.zoo.reports.writing import leave_reports

        try:
            self.page = leave_reports(self.state)
        except Exception as trouble:  # a fault in a report is no fault of the models
            _warn(self.state.out.place, trouble)


def _warn(out: str, trouble: Exception) -> None:
    from rich.text import Text

    from onnxfix.cli.console import people

    reason = trouble.message if isinstance(trouble, OnnxfixError) else f"{type(trouble).__name__}: {trouble}"
    text = Text("warning", "yellow").append(f"  no reports: {reason}; `onnxfix report {out}` makes them", "default")
    people().print(text, soft_wrap=True)
