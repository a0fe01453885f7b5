"""Verification as a product of its own: two models held against each other, or a model against a recorded run.

Everything heavy is imported on the way, where it is needed: `onnxfix --help` passes through this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import UsageError
from onnxfix.request import bind_model, file_of, open_model, plan_conversion

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits
    from onnxfix.request import Source, Speech
    from onnxfix.verify.report import VerifyOptions, VerifyReport
    from onnxfix.verify.trace import Trace


def verify(
    source: Source,
    result: Source | None = None,
    *,
    against: str | Path | None = None,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
    options: VerifyOptions | None = None,
) -> VerifyReport:
    """Compares all that two models put out over a stream, each fed its own caches.

    `verify(source, result)` drives both; `verify(result, against=trace)` holds one model against a run that `record`
    or PyTorch stored; `verify(source, result, against=trace)` also requires that the run is one of `source`.

    Args:
        source: The model that is trusted; with `against` alone, the model to verify.
        result: The model that should be the same, under another convention or the same.
        against: A trace: what the trusted model was fed and put out.
        to: The convention of the result, as in `convert`; None: it is detected.
        from_: The convention of the source; None: it is detected, or the trace says it.
        sizes: Sizes that the models do not tell, as in `convert`.
        edits: What else was changed on the way to the result.
        options: How to drive them, and how to compare.

    Raises:
        VerifyError: They differ, cannot be driven, or nothing is proven.
        OnnxfixError: A model or the trace cannot be read, or a convention is not known.
    """
    from onnxfix.verify.lockstep import verify as drive

    if result is None or against is not None:
        raise UsageError("traces cannot be read yet", where="--against")
    original, converted = open_model(source), open_model(result)
    spoken = bind_model(converted.signature(), from_=to, sizes=sizes).convention
    plan = plan_conversion(original, to=spoken, from_=from_, sizes=sizes, edits=edits)
    with contextlib.ExitStack() as stack:
        return drive(file_of(original, source, stack), file_of(converted, result, stack), plan, options)


def record(
    model: Source,
    trace: str | Path,
    *,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    options: VerifyOptions | None = None,
) -> Trace:
    """Drives a model and stores what it was fed and put out, for `verify(result, against=trace)`.

    Args:
        model: The model that is trusted.
        trace: Where the run goes, an npz file; it appears whole or not at all.
        from_: The convention of the model; None: it is detected.
        sizes: Sizes that the model does not tell, as in `convert`.
        options: How to drive it.

    Raises:
        DriveError: The model cannot be driven.
        VacuousCheck: The run would prove nothing: no state, no tick, or nothing of the state shows in the outputs.
        ModelWriteError: The trace cannot be written.
        OnnxfixError: The model cannot be read, or its convention is not known.
    """
    raise UsageError("traces cannot be written yet", where=str(trace))
