"""How far a conversion is, on one line that is gone afterwards; only on a terminal."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_STAGES = {
    "load": "reading the model",
    "plan": "planning",
    "simplify": "simplifying the graph",
    "rewrite": "rewriting the caches",
    "check": "checking the graph",
    "write": "writing",
    "verify": "driving source and result",
    "bisect": "looking for the place inside the graph",
}


class StageProgress:
    """Shows the stage that runs, and its steps where it has any; called with stage, steps done and steps in all."""

    def __init__(self, is_quiet: bool) -> None:
        self._bar: Progress | None = None
        self._stream: TextIO | None = None
        self._task: TaskID | None = None
        self._is_shown = not is_quiet and sys.stderr.isatty()

    def __enter__(self) -> StageProgress:
        if self._is_shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            # A descriptor of its own: while onnxsim runs, everything that it writes to standard error is thrown away.
            encoding = sys.stderr.encoding or "ascii"
            self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=encoding, errors="replace")
            self._bar = Progress(
                SpinnerColumn("dots" if encoding.lower().startswith("utf") else "line"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self._stream, markup=False, highlight=False, emoji=False),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and self._stream is not None:
            self._bar.stop()
            self._stream.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows how far the conversion is."""
        if self._bar is None or self._task is None:
            return
        self._bar.update(self._task, description=stage_text(stage, done, total), completed=done, total=total or None)


def stage_text(stage: str, done: int, total: int) -> str:
    """Returns a stage of a conversion for people."""
    return _STAGES.get(stage, stage) + (f", tick {done} of {total}" if total else "")
