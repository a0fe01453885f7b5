"""Networks of a few nodes, each made for one thing that verification must see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.model.model import Model

FLOAT, INT64, BFLOAT16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BFLOAT16
Ports = Sequence[tuple[str, int, list[int | str | None] | None]]


def node(text: str, **attributes: object) -> onnx.NodeProto:
    """Returns a node written as `y z = Op a b`."""
    outputs, _, right = text.partition("=")
    op, *inputs = right.split()
    return helper.make_node(op, inputs, outputs.split(), **attributes)


def constant(name: str, value: object, dtype: int = INT64) -> onnx.TensorProto:
    """Returns an initializer; a list becomes a vector, a number a scalar."""
    values = value if isinstance(value, list) else [value]
    return helper.make_tensor(name, dtype, [len(values)] if isinstance(value, list) else [], values)


def tiny(
    path: Path, nodes: list[onnx.NodeProto], inputs: Ports, outputs: Ports, constants: Sequence[onnx.TensorProto] = ()
) -> Path:
    """Writes a model."""
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        list(constants),
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(proto.SerializeToString())
    return path


def kept(path: Path, *sentences: str, edits: Edits | None = None, sizes: dict[str, int] | None = None) -> Plan:
    """Returns the plan that leaves all caches of a model as they are."""
    convention = convention_from_sentences(sentences)
    return make_plan(bind(convention, Model.load(path).signature(), sizes), None, edits)
