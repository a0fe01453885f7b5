"""How a command failed, as facts for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxfix.errors import ExitCode, LayoutError, OnnxfixError, VerifyError

if TYPE_CHECKING:
    from onnxfix.report import Json


@dataclass(frozen=True)
class Failure:
    """What is wrong, where, what to do about it, and the exit code.

    Attributes:
        kind: The name of the error.
        message, where, hint: As in `OnnxfixError`.
        exit_code: The exit code.
        text, span: The text that does not parse, and the place in it; None for other errors.
        proof: What was compared, where it came to that; empty for other errors.
    """

    kind: str
    message: str
    exit_code: ExitCode
    where: str = ""
    hint: str = ""
    text: str | None = None
    span: tuple[int, int] | None = None
    proof: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Returns the facts."""
        facts: dict[str, Json] = {
            "kind": self.kind,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "exit_code": int(self.exit_code),
        }
        if self.span is not None:
            facts |= {"text": self.text, "span": list(self.span)}
        return {"outcome": "failed", "error": facts, **({"proof": dict(self.proof)} if self.proof else {})}


def failure_of(error: OnnxfixError) -> Failure:
    """Returns the facts of an error."""
    failure = Failure(type(error).__name__, error.message, error.exit_code, error.where, error.hint)
    if isinstance(error, LayoutError):
        return replace(failure, text=error.text, span=error.span)
    if isinstance(error, VerifyError):
        from onnxfix.verify.report import DifferenceError

        if isinstance(error, DifferenceError):
            return replace(failure, proof={**error.report.to_json(), "culprit": error.culprit})
    return failure
