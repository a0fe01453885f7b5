"""What a migration is asked for, what it has come to, and who looks on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from onnxfix.errors import ExitCode, UsageError
from onnxfix.zoo.limits import Limits
from onnxfix.zoo.outcome import Outcome
from onnxfix.zoo.pool import Event
from onnxfix.zoo.settings import Change
from onnxfix.zoo.stores.places import open_store
from onnxfix.zoo.stores.store import Store
from onnxfix.zoo.survey import Gap


@dataclass(frozen=True)
class Request:
    """What a migration is asked for.

    Attributes:
        out: The destination, a folder or a URL; None in place, or where nothing is written.
        change: What is set for every model.
        limits: How much may be taken.
        is_in_place: Whether results take the places of their sources.
        has_backup: Whether these are kept.
        only_models: Whether other files stay behind.
        is_fresh: Whether what an earlier run did counts for nothing.
        home: For a destination elsewhere: the folder of this machine that holds what belongs to it; None: the user's.
    """

    out: Path | str | None = None
    change: Change = field(default_factory=Change)
    limits: Limits = field(default_factory=Limits)
    is_in_place: bool = False
    has_backup: bool = True
    only_models: bool = False
    is_fresh: bool = False
    home: Path | None = None

    def destination(self, zoo: Store) -> Store | None:
        """Returns where results go; None where they go nowhere.

        Args:
            zoo: The zoo.

        Raises:
            UsageError: Results would stand among their sources.
        """
        if self.is_in_place:
            if zoo.folder is None:
                hint = "migrate it to another place, and let that take its place when you have seen it"
                raise UsageError("only a folder of this machine is migrated in place", where=zoo.place, hint=hint)
            return zoo
        if self.out is None:
            return None
        out = open_store(self.out)
        real, root = out.identity, zoo.identity
        if real == root:
            hint = "--in-place replaces the models, and keeps what they were"
            raise UsageError("the destination is the zoo itself", where=out.place, hint=hint)
        if PurePath(root).is_relative_to(real):
            hint = "choose a folder beside the zoo, or in it"
            raise UsageError("the zoo lies in the destination", where=out.place, hint=hint)
        return out


@dataclass(frozen=True)
class Migration:
    """What a migration has come to.

    Attributes:
        root: The zoo.
        out: The destination; None where nothing is written.
        outcomes: What became of each model, by path; without ports, plans and proofs, which the journal has.
        kept: How many models an earlier run had done.
        copied: How many other files were copied.
        gaps: What was not looked at, or could not be copied.
        notes: What the user should know.
    """

    root: str
    out: str | None
    outcomes: tuple[tuple[str, Outcome], ...]
    kept: int = 0
    copied: int = 0
    gaps: tuple[Gap, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many models had each outcome, by its word."""
        return Counter(outcome.word for _, outcome in self.outcomes)

    @property
    def exit_code(self) -> ExitCode:
        """The worst outcome's; not converted where models may have been missed."""
        missed = [ExitCode.NOT_CONVERTED for gap in self.gaps if gap.is_error]
        return max([ExitCode.OK, *missed, *(outcome.exit_code for _, outcome in self.outcomes)])


class Watcher:
    """Somebody who looks on; this one does nothing."""

    def planned(self, total: int, kept: int) -> None:
        """Is told how many models there are, and how many of them are done already."""

    def happened(self, event: Event) -> None:
        """Is told that a process has begun with a model, how far it is, or that it has ended."""

    def ended(self, path: str, outcome: Outcome) -> None:
        """Is told what became of a model."""
