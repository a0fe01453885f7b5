"""A model in onnxruntime, quiet and reproducible. No other module imports onnxruntime."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, ModelReadError
from onnxfix.verify.dtypes import storage

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

CPU = "CPUExecutionProvider"
_FATAL = 4
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_TYPES = {"float": "float32", "double": "float64"}


class Session:
    """One model, ready to run.

    Optimisations are off and one thread computes, so that a model gives the same bits whenever it is fed the same.

    Attributes:
        path: The file; its data files are read by onnxruntime.
        inputs, outputs: The ports. A port without a declared rank looks like a scalar here.
    """

    def __init__(self, path: Path, *, provider: str = CPU) -> None:
        """Loads a model.

        Raises:
            ModelReadError: The file is missing or no model.
            DriveError: onnxruntime does not take the model, or runs it on another provider than asked for.
        """
        import onnxruntime

        self.path = path
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = _FATAL
        # The arena keeps what it once took, and memory patterns are made for sizes that never change.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # onnxruntime's exceptions share no base class
            kind = type(error).__name__
            if kind in ("NoSuchFile", "InvalidProtobuf"):
                raise ModelReadError(_shortened(error), where=str(path)) from None
            message = f"onnxruntime cannot load the model: {_shortened(error)}"
            raise DriveError(message, where=str(path), hint="--no-verify converts without a proof") from None
        got = self._session.get_providers()
        if got[0] != provider:
            raise DriveError(f"onnxruntime runs the model on {got[0]}, not on {provider}", where=str(path))
        self._quiet = onnxruntime.RunOptions()
        self._quiet.log_severity_level = _FATAL
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))
        self._input_types = {port.name: port.dtype for port in self.inputs}
        self._names = [port.name for port in self.outputs]
        self._has_bfloat16 = any(port.dtype == "bfloat16" for port in (*self.inputs, *self.outputs))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns all outputs by name.

        Args:
            feeds: All inputs by name, as `dtypes.storage` holds them.

        Raises:
            DriveError: onnxruntime rejects an input or fails on the way.
        """
        try:
            if self._has_bfloat16:
                return self._run_values(feeds)
            return dict(zip(self._names, self._session.run(self._names, dict(feeds), self._quiet), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise DriveError(_shortened(error), where=_culprit(str(error), feeds)) from None

    def _run_values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs through onnxruntime's own values: numpy cannot say bfloat16."""
        from onnxruntime import OrtValue

        values = {}
        for name, array in feeds.items():
            if self._input_types[name] == "bfloat16":
                values[name] = OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), _BFLOAT16)
            else:
                values[name] = OrtValue.ortvalue_from_numpy(array)
        fetched = self._session.run_with_ort_values(self._names, values, self._quiet)
        return {port.name: _array(value, port.dtype) for port, value in zip(self.outputs, fetched, strict=True)}


def _array(value: Any, dtype: str) -> Array:
    if dtype != "bfloat16":
        array: Array = value.numpy()
        return array
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, storage(dtype)).reshape(value.shape()).copy()


def _port(node: Any) -> Port:
    """Reads `tensor(float)` and its like; what is no tensor keeps onnxruntime's word for it."""
    match = re.fullmatch(r"tensor\((\w+)\)", node.type)
    dtype = _TYPES.get(match[1], match[1]) if match else node.type
    return Port(node.name, dtype, tuple(dim if isinstance(dim, int | str) else None for dim in node.shape))


def _culprit(message: str, names: Iterable[str]) -> str:
    """Returns the input that the message names; empty if it names none."""
    found = re.search(r"(?:for input|name|feed)\W+([^\s'\"\])]+)", message)
    return found[1] if found and found[1] in set(names) else ""


def _shortened(error: Exception) -> str:
    """Returns what an exception says, without file names and lines of onnxruntime's own source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"/\S*onnxruntime\S*:\d+ .*?\) ", "", text)
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    text = re.sub(r"Please fix either the inputs/outputs or the model\.?", "", text)
    text = text.replace("Non-zero status code returned while running ", "")
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= 300 else f"{text[:297]}..."
