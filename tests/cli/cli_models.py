"""A network of a few nodes with a cache, and what tests of the command line need around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES = Path(__file__).parents[2] / "sample_models"
PACKED = SAMPLES / "conformer_packed.onnx"
PER_LAYER = SAMPLES / "conformer_kv.onnx"

FROM = "cache -> new_cache: layer batch time dim"
TO = "past.{layer} -> present.{layer}: batch time dim"

Contents = dict[str, bytes]


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Writes a model."""
    path.write_bytes(proto.SerializeToString())
    return path


def two_layers(*, uses_cache: bool = True) -> onnx.ModelProto:
    """Returns a network that appends its input, scaled, to the caches of two layers, and puts out what it sees.

    `uses_cache` False gives one whose outputs do not depend on the caches.
    """
    nodes, outputs = [], []
    for layer in range(2):
        seen = f"seen_{layer}"
        nodes += [
            helper.make_node("Gather", ["cache", f"index_{layer}"], [f"past_{layer}"], axis=0),
            helper.make_node("Mul", ["x", f"scale_{layer}"], [f"scaled_{layer}"]),
            helper.make_node("Concat", [f"past_{layer}", f"scaled_{layer}"], [seen], axis=1),
            helper.make_node("Unsqueeze", [seen, "front"], [f"slab_{layer}"]),
        ]
        outputs.append(seen if uses_cache else f"scaled_{layer}")
    nodes += [
        helper.make_node("ReduceMean", [outputs[0]], ["mean_0"], axes=[1], keepdims=1),
        helper.make_node("ReduceMax", [outputs[1]], ["mean_1"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["mean_0", "mean_1"], ["y"]),
        helper.make_node("Concat", ["slab_0", "slab_1"], ["new_cache"], axis=0),
    ]
    constants = [
        numpy_helper.from_array(np.array(0, np.int64), "index_0"),
        numpy_helper.from_array(np.array(1, np.int64), "index_1"),
        numpy_helper.from_array(np.array([0], np.int64), "front"),
        numpy_helper.from_array(np.array([[[0.5, -1.0, 2.0]]], np.float32), "scale_0"),
        numpy_helper.from_array(np.array([[[3.0, 0.25, -0.5]]], np.float32), "scale_1"),
    ]
    ports = [("x", [1, 2, 3]), ("cache", [2, 1, "T", 3]), ("y", [1, 1, 3]), ("new_cache", [2, 1, "T + 2", 3])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in ports]
    graph = helper.make_graph(nodes, "two_layers", values[:2], values[2:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def with_open_dims(*dims: str) -> onnx.ModelProto:
    """Returns the network with other dims of its cache: `L`, `B` and `D` are sizes that the file does not tell."""
    proto = two_layers()
    for value, time in ((proto.graph.input[1], "T"), (proto.graph.output[1], "T + 2")):
        for dim, name in zip(value.type.tensor_type.shape.dim, ("L", "B", time, "D"), strict=True):
            if name in dims:
                dim.dim_param = name
    return proto


def with_data_file(location: str) -> onnx.ModelProto:
    """Returns the network with one weight in a data file of 12 bytes."""
    proto = two_layers()
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "scale_1")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    return proto


def without_input(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Returns the model with an input turned into a constant of zeros."""
    port = next(value for value in proto.graph.input if value.name == name)
    dims = [dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim]
    proto.graph.input.remove(port)
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(dims, np.float32), name))
    return proto


def contents(folder: Path) -> Contents:
    """Returns every file of a folder and those below, by name, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
