"""How far a migration is: a bar, counts, and the models in work; gone afterwards, and on a terminal only."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from onnxfix.cli.progress import stage_text
from onnxfix.verify.render.escaping import shown
from onnxfix.zoo.migration import Watcher
from onnxfix.zoo.outcome import WORDS, Outcome
from onnxfix.zoo.pool import Ended, Event, Moved, Started

STYLES = {"failed": "red", "refused": "bold red", "would-change": "yellow", "skipped": "dim"}
"""How outcomes look; others are green."""


class ZooProgress(Watcher):
    """Shows the migration while it runs; as a context manager it takes itself away."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_shown = not is_quiet and sys.stderr.isatty()
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, str] = {}
        self._started = time.monotonic()
        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar = Progress(
            BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"), console=console,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._live = Live(console=console, transient=True, get_renderable=self.picture, refresh_per_second=8)

    def __enter__(self) -> ZooProgress:
        if self._is_shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._live.stop()

    def picture(self) -> Group:
        """Returns what is seen now."""
        counts = Text()
        for word in (word for word in WORDS if self._counts[word]):
            counts.append(f"{self._counts[word]} {word}  ", STYLES.get(word, "green"))
        models = [Text(f"  {shown(path)}  {stage}", "dim", overflow="ellipsis") for path, stage in self._stages.items()]
        return Group(self._bar, counts, *models)

    def planned(self, total: int, kept: int) -> None:
        """Is told how many models there are."""
        self._started = time.monotonic()
        self._bar.reset(self._task, total=total - kept)

    def happened(self, event: Event) -> None:
        """Is told what a process does."""
        if isinstance(event, Started):
            self._stages[event.task.path] = ""
        elif isinstance(event, Moved):
            told = event.told
            self._stages[event.task.path] = stage_text(told.stage, told.done, told.total)
        elif isinstance(event, Ended):
            self._stages.pop(event.task.path, None)

    def ended(self, path: str, outcome: Outcome) -> None:
        """Is told what became of a model."""
        self._counts[outcome.word] += 1
        done = sum(self._counts.values())
        text = rate_text(done, time.monotonic() - self._started)
        self._bar.update(self._task, completed=done, description=text)


def rate_text(done: int, seconds: float) -> str:
    """Returns how many models were done in a second or, if that is less than one, in a minute."""
    rate = done / max(1e-3, seconds)
    return f"{rate:.1f} a second" if rate >= 1 else f"{rate * 60:.1f} a minute"
