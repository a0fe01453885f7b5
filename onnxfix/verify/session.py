"""A model in onnxruntime, quiet and reproducible. No other module imports onnxruntime."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, ModelReadError, UsageError
from onnxfix.model import telemetry
from onnxfix.verify.dtypes import storage

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

telemetry.decline()  # before any of what follows imports onnxruntime

CPU = "cpu"
PROVIDERS: Mapping[str, str] = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What people call the places where a model can run, and onnxruntime's names for them."""
_LIBRARIES = {"cuda": "onnxruntime_providers_cuda", "tensorrt": "onnxruntime_providers_tensorrt"}
_SMALLEST = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a017812"
    "0a0a08080112040a020801620f0a0179120a0a08080112040a02080142040a001011"
)
"""The model `y = Identity x`: whether a provider runs shows before anything large is loaded."""
_FATAL = 4
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_TYPES = {"float": "float32", "double": "float64"}


class Session:
    """One model, ready to run.

    One thread computes and sums are taken in one order, so that a model gives the same bits whenever it is fed the
    same.

    Attributes:
        path: The file; its data files are read by onnxruntime.
        provider: Where it runs, as `PROVIDERS` calls it.
        inputs, outputs: The ports. A port without a declared rank looks like a scalar here.
    """

    def __init__(self, path: Path, *, provider: str = CPU, optimize: bool = False) -> None:
        """Loads a model.

        Args:
            path: The file.
            provider: Where to run it.
            optimize: Whether onnxruntime may fuse and reorder what it computes, as it does for those who use it.

        Raises:
            UsageError: There is no such provider.
            ModelReadError: The file is missing or no model.
            DriveError: onnxruntime does not take the model, or runs it on another provider than asked for.
        """
        import onnxruntime

        require_provider(provider)
        self.path = path
        self.provider = provider
        try:
            self._session = _load(str(path), provider, optimize)
        except Exception as error:  # onnxruntime's exceptions share no base class
            kind = type(error).__name__
            if kind in ("NoSuchFile", "InvalidProtobuf"):
                raise ModelReadError(_shortened(error), where=str(path)) from None
            message = f"onnxruntime cannot load the model: {_shortened(error)}"
            raise DriveError(message, where=str(path)) from None
        if (got := self._session.get_providers()[0]) != PROVIDERS[provider]:
            raise _fallen_back(provider, f"onnxruntime runs the model on {got}, not on {PROVIDERS[provider]}")
        self._quiet = onnxruntime.RunOptions()
        self._quiet.log_severity_level = _FATAL
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))
        self._input_types = {port.name: port.dtype for port in self.inputs}
        self._output_types = {port.name: port.dtype for port in self.outputs}
        self._has_bfloat16 = any(port.dtype == "bfloat16" for port in (*self.inputs, *self.outputs))

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Array]:
        """Returns outputs by name.

        Args:
            feeds: All inputs by name, as `dtypes.storage` holds them.
            names: The outputs to return; None for all.

        Raises:
            DriveError: onnxruntime rejects an input or fails on the way.
        """
        names = list(self._output_types) if names is None else list(names)
        if not names:
            return {}  # onnxruntime takes no names for all names.
        try:
            if self._has_bfloat16:
                return self._run_values(feeds, names)
            return dict(zip(names, self._session.run(names, dict(feeds), self._quiet), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise DriveError(_shortened(error), where=_culprit(str(error), feeds)) from None

    def _run_values(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Runs through onnxruntime's own values: numpy cannot say bfloat16."""
        from onnxruntime import OrtValue

        values = {}
        for name, array in feeds.items():
            if self._input_types[name] == "bfloat16":
                values[name] = OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), _BFLOAT16)
            else:
                values[name] = OrtValue.ortvalue_from_numpy(array)
        fetched = self._session.run_with_ort_values(names, values, self._quiet)
        return {name: _array(value, self._output_types[name]) for name, value in zip(names, fetched, strict=True)}


def require_provider(name: str) -> None:
    """Checks that a provider exists, and that it runs on this machine.

    Raises:
        UsageError: There is no such provider.
        DriveError: It does not run here.
    """
    if name not in PROVIDERS:
        raise UsageError(
            "there is no such provider", where=f"--provider {name}", hint=f"known are {', '.join(PROVIDERS)}"
        )
    if name == CPU:
        return
    import onnxruntime

    wanted = PROVIDERS[name]
    if wanted not in onnxruntime.get_available_providers():
        raise _fallen_back(name, f"onnxruntime cannot run on {wanted}, as it was built without it")
    try:
        got = _load(_SMALLEST, name, optimize=False).get_providers()[0]
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise _fallen_back(name, f"onnxruntime cannot run on {wanted}: {_reason(name) or _shortened(error)}") from None
    if got != wanted:
        reason = f": {text}" if (text := _reason(name)) else ""
        raise _fallen_back(name, f"onnxruntime runs models on {got}, not on {wanted}{reason}")


def _fallen_back(provider: str, message: str) -> DriveError:
    hint = f"run on a machine that has what onnxruntime-gpu asks for, or leave out {provider}"
    return DriveError(message, where=f"--provider {provider}", hint=hint)


def _reason(provider: str) -> str:
    """Returns why the library of a provider cannot be loaded; empty where it can, or nobody knows."""
    import onnxruntime

    for library in sorted((Path(onnxruntime.__file__).parent / "capi").glob(f"*{_LIBRARIES[provider]}*")):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return str(error)
    return ""


def _load(model: str | bytes, provider: str, optimize: bool) -> Any:
    import onnxruntime

    # What onnxruntime has to say it says in exceptions too; on stderr it would stand between other lines.
    onnxruntime.set_default_logger_severity(_FATAL)
    options, providers = _options(optimize), _wanted(provider)
    return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=False)


def _wanted(provider: str) -> list[Any]:
    """Returns what to ask onnxruntime for: TensorRT leaves to CUDA, and CUDA to the CPU, what it cannot compute."""
    # TF32 keeps 10 of 23 bits of what is multiplied: no tolerance for float32 could tell that from an error.
    cuda = (PROVIDERS["cuda"], {"use_tf32": "0"})
    wanted: Mapping[str, list[Any]] = {
        CPU: [PROVIDERS[CPU]], "cuda": [cuda], "tensorrt": [PROVIDERS["tensorrt"], cuda]
    }  # fmt: skip
    return wanted[provider]


def _options(optimize: bool) -> Any:
    """Returns options under which the same feeds give the same bits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _FATAL
    # The arena keeps what it once took, and memory patterns are made for sizes that never change.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if not optimize:
        # A packed weight is multiplied by another kernel, which rounds otherwise, and only initializers are packed: a
        # weight that simplifying made of a Transpose would look like an error. Besides, packing copies all weights;
        # otherwise those in data files stay pages of the file, 1.5 GB of which are loaded in no time.
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


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
