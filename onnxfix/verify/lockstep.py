"""Two models in lock step: the source is driven and recorded, then the result is held against the record."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import ModelWriteError
from onnxfix.verify.check import check
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.recording import Origin, Steps, record
from onnxfix.verify.report import VerifyReport
from onnxfix.verify.session import require_provider

if TYPE_CHECKING:
    from onnxfix.convention.plan import Plan
    from onnxfix.convention.signature import Signature


def verify(
    source: Path, result: Path, plan: Plan, options: VerifyOptions | None = None, *, declared: Signature | None = None
) -> VerifyReport:
    """Drives two models and compares all that they put out; only one of them is in memory at a time.

    Args:
        source: The model that is trusted.
        result: The model that the plan should have made of it.
        plan: The conversion.
        options: How to drive them, and how much may differ.
        declared: The ports as the result's file declares them; None: as the plan has them.

    Raises:
        DifferenceError: An output or a state differs.
        VerifyError: The result has other ports than the plan says, or onnxruntime rejects what the source takes.
        DriveError: The source cannot be driven.
        VacuousCheck: Nothing was compared, or nothing of the state shows in the outputs.
        UsageError: The options name ports that do not exist, or the file of inputs does not fit.
        ModelReadError: A file is missing or no model.
        ModelWriteError: There is no room for what is recorded.
    """
    options = options or VerifyOptions()
    started = time.perf_counter()
    # What this machine lacks is told before the source is driven, which may take long.
    for provider in options.providers:
        require_provider(provider)
    with _scratch() as folder:
        steps = Steps(options.progress, passes=1 + len(options.providers))
        with record(source, plan, options, folder / "run.npz", origin=Origin(str(source)), steps=steps) as trace:
            report = check(result, trace, plan, options, declared=declared, steps=steps)
    return replace(report, seconds=time.perf_counter() - started)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Gives the block a folder for what is recorded.

    Raises:
        ModelWriteError: There is none, or no room in it.
    """
    hint = "set TMPDIR to a folder with room for all that the source puts out"
    try:
        scratch = tempfile.TemporaryDirectory(prefix="onnxfix-")
    except OSError as error:
        reason = error.strerror or error
        raise ModelWriteError(f"there is no place to record the source: {reason}", hint=hint) from None
    with scratch as folder:
        try:
            yield Path(folder)
        except ModelWriteError as error:
            error.hint = error.hint or hint
            raise
