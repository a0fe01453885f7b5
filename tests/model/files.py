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


NESTED = """
g (float[2] past, bool c) => (float[2] present, float[2] other)
<float[2] inner, int64[1] one = {1}>
{
   [first] inner = Neg (past)
   other = If (c) <
     then_branch = t () => (float[2] other) { other = Add (inner, past) },
     else_branch = e () => (float[2] b) {
       b = If (c) <
         then_branch = tt () => (float[2] d) { d = Mul (inner, inner) },
         else_branch = ee () => (float[2] x) { inner2 = Neg (past) x = Identity (inner2) }
       >
     }
   >
   [last] present = Abs (inner)
}
"""
"""One value read by nested graphs only, two levels deep, and branches that name an output as the node does."""


def rich_model() -> onnx.ModelProto:
    """A model with something in every place that a rewrite could lose."""
    model = parsed(NESTED)
    graph = model.graph
    model.producer_name, model.domain, model.model_version, model.doc_string = "exporter", "org.example", 7, "a model"
    helper.set_model_props(model, {"b": "1", "a": "2"})
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="graph", value="kept")
    graph.input[0].doc_string = "the cache"
    graph.input[0].metadata_props.add(key="port", value="kept")
    graph.input[0].type.denotation = "TENSOR"
    graph.node[2].doc_string = "the last"
    graph.node[2].metadata_props.add(key="node", value="kept")
    graph.quantization_annotation.add(tensor_name="inner").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="one"
    )
    graph.sparse_initializer.add(values=tensor("sparse", np.float32([1])), indices=tensor("", [0]), dims=[4])
    graph.node.append(helper.make_node("f", ["inner"], ["unread"], domain="local", name="call"))
    function = helper.make_function("local", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])
    function.opset_import.add(domain="", version=17)
    model.functions.append(function)
    model.opset_import.add(domain="local", version=1)
    model.training_info.add().algorithm.node.append(helper.make_node("Neg", ["a"], ["b"]))
    kinds = onnx.NodeProto(op_type="Custom", domain="local", name="kinds", output=["kinds"])
    kinds.attribute.add(name="tp", type=onnx.AttributeProto.TYPE_PROTO).tp.tensor_type.elem_type = 1
    kinds.attribute.add(name="tensors", type=onnx.AttributeProto.TENSORS).tensors.append(tensor("t", [1]))
    kinds.attribute.add(name="graphs", type=onnx.AttributeProto.GRAPHS).graphs.add(name="empty")
    graph.node.append(kinds)
    return model
