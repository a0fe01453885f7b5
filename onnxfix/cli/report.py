"""`onnxfix report OUT`, and the reports that every migration leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from onnxfix.errors import ExitCode, OnnxfixError, UsageError

if TYPE_CHECKING:
    from onnxfix.zoo.reports.format import Summary

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
@click.argument("out", type=_FILE)
@click.option("--html", type=_FILE, metavar="FILE", help="Write the page: a table that sorts, filters and searches.")
@click.option("--json", "json_", type=_FILE, metavar="FILE", help="Write all that is known, a model a line.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, one test case for each model.")
@click.option("--csv", type=_FILE, metavar="FILE", help="Write a table.")
@click.option("--output", "-o", "folder", type=_FILE, metavar="FOLDER", help="Write all of them into a folder.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
def report(
    out: Path, html: Path | None, json_: Path | None, junit: Path | None, csv: Path | None, folder: Path | None,
    quiet: bool,
) -> int:  # fmt: skip
    """Tell what became of the models that were migrated to OUT, from its journal.

    Without options, the reports in OUT/.onnxfix are made again. A migration may be at work there.
    """
    from onnxfix.cli.report_files import require_free
    from onnxfix.zoo.reports.writing import report_files, write_reports
    from onnxfix.zoo.state import StateFolder

    state = StateFolder(out)
    state.require_journal()
    asked = {"html": html, "json": json_, "junit": junit, "csv": csv}
    files = {kind: path for kind, path in asked.items() if path is not None}
    places = [(f"--{kind} {path}", path) for kind, path in files.items()]
    if folder is not None or not files:
        files = {**report_files(folder or state.path), **files}
        places += [(str(path), path) for kind, path in files.items() if asked[kind] is None]
    journal = [state.journal.with_name(state.journal.name + end) for end in ("", "-wal", "-shm")]
    require_free(places, [*journal, state.path / "lock"])
    summary = write_reports(out, files)
    if not quiet:
        _show(summary, files)
    return ExitCode.OK


def _show(summary: Summary, files: dict[str, Path]) -> None:
    from rich.text import Text

    from onnxfix.cli.console import people
    from onnxfix.report import bytes_text

    console = people()
    told = ", ".join(f"{count:,} {'not done' if word == 'waiting' else word}" for word, count in summary.counts.items())
    console.print(Text(told or "no models"), soft_wrap=True)
    for path in files.values():
        size = bytes_text(path.stat().st_size)
        console.print(Text("wrote ").append(str(path), "bold").append(f" ({size})", "dim"), soft_wrap=True)


class LeavingReports:
    """Writes the reports of a migration when it ends, however it ends: a context manager around it.

    That they cannot be written is a warning, and no failure of the migration.

    Attributes:
        out: The destination; None as long as there is nothing to report.
        page: The page that was written; None where there is none.
    """

    def __init__(self) -> None:
        self.out: Path | None = None
        self.page: Path | None = None

    def __enter__(self) -> LeavingReports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from onnxfix.zoo.journal import JournalError
        from onnxfix.zoo.state import StateFolder

        if self.out is None or isinstance(error, UsageError | JournalError):
            return
        if not StateFolder(self.out).journal.exists():
            return
        try:
            self.page = self._write(self.out)
        except Exception as trouble:  # a fault in a report is no fault of the models
            _warn(self.out, trouble)

    def _write(self, out: Path) -> Path:
        from onnxfix.zoo.reports.writing import report_files, write_reports
        from onnxfix.zoo.state import StateFolder

        files = report_files(StateFolder(out).path)
        write_reports(out, files)
        return files["html"]


def _warn(out: Path, trouble: Exception) -> None:
    from rich.text import Text

    from onnxfix.cli.console import people

    reason = trouble.message if isinstance(trouble, OnnxfixError) else f"{type(trouble).__name__}: {trouble}"
    text = Text("warning", "yellow").append(f"  no reports: {reason}; `onnxfix report {out}` makes them", "default")
    people().print(text, soft_wrap=True)
