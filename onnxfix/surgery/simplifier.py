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

    onnxsim's own library is asked directly, with what its package would ask it for. Where it refuses, the package is
    asked, which knows how to go on: it teaches the library operators, and tells which errors mean nothing.

    Args:
        model: A skeleton whose types are inferred: onnxsim infers none itself.

    Raises:
        SimplifyError: onnxsim failed, or what it made is not valid.
    """
    with _silenced():
        try:
            return _ask_library(model)
        # Whatever another release does not like about the call, too.
        except Exception:
            return _ask_package(model)


def _ask_library(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplifies as `onnxsim.simplify` of 0.8.1 does, without the modules that this loads for other purposes.

    Raises:
        Exception: The library does not do it, or not this way, or made something that is not valid.
    """
    made: bytes = load_library().simplify(
        _executor(),
        model.SerializeToString(),
        _other_passes(),
        True,  # fold constants
        False,  # infer shapes
        SMALL,
        None,  # another version of the operators
        None,  # a rewriter
        True,  # initializers are constants
        False,  # inline functions
        False,  # initializers are inputs still
        None,  # other shapes of inputs
        None,  # outputs that nobody needs
        None,  # more passes
    )
    onnx.checker.check_model(made)
    simplified = onnx.ModelProto()
    simplified.ParseFromString(made)
    return simplified


def _ask_package(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplifies by what onnxsim offers to all.

    Raises:
        SimplifyError: onnxsim failed, or what it made is not valid.
    """
    try:
        simplified, is_valid = load_package().simplify(
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
    library = load_library()
    # onnxsim registers most of its passes late; until then it does not name them. To ask for the others does it.
    library._list_other_optimizers()
    return sorted(set(library._list_optimizers()) - _PASSES)


@functools.cache
def _executor() -> Any:
    """Returns what computes constants for onnxsim's library: ONNX Runtime, as onnxsim sets it up."""

    class Executor(load_library().ModelExecutor):  # type: ignore[misc]
        def Run(self, model: bytes, stored: list[bytes]) -> list[bytes]:  # noqa: N802
            with _without_extras():
                from onnxsim import backend

            ports = onnx.load_from_string(model).graph.input
            tensors = map(onnx.TensorProto.FromString, stored)
            feeds = {port.name: onnx.numpy_helper.to_array(tensor) for port, tensor in zip(ports, tensors, strict=True)}
            computed = backend.run_model(model, feeds, single_threaded=True)
            return [onnx.numpy_helper.from_array(value).SerializeToString() for value in computed.values()]

    return Executor()


@functools.cache
def load_library() -> Any:
    """Imports onnxsim's own library, without the package that stands around it.

    That package imports a hundred others, which quantise, prune and export, in 0.34 to 0.43 seconds; the one that
    simplifies, with those that it needs, takes 0.16 to 0.23 (measured with 0.8.1). They are left for whoever asks the
    package for anything.
    """
    telemetry.decline()  # what it calls imports onnxruntime
    _defer_package()
    return importlib.import_module(f"{_NAME}.onnxsim_cpp2py_export")


@functools.cache
def load_package() -> Any:
    """Imports the module of onnxsim that simplifies."""
    load_library()
    with _without_extras():
        return importlib.import_module(f"{_NAME}.onnx_simplifier")


@contextlib.contextmanager
def _without_extras() -> Iterator[None]:
    """Hides packages that onnxsim imports where they are found, for features not used here: 2 seconds and 230 MB."""
    hidden = [name for name in ("torch", "sympy") if name not in sys.modules]
    # Whatever is None here counts as not installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
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
