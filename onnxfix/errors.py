"""What can go wrong, as one tree of exceptions, and the exit code that each kind means.

```
OnnxfixError
├── UsageError             2   the request cannot be understood
│   ├── LayoutError            a layout or name template does not parse (carries the text and the place)
│   └── ConventionError        a convention (TOML file or sentences) contradicts itself (file and key path)
├── OutputError            3   a result cannot be printed
├── ModelError             3   a file cannot be read or written
│   ├── ModelReadError
│   ├── DataFileError          external data: missing, too short, outside the model's folder
│   ├── SideFileError          what a runtime reads beside the model cannot be read, or contradicts it
│   └── ModelWriteError
├── ConversionError        3   the model was understood, but not converted
│   ├── DetectError            no convention, or several equally good ones
│   ├── PlanError              the two conventions cannot be mapped for this model
│   ├── RewriteError           the graph cannot take the plan (a name is taken, an operator is missing)
│   └── SimplifyError
└── VerifyError            4   source and result differ, or nothing is proven
    ├── DriveError             the model cannot be driven (an input nobody knows how to feed)
    └── VacuousCheck           nothing was really compared
```
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of every command: what a script can rely on."""

    OK = 0
    WOULD_CHANGE = 1
    USAGE = 2
    NOT_CONVERTED = 3
    NOT_VERIFIED = 4
    BUG = 70
    INTERRUPTED = 130


class OnnxfixError(Exception):
    """The root of all errors that onnxfix raises on purpose.

    Attributes:
        message: What is wrong, in one sentence.
        where: The place: a file, a port, an axis, a tick. Empty where the message says it all.
        hint: What to do about it. Empty where nothing is known.
    """

    exit_code: ExitCode = ExitCode.NOT_CONVERTED

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{self.message}{advice}"


class UsageError(OnnxfixError):
    """The request cannot be understood."""

    exit_code = ExitCode.USAGE


class LayoutError(UsageError):
    """A layout, name template or sentence does not parse.

    Attributes:
        text: The whole text that was parsed.
        span: First and one-past-last character of what is wrong in `text`.
    """

    def __init__(self, message: str, *, text: str, span: tuple[int, int], where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.text = text
        self.span = span

    def __str__(self) -> str:
        start, stop = self.span
        caret = " " * start + "^" * max(1, stop - start)
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{self.message}\n    {self.text}\n    {caret}{advice}"


class ConventionError(UsageError):
    """A convention contradicts itself, or a file does not hold one; `where` is file and key path."""


class OutputError(OnnxfixError):
    """What a command prints cannot be written: the disk that it goes to is full, for example."""


class ModelError(OnnxfixError):
    """A file cannot be read or written."""


class ModelReadError(ModelError):
    """The file is missing, truncated, or not an ONNX model."""


class DataFileError(ModelError):
    """External data is missing, too short, or outside the model's folder."""


class SideFileError(ModelError):
    """A file that a runtime reads beside the model cannot be read or written, or it contradicts the model."""


class ModelWriteError(ModelError):
    """The destination cannot be written."""


class ConversionError(OnnxfixError):
    """The model was understood, but not converted."""


class DetectError(ConversionError):
    """The model speaks no known convention, or several equally well."""


class PlanError(ConversionError):
    """The two conventions cannot be mapped onto each other for this model."""


class RewriteError(ConversionError):
    """The graph cannot take the plan."""


class SimplifyError(ConversionError):
    """The model cannot be simplified."""


class VerifyError(OnnxfixError):
    """Source and result differ."""

    exit_code = ExitCode.NOT_VERIFIED


class DriveError(VerifyError):
    """The model cannot be driven: an input that nobody knows how to feed, or that the runtime rejects."""


class VacuousCheck(VerifyError):  # noqa: N818 (it names the check, not the error)
    """Nothing was really compared, so nothing is proven."""
