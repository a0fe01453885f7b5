"""What can become of a model: a union of small frozen classes, that travel between processes and are stored as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from onnxfix.errors import ExitCode

if TYPE_CHECKING:
    from onnxfix.report import ConversionReport, Json
    from onnxfix.verify.report import VerifyReport

    Facts: TypeAlias = Mapping[str, Json]


class Mishap(StrEnum):
    """What can happen to a process that works on a model; other failures are called by the name of their error."""

    CRASHED = "Crashed"
    HUNG = "Hung"
    OUT_OF_MEMORY = "OutOfMemory"
    CHANGED = "SourceChanged"
    BUG = "Bug"


@dataclass(frozen=True)
class Converted:
    """The model was converted, and its result proven.

    Attributes:
        speaks: The convention of the source.
        target: That of the result.
        facts: Ports, caches, plan, counts and proof, as `facts_of` tells them.
    """

    word: ClassVar[str] = "converted"
    speaks: str
    target: str
    facts: Facts = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.OK


@dataclass(frozen=True)
class Unchanged:
    """The model speaks what was asked for already.

    Attributes:
        speaks: What it speaks.
        facts: As in `Converted`.
    """

    word: ClassVar[str] = "unchanged"
    speaks: str
    facts: Facts = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.OK


@dataclass(frozen=True)
class WouldChange:
    """The model would be converted: nothing is written.

    Attributes:
        speaks: The convention of the source.
        target: That of the result.
        facts: As in `Converted`.
    """

    word: ClassVar[str] = "would-change"
    speaks: str
    target: str
    facts: Facts = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.WOULD_CHANGE


@dataclass(frozen=True)
class Verified:
    """A result that was made earlier was proven again.

    Attributes:
        against: What it was held against: `original` or `trace`.
        facts: The proof.
    """

    word: ClassVar[str] = "verified"
    against: str
    facts: Facts = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.OK


@dataclass(frozen=True)
class Skipped:
    """The model is none to convert.

    Attributes:
        reason: Why.
    """

    word: ClassVar[str] = "skipped"
    reason: str

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.OK


@dataclass(frozen=True)
class Failed:
    """The model could not be converted, or the process that worked on it came to grief.

    Attributes:
        kind: The name of the error, or a `Mishap`.
        message, where, hint: As in `OnnxfixError`.
        log: What the process said last, where it ended before it could tell.
    """

    word: ClassVar[str] = "failed"
    kind: str
    message: str
    where: str = ""
    hint: str = ""
    log: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.BUG if self.kind == Mishap.BUG else ExitCode.NOT_CONVERTED


@dataclass(frozen=True)
class Refused:
    """The model was converted, and the result is not what the source is, or that cannot be proven.

    Attributes:
        kind: The name of the error.
        message, where, hint: As in `OnnxfixError`.
        facts: What was compared, where it came to that.
    """

    word: ClassVar[str] = "refused"
    kind: str
    message: str
    where: str = ""
    hint: str = ""
    facts: Facts = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a migration that has nothing worse."""
        return ExitCode.NOT_VERIFIED


Outcome: TypeAlias = Converted | Unchanged | WouldChange | Verified | Skipped | Failed | Refused
_CLASSES: Mapping[str, Callable[..., Outcome]] = {
    one.word: one for one in (Converted, Unchanged, WouldChange, Verified, Skipped, Failed, Refused)
}
WORDS = tuple(_CLASSES)
"""What outcomes are called, the good ones first."""


def brief(outcome: Outcome) -> Outcome:
    """Returns an outcome without ports, plans and proofs."""
    return outcome if isinstance(outcome, Skipped | Failed) else replace(outcome, facts={})


def outcome_to_json(outcome: Outcome) -> dict[str, Json]:
    """Returns an outcome as plain JSON values."""
    return {"outcome": outcome.word, **vars(outcome)}


def outcome_from_json(value: Mapping[str, object]) -> Outcome:
    """Returns the outcome that `outcome_to_json` told.

    Raises:
        ValueError: It told none.
    """
    fields = dict(value)
    kind = _CLASSES.get(str(fields.pop("outcome", "")))
    if kind is None:
        raise ValueError("this is no outcome")
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from None


def facts_of(report: ConversionReport) -> dict[str, Json]:
    """Returns what a conversion did, without the names of files and the times that it took."""
    facts = report.to_json()
    for key in ("outcome", "source", "destination", "from", "to", "seconds", "proof"):
        facts.pop(key)
    return {**facts, "proof": None if report.proof is None else proof_facts(report.proof)}


def proof_facts(proof: VerifyReport) -> dict[str, Json]:
    """Returns what was compared; of each output the largest difference tick by tick."""
    from onnxfix.verify.report import number_to_json

    facts = proof.to_json()
    for key in ("source", "result", "seconds"):
        facts.pop(key)
    runs: list[Json] = []
    for run in proof.runs:
        ports: list[Json] = [
            {
                "name": port.name, "is_state": port.is_state, "dtype": port.dtype, "values": port.values,
                "mismatched": port.mismatched,
                "max_abs": [number_to_json(tick.difference.max_abs) for tick in port.ticks],
            }
            for port in run.ports
        ]  # fmt: skip
        runs.append({"provider": run.provider, "start": run.start, "passed": run.passed, "ports": ports})
    return {**facts, "runs": runs}
