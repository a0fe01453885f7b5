"""onnxsim as it runs here: quietly, with the passes that are asked for, without what it loads for other purposes."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from onnxfix.errors import SimplifyError
from onnxfix.model import telemetry
from onnxfix.model.skeleton import SMALL

_NAME = "onnxsim"
_PASSES = frozenset(
    {
        "eliminate_common_subexpression",
        "eliminate_deadend",
        "eliminate_duplicate_initializer",
        "eliminate_identity",
        "eliminate_shape_gather",
        "eliminate_shape_op",
        "eliminate_slice_after_shape",
        "eliminate_unused_initializer",
        "extract_constant_to_initializer",
    }
)
"""The passes of onnxsim 0.8.1 that run. None of them adds a node or computes anything in another order."""


def run_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folds constants, and removes dead and duplicate nodes, in a copy.

    Args:
        model: A skeleton whose types are inferred: onnxsim infers none itself.

    Raises:
        SimplifyError: onnxsim failed, or what it made is not valid.
    """
    onnxsim = load_onnxsim()
    with _silenced():
        try:
            simplified, is_valid = onnxsim.simplify(
                model,
                skipped_optimizers=_other_passes(),
                skip_shape_inference=True,
                tensor_size_threshold=f"{SMALL}B",
                certify=False,  # a proof by z3, where that is installed, which says nothing of the weights left out
            )
        # onnxsim is another program: whatever it raises means that the model stays as it is.
        except Exception as error:
            raise SimplifyError(f"onnxsim failed: {first_line(error)}") from error
    if not is_valid:
        raise SimplifyError("onnxsim's result is not valid")
    return simplified  # type: ignore[no-any-return]


def first_line(error: Exception) -> str:
    """Returns what an error says, without what it shows below."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@functools.cache
def _other_passes() -> list[str]:
    """Returns the passes that are not to run."""
    onnxsim = load_onnxsim()
    # onnxsim registers most of its passes late; until then it does not name them. To ask for the others does it.
    onnxsim.C._list_other_optimizers()
    return sorted(set(onnxsim.C._list_optimizers()) - _PASSES)


@functools.cache
def load_onnxsim() -> Any:
    """Imports the module of onnxsim that simplifies.

    The package imports a hundred others besides, which quantise, prune and export: 0.06 to 0.18 seconds of the
    0.34 to 0.43 that it takes in all (measured with 0.8.1). They are left for whoever asks the package for anything.
    """
    telemetry.decline()  # it imports onnxruntime
    # Imported where they are found, for features that are not used here: over 2 seconds and 230 MB.
    hidden = [name for name in ("torch", "sympy") if name not in sys.modules]
    # Whatever is None here counts as not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        _defer_package()
        import onnxsim.onnx_simplifier as module

        return module
    finally:
        for name in hidden:
            del sys.modules[name]


def _defer_package() -> None:
    """Lets the package run its `__init__` only once it is asked for something that is none of its modules."""
    spec = importlib.util.find_spec(_NAME)
    if _NAME not in sys.modules and spec is not None:
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[_NAME] = module


class _Deferred(ModuleType):
    """A package of which nothing has run yet."""

    def __getattr__(self, name: str) -> Any:
        # `from . import one` asks for modules that way, before it looks for a file.
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(self)
        return getattr(self, name)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keeps Python and C++ code from writing to the terminal."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as sink, Path(os.devnull).open("w") as nowhere:
        try:
            for number in (1, 2):
                os.dup2(sink.fileno(), number)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            for number, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
