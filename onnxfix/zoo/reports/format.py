"""What every report of a migration is: a beginning, a piece for each model, and an end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from onnxfix.zoo.journal import Entry, State
from onnxfix.zoo.outcome import WORDS, Converted, Failed, Refused, Skipped, Unchanged, WouldChange
from onnxfix.zoo.reports.facts import Facts, facts_told

WAITING = "waiting"
"""What models are called that are not done."""
ORDER = (*WORDS, WAITING)


@dataclass(frozen=True)
class Summary:
    """What is told of the migration as a whole.

    Attributes:
        zoo: Where the models came from.
        out: Where the results went.
        is_in_place: Whether they took the places of their sources.
        version: The onnxfix that tells it.
        counts: How many models had each outcome, the good ones first.
        seconds: How long the work on all of them took.
    """

    zoo: str
    out: str
    is_in_place: bool
    version: str
    counts: Mapping[str, int]
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """How many models there are."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Told:
    """What there is to tell of a model.

    Attributes:
        entry: What the journal says.
    """

    entry: Entry

    @cached_property
    def facts(self) -> Facts:
        """What the conversion did."""
        return facts_told(self.entry.outcome)

    @property
    def path(self) -> str:
        """The model, below the root of the zoo."""
        return self.entry.row.path

    @property
    def word(self) -> str:
        """What became of it, in a word."""
        return WAITING if self.entry.outcome is None else self.entry.outcome.word

    @property
    def speech(self) -> tuple[str, str]:
        """The conventions of source and result; empty where they are not known."""
        outcome = self.entry.outcome
        if isinstance(outcome, Converted | WouldChange):
            return outcome.speaks, outcome.target
        return (outcome.speaks, "") if isinstance(outcome, Unchanged) else ("", "")

    @property
    def reason(self) -> str:
        """Why it was not converted, in one sentence; empty where it was."""
        outcome = self.entry.outcome
        if isinstance(outcome, Failed | Refused):
            return f"{outcome.where}: {outcome.message}" if outcome.where else outcome.message
        if outcome is None:
            return {State.WAITING: "not begun", State.RUNNING: "begun"}.get(self.entry.row.state, "not delivered")
        return outcome.reason if isinstance(outcome, Skipped) else ""

    @property
    def seconds(self) -> float:
        """How long the work on it took."""
        return self.entry.seconds.get("all", 0.0)


def seconds_text(seconds: float) -> str:
    """Returns how long something took, in words."""
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


class Format(Protocol):
    """Writes one kind of report, model by model: nothing is kept of those that were told."""

    def start(self, summary: Summary) -> str:
        """Returns how the file begins."""

    def row(self, told: Told) -> str:
        """Returns what is written of the next model."""

    def end(self) -> str:
        """Returns how the file ends."""
