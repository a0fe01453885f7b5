"""What flows where: dependencies, and the places where inputs are updated."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from onnxfix.model.flow import Flow, Update, dependencies


def graph(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.GraphProto:
    """Returns a graph of nodes whose types nobody looks at."""
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names] for names in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "graph", *ports)


def node(op_type: str, inputs: str, outputs: str, domain: str = "", **attributes: object) -> onnx.NodeProto:
    """Returns a node; `-` stands for an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), domain=domain, **attributes)


def test_outputs_depend_on_what_nodes_and_nested_graphs_read() -> None:
    branch = graph([node("Neg", "seen", "inner")], [], ["inner"])
    proto = graph(
        [
            node("Add", "a b", "seen"),
            node("If", "flag", "y", then_branch=branch, else_branch=branch),
            node("Neg", "c", "z"),
            node("Constant", "", "w", value_float=1.0),
        ],
        ["a", "b", "c", "flag"],
        ["y", "z", "w", "a"],
    )
    assert dependencies(proto) == {"y": {"a", "b", "flag"}, "z": {"c"}, "w": set(), "a": {"a"}}


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([node("Concat", "new past", "y", axis=1)], id="in the second place"),
        pytest.param([node("Add", "past new", "y")], id="arithmetic"),
        pytest.param([node("Mul", "past new", "m"), node("Concat", "m new", "y", axis=1)], id="behind arithmetic"),
        pytest.param([node("Gather", "new past", "m"), node("Concat", "m new", "y", axis=1)], id="as an index"),
        pytest.param([node("ScatterND", "new past x", "y")], id="as indices"),
        pytest.param([node("LSTM", "past w r - - h", "y yh yc")], id="as what is new"),
        pytest.param([node("Transpose", "past", "m", domain="own"), node("Concat", "m new", "y", axis=1)], id="own"),
        pytest.param([node("LSTM", "x w r - - past", "y")], id="nobody takes what comes out"),
    ],
)
def test_what_is_no_update(nodes: list[onnx.NodeProto]) -> None:
    assert Flow(graph(nodes, ["past", "new"], ["y"])).updates("past", 4) == []


@pytest.mark.parametrize(
    ("nodes", "update"),
    [
        ([node("Concat", "past new", "y", axis=2)], Update("y", "Concat", 2)),
        ([node("Concat", "past new", "y", axis=-1)], Update("y", "Concat", 3)),
        (
            [node("Transpose", "past", "m", perm=[0, 3, 1, 2]), node("Concat", "m new", "y", axis=1)],
            Update("y", "Concat", 3),
        ),
        ([node("Transpose", "past", "m"), node("Concat", "m new", "y", axis=0)], Update("y", "Concat", 3)),
        ([node("Split", "past", "k v", axis=3), node("Concat", "v new", "y", axis=2)], Update("y", "Concat", 2)),
        ([node("Gather", "past i", "m"), node("Concat", "m new", "y", axis=1)], Update("y", "Concat", None)),
        ([node("Reshape", "past s", "m"), node("Concat", "m new", "y", axis=1)], Update("y", "Concat", None)),
        ([node("ScatterND", "past i new", "y")], Update("y", "ScatterND")),
        ([node("LSTM", "x w r - - past c", "a y")], Update("y", "LSTM")),
        ([node("LSTM", "x w r - - h past", "a b y")], Update("y", "LSTM")),
        ([node("GroupQueryAttention", "q k v past pv", "a y b", "com.microsoft")], Update("y", "GroupQueryAttention")),
        ([node("Attention", "q k v m past pv", "a y b")], Update("y", "Attention")),
        ([node("Attention", "x w b m past", "a y", "com.microsoft")], Update("y", "Attention")),
    ],
)
def test_updates(nodes: list[onnx.NodeProto], update: Update) -> None:
    assert Flow(graph(nodes, ["past", "new"], ["y"])).updates("past", 4) == [update]


def test_all_ways_lead_to_their_first_update() -> None:
    nodes = [
        node("Split", "past", "k v", axis=0),
        node("Concat", "k a", "k2", axis=1),
        node("Concat", "v b", "v2", axis=1),
        node("Concat", "k2 c", "k3", axis=1),
        node("Concat", "k2 v2", "y", axis=0),
    ]
    flow = Flow(graph(nodes, ["past"], ["y"]))
    assert [update.value for update in flow.updates("past", 3)] == ["k2", "v2"]
    assert flow.origins("y") == {"y", "k2", "v2", "k", "v", "past", "a", "b"}


def test_origins_end_where_something_is_computed() -> None:
    nodes = [node("Neg", "past", "n"), node("Slice", "n s", "m"), node("Identity", "m", "y")]
    assert Flow(graph(nodes, ["past"], ["y"])).origins("y") == {"y", "m", "n"}
