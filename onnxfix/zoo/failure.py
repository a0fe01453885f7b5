"""Every way in which work on a model can end badly, as an outcome."""

from __future__ import annotations

import errno

from onnxfix.errors import OnnxfixError, VerifyError
from onnxfix.zoo.outcome import Failed, Mishap, Refused, proof_facts


def failure_of(error: Exception) -> Failed | Refused:
    """Returns what an error means: refused where the result is not proven, else failed."""
    if isinstance(error, VerifyError):
        from onnxfix.verify.report import DifferenceError

        facts = proof_facts(error.report) if isinstance(error, DifferenceError) else {}
        if _is_memory(error.message):
            return Failed(Mishap.OUT_OF_MEMORY, error.message, error.where, error.hint)
        return Refused(type(error).__name__, error.message, error.where, error.hint, facts)
    if isinstance(error, OnnxfixError):
        return Failed(type(error).__name__, error.message, error.where, error.hint)
    if isinstance(error, OSError):
        place = error.filename if isinstance(error.filename, str) else ""
        return Failed("ModelWriteError", f"a file cannot be used: {error.strerror or error}", place)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "please report it, with the model if you may share it"
    return Failed(Mishap.BUG, f"this is a bug in onnxfix: {text}", hint=hint)


def _is_memory(message: str) -> bool:
    """Whether onnxruntime says that it got no memory."""
    return "bad_alloc" in message or "Failed to allocate memory" in message


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is that a disk is full."""
    causes = [error, error.__cause__, error.__context__]
    return any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT) for one in causes)
