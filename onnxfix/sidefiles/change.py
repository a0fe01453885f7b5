"""What becomes of one side file, before anything is written."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxfix.report import Json


@dataclass(frozen=True)
class Beside:
    """A file that lies beside a model.

    Attributes:
        source: Where it lies.
        destination: Where it goes: beside the result.
        text: What it holds.
        old, new: The name of the model's file, and of the result's.
    """

    source: Path
    destination: Path
    text: str
    old: str
    new: str

    def becomes(self, text: str, changes: Sequence[str], notes: Sequence[str]) -> SideFile:
        """Returns the file with another text."""
        return SideFile(self.source, self.destination, self.text, text, tuple(changes), tuple(notes))


@dataclass(frozen=True)
class SideFile:
    """A file beside the model, before and after.

    Attributes:
        source: Where it lies.
        destination: Where it goes: beside the result.
        before, after: Its text.
        changes: What is different in it, one line each.
        notes: What the user should know about it.
        kept: Where the file that stood at the destination is kept; None where none stood there, or where nothing was
            written (yet).
    """

    source: Path
    destination: Path
    before: str
    after: str
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kept: Path | None = None

    @property
    def is_changed(self) -> bool:
        """Whether the text is another one."""
        return self.before != self.after

    def diff(self) -> list[str]:
        """Returns the unified diff of the two texts, without line ends."""
        before, after = self.before.splitlines(), self.after.splitlines()
        return list(difflib.unified_diff(before, after, str(self.source), str(self.destination), lineterm=""))

    def to_json(self) -> dict[str, Json]:
        """Returns the facts: paths, and what is different."""
        return {
            "source": str(self.source),
            "destination": str(self.destination),
            "changes": list(self.changes),
            "kept": None if self.kept is None else str(self.kept),
        }
