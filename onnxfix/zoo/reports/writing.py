"""The reports of a migration, written from its journal in one go: each file whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onnxfix import __version__
from onnxfix.errors import ModelWriteError
from onnxfix.model.atomic import NewFile, sweep
from onnxfix.zoo.journal import Journal
from onnxfix.zoo.reports.format import ORDER, Format, Summary, Told
from onnxfix.zoo.reports.junit import JunitFormat
from onnxfix.zoo.reports.listing import CsvFormat, JsonFormat
from onnxfix.zoo.reports.page import PageFormat
from onnxfix.zoo.state import StateFolder

NAMES = {"html": "report.html", "json": "report.json", "csv": "report.csv", "junit": "junit.xml"}
"""What the reports are called in a folder."""
_FORMATS: Mapping[str, Callable[[], Format]] = {
    "html": PageFormat, "json": JsonFormat, "csv": CsvFormat, "junit": JunitFormat,
}  # fmt: skip


def report_files(folder: Path) -> dict[str, Path]:
    """Returns where all reports lie in a folder, by format."""
    return {kind: folder / name for kind, name in NAMES.items()}


def leave_reports(state: StateFolder) -> str:
    """Writes all reports to where a migration leaves them, and returns where the page is.

    Args:
        state: What belongs to the destination of the migration.

    Raises:
        UsageError: Nothing was migrated there.
        JournalError: The journal cannot be read.
        ModelWriteError: A report cannot be written.
        StoreError: The destination is elsewhere, and does not answer.
    """
    files = report_files(state.path)
    write_reports(state, files)
    return state.publish(files.values())[0]


def write_reports(out: Path | StateFolder, files: Mapping[str, Path]) -> Summary:
    """Writes what the journal of a migration says, as it is at this moment; a migration may be at work.

    Args:
        out: The destination of the migration, or what belongs to it; in place, the zoo.
        files: Where the reports go, by format: `html`, `json`, `csv`, `junit`.

    Raises:
        UsageError: Nothing was migrated there.
        JournalError: The journal cannot be read.
        ModelWriteError: A report cannot be written.
    """
    state = StateFolder(out) if isinstance(out, Path) else out
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(state.reading_what_was_done())
        journal = stack.enter_context(Journal(path, is_read_only=True))
        stack.enter_context(journal.still())
        summary = _summary(state.out.identity, journal)
        drafts = [stack.enter_context(_Draft.begun(kind, path)) for kind, path in files.items()]
        for draft in drafts:
            draft.write(draft.format.start(summary))
        for entry in journal.entries():
            told = Told(entry)
            for draft in drafts:
                draft.write(draft.format.row(told))
        for draft in drafts:
            draft.write(draft.format.end())
            draft.finish()
        for draft in drafts:
            draft.move()
    return summary


def _summary(out: str, journal: Journal) -> Summary:
    about, found = journal.about(), journal.counts()
    counts = {word: found[word] for word in ORDER if found.get(word)}
    is_in_place = about.get("mode") == "in-place"
    return Summary(about.get("zoo", ""), out, is_in_place, __version__, counts, journal.seconds())


@dataclass(frozen=True)
class _Draft:
    """A report that is being written, under a hidden name; as a context manager it goes unless it was moved."""

    path: Path
    format: Format
    new: NewFile
    text: IO[str]

    @staticmethod
    def begun(kind: str, path: Path) -> _Draft:
        with _writing(path):
            sweep(path)
            new = NewFile(path)
            text = new.path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        return _Draft(path, _FORMATS[kind](), new, text)

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # what is still buffered is not wanted any more
            self.text.close()
        self.new.discard()

    def write(self, text: str) -> None:
        with _writing(self.path):
            self.text.write(text)

    def finish(self) -> None:
        """Brings the file down to the disk."""
        with _writing(self.path):
            self.text.close()
            self.new.write([])

    def move(self) -> None:
        with _writing(self.path):
            self.new.move(self.path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Lets the block write a report, and says what is wrong with it."""
    try:
        yield
    except OSError as error:
        hint = "make space and run `onnxfix report`" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        message = f"the report cannot be written: {error.strerror or error}"
        raise ModelWriteError(message, where=str(path), hint=hint) from None
