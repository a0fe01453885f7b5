"""How a command failed, as facts for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxfix.errors import ExitCode, LayoutError, OnnxfixError

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
    """

    kind: str
    message: str
    exit_code: ExitCode
    where: str = ""
    hint: str = ""
    text: str | None = None
    span: tuple[int, int] | None = None

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
        return {"outcome": "failed", "error": facts}


def failure_of(error: OnnxfixError) -> Failure:
    """Returns the facts of an error."""
    failure = Failure(type(error).__name__, error.message, error.exit_code, error.where, error.hint)
    return replace(failure, text=error.text, span=error.span) if isinstance(error, LayoutError) else failure
