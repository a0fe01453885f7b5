"""Small model files, with and without data files, and corpora to read them against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CORPUS = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))
"""The models that ship inside the onnx wheel."""


def parsed(text: str) -> onnx.ModelProto:
    """Reads a graph in onnx's text form; opset 17, IR version 8."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def external(name: str, dims: Sequence[int], **entries: object) -> onnx.TensorProto:
    """A float tensor whose values lie elsewhere."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def sum_model(*weights: onnx.TensorProto) -> onnx.ModelProto:
    """`y` is the sum of `x` (float, [4]) and all weights."""
    names = ["x", *(weight.name for weight in weights)]
    graph = helper.make_graph(
        [helper.make_node("Sum", names, ["y"], name="sum", doc_string="adds up")],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_data(folder: Path, *, data: str = "model.data", name: str = "model.onnx", fill: float = 1.0) -> Path:
    """Writes a model with two weights of four floats in one data file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / data).parent.mkdir(exist_ok=True)
    (folder / data).write_bytes(np.full(8, fill, np.float32).tobytes())
    weights = (
        external("w", [4], location=data, offset=0, length=16),
        external("v", [4], location=data, offset=16, length=16),
    )
    return written(folder / name, sum_model(*weights))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tensor(name: str, value: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
