"""The graph view: what it sees, what its edits do, and what they leave alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxfix.convention.signature import Port
from onnxfix.errors import RewriteError
from onnxfix.model.graph import GraphView
from onnxfix.model.model import Model
from tests.model.files import CORPUS, NESTED, external, parsed, rich_model, tensor


def view_of(text: str) -> GraphView:
    return GraphView(Model.from_proto(parsed(text)))


def text_of(view: GraphView) -> str:
    """The graph in onnx's text form, without blanks at the ends of lines."""
    return "\n".join(line.strip() for line in onnx.printer.to_text(view.model.proto.graph).splitlines() if line.strip())


def run(proto: onnx.ModelProto, **feeds: object) -> list[list[float]]:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(None, {name: np.asarray(value) for name, value in feeds.items()})
    return [value.tolist() for value in values]


def feeds(value: bool = True) -> dict[str, object]:
    return {"past": np.array([1, -2], np.float32), "c": np.array(value)}


# Fidelity


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.parent.name)
def test_open_look_and_close_leaves_every_byte(path: Path) -> None:
    model = Model.load(path)
    view = GraphView(model)
    for node in view.nodes:
        assert node.attributes is not None
        for name in (*node.inputs, *node.outputs):
            view.producer(name), view.consumers(name), view.constant(name), view.type_of(name)
    view.infer_shapes()
    # Edits that end where they began make the view write everything that it knows how to write.
    view.set_inputs(view.inputs)
    view.set_outputs(view.outputs)
    names = [node.outputs[0] for node in view.nodes if node.outputs[0]]
    view.rename({name: f"{name} (renamed)" for name in names})
    view.commit()
    view.rename({f"{name} (renamed)": name for name in names})
    view.commit()
    assert model.proto.SerializeToString() == path.read_bytes()


def test_the_whole_corpus_is_looked_at() -> None:
    assert len(CORPUS) > 100


def test_an_edit_leaves_everything_that_it_does_not_name() -> None:
    before, after = rich_model(), rich_model()
    view = GraphView(Model.from_proto(after))
    view.rename({"past": "cache"})
    view.commit()
    text = onnx.printer.to_text(before)
    assert onnx.printer.to_text(after) == text.replace("past", "cache")
    for name in ("producer_name", "domain", "model_version", "doc_string", "metadata_props", "functions"):
        assert getattr(after, name) == getattr(before, name)
    assert after.training_info == before.training_info
    assert after.graph.metadata_props == before.graph.metadata_props
    assert after.graph.quantization_annotation == before.graph.quantization_annotation
    assert after.graph.sparse_initializer == before.graph.sparse_initializer
    assert (after.graph.input[0].doc_string, after.graph.input[0].type.denotation) == ("the cache", "TENSOR")
    assert after.graph.input[0].metadata_props == before.graph.input[0].metadata_props
    assert [node.SerializeToString() for node in after.graph.node[2:]] == [
        node.SerializeToString() for node in before.graph.node[2:]
    ]


# Reading


def test_a_value_knows_who_makes_and_who_reads_it() -> None:
    view = view_of(NESTED)
    first, branch, last = view.nodes
    assert (first.op_type, first.name, first.inputs, first.outputs) == ("Neg", "first", ("past",), ("inner",))
    assert view.producer("inner") is first
    assert view.producer("past") is None
    assert view.consumers("past") == (first,)
    assert view.consumers("inner") == (last,)
    assert view.capturers("past") == view.capturers("inner") == (branch,)
    assert (branch.inputs, branch.captures, branch.has_graphs) == (("c",), ("inner", "past", "c"), True)
    assert not last.has_graphs
    assert (view.is_input("past"), view.is_output("present"), view.has_value("one")) == (True, True, True)
    assert view.has_value("x") is False, "names of nested graphs are none of the main graph's"


def test_attributes_are_plain_python() -> None:
    node = helper.make_node(
        "Custom",
        [],
        ["y"],
        domain="local",
        i=3,
        f=0.5,
        s="text",
        ints=[1, 2],
        floats=[0.5],
        strings=["a"],
        t=tensor("", [7]),
    )
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", 1, None)])
    view = GraphView(Model.from_proto(helper.make_model(graph)))
    values = dict(view.nodes[0].attributes)
    assert values.pop("t").tolist() == [7]  # type: ignore[union-attr]
    assert values == {"i": 3, "f": 0.5, "s": "text", "ints": [1, 2], "floats": [0.5], "strings": ["a"]}
    found = view.nodes[0]
    assert (found.integer("i", 0), found.integer("none", 5), found.integer("s", 5)) == (3, 5, 5)
    assert (found.integers("ints"), found.integers("none"), found.string("s", "")) == ((1, 2), None, "text")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ({"value": tensor("", np.float16([[1, 2]]))}, np.float16([[1, 2]])),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.int64([3, 4])),
        ({"value_float": 0.5}, np.float32(0.5)),
        ({"value_floats": [0.5]}, np.float32([0.5])),
        ({"value": tensor("", np.zeros(1000))}, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_constant_is_known_if_it_is_small(attribute: dict[str, object], value: np.ndarray | None) -> None:
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], **attribute)], "g", [], [helper.make_tensor_value_info("c", 1, None)]
    )
    found = GraphView(Model.from_proto(helper.make_model(graph))).constant("c")
    if value is None:
        assert found is None
    else:
        assert (found.dtype, found.tolist()) == (value.dtype, value.tolist())


@pytest.mark.parametrize(("ir_version", "is_known"), [(3, True), (8, False)])
def test_an_initializer_that_the_caller_may_override_is_no_constant(ir_version: int, is_known: bool) -> None:
    model = parsed("g (float[2] x, float[2] w) => (float[2] y) { y = Add (x, w) }")
    model.ir_version = ir_version
    model.graph.initializer.append(tensor("w", np.float32([1, 2])))
    view = GraphView(Model.from_proto(model))
    assert (view.constant("w") is not None) == is_known
    assert [port.name for port in view.inputs] == ["x"]


def test_the_skeleton_of_a_model_has_its_constants_but_not_its_weights(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(16))
    model = parsed(NESTED)
    model.graph.initializer.extend([external("w", [4], location="w.data"), tensor("v", np.zeros(1000, np.float32))])
    nested = model.graph.node[1].attribute[0].g
    nested.initializer.extend([external("w2", [4], location="w.data"), tensor("one2", np.int64([1]))])
    nested.node.append(helper.make_node("Constant", [], ["c2"], value=tensor("", np.zeros((3, 500)))))
    before = model.SerializeToString()
    skeleton = Model.from_proto(model, tmp_path).skeleton()
    assert skeleton.hidden == {"w", "v"}
    assert [port.name for port in skeleton.proto.graph.input] == ["past", "c", "w", "v"]
    assert [stored.name for stored in skeleton.proto.graph.initializer] == ["one"]
    inside = skeleton.proto.graph.node[1].attribute[0].g
    assert [stored.name for stored in inside.initializer] == ["one2"]
    assert {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inside.value_info} == {
        "w2": [4],
        "c2": [3, 500],
    }
    assert skeleton.proto.ByteSize() < 2000
    onnx.checker.check_model(skeleton.proto, full_check=True)
    assert model.SerializeToString() == before


# Editing


def test_a_port_is_replaced_by_others_and_nested_graphs_follow() -> None:
    view = view_of(NESTED)
    expected = [run(view.model.proto, **feeds(value)) for value in (True, False)]
    halves = [Port(name, "float32", (1,)) for name in ("low", "high")]
    view.set_inputs([*halves, view.inputs[1]])
    view.add_node("Concat", ["low", "high"], ["past"], attributes={"axis": 0}, name="pack")
    split = view.add_node("Split", ["present", view.add_constant(np.array([1, 1]), "sizes")], 2, name="unpack")
    view.set_outputs([Port(name, "float32", (1,)) for name in split.outputs] + [view.outputs[1]])
    view.rename({split.outputs[0]: "new_low", split.outputs[1]: "new_high"})
    view.commit()
    graph = view.model.proto.graph
    assert [node.op_type for node in graph.node] == ["Concat", "Neg", "If", "Abs", "Split"]
    assert [value.name for value in graph.input] == ["low", "high", "c"]
    assert [value.name for value in graph.output] == ["new_low", "new_high", "other"]
    for value, (present, other) in zip((True, False), expected, strict=True):
        found = run(view.model.proto, low=np.float32([1]), high=np.float32([-2]), c=np.array(value))
        assert found == [present[:1], present[1:], other]


def test_names_can_be_exchanged_down_to_the_innermost_graph() -> None:
    view = view_of(NESTED)
    expected = run(view.model.proto, **feeds(False))
    view.rename({"past": "inner", "inner": "past", "present": "other", "other": "present"})
    view.commit()
    assert (
        text_of(view)
        == """\
g (float[2] inner, bool c) => (float[2] other, float[2] present)
<int64[1] one =  {1}, float[2] past>
{
[first] past = Neg (inner)
present = If (c) <then_branch: graph = t () => (float[2] other_1) {
other_1 = Add (past, inner)
}, else_branch: graph = e () => (float[2] b) {
b = If (c) <then_branch: graph = tt () => (float[2] d) {
d = Mul (past, past)
}, else_branch: graph = ee () => (float[2] x) {
inner2 = Neg (inner)
x = Identity (inner2)
}>
}>
[last] other = Abs (past)
}"""
    )
    assert run(view.model.proto, inner=feeds()["past"], c=np.array(False)) == expected


def test_an_inner_value_gives_way_to_a_new_name_of_an_outer_one() -> None:
    view = view_of(NESTED)
    expected = [run(view.model.proto, **feeds(value)) for value in (True, False)]
    # `inner2` and `d` name values of nested graphs already.
    view.rename({"past": "inner2", "inner": "d"})
    view.commit()
    for value, outputs in zip((True, False), expected, strict=True):
        assert run(view.model.proto, inner2=feeds()["past"], c=np.array(value)) == outputs


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"past": "inner"}, "`past` cannot be renamed to `inner`: another value has that name"),
        ({"past": "one"}, "another value has that name"),
        ({"past": "x1", "inner": "x1"}, "`inner` cannot be renamed to `x1`"),
        ({"past": ""}, "cannot be renamed to ``"),
        ({"gone": "here"}, "the graph has no value `gone`"),
    ],
    ids=str,
)
def test_a_name_that_is_taken_is_refused(names: dict[str, str], message: str) -> None:
    view = view_of(NESTED)
    before = view.model.proto.SerializeToString()
    with pytest.raises(RewriteError, match=message):
        view.rename(names)
    assert not view.is_edited
    assert view.model.proto.SerializeToString() == before


def unproduced(view: GraphView) -> None:
    view.set_inputs([view.inputs[1]])


def unproduced_output(view: GraphView) -> None:
    node = view.producer("present")
    assert node is not None
    view.remove_node(node)


def cycle(view: GraphView) -> None:
    node = view.producer("inner")
    assert node is not None
    view.set_input(node, 0, "present")


def strange_dtype(view: GraphView) -> None:
    view.set_inputs([Port("past", "float33", (2,)), view.inputs[1]])


def changed_by_others(view: GraphView) -> None:
    view.model.proto.graph.node.add(op_type="Neg")
    view.rename({"past": "cache"})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unproduced, "nothing produces `past` any more"),
        (unproduced_output, "nothing produces `present` any more, which a graph output reads"),
        (cycle, "the edits made a cycle"),
        (strange_dtype, "`float33` is no dtype of a tensor"),
        (changed_by_others, "the graph was changed while it was viewed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_edit_that_makes_no_graph_is_refused_whole(edit: Callable[[GraphView], None], message: str) -> None:
    view = view_of(NESTED)
    edit(view)
    before = view.model.proto.SerializeToString()
    with pytest.raises(RewriteError, match=message):
        view.commit()
    assert view.model.proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda view: view.add_node("Neg", ["gone"]), "no value `gone`"),
        (lambda view: view.add_node("Neg", ["past"], ["inner"]), "the name `inner` is taken"),
        (lambda view: view.replace_uses("past", "gone"), "no value `gone`"),
        (lambda view: view.set_inputs([Port("inner", "float32", ())]), "the name `inner` is taken"),
        (lambda view: view.set_inputs([Port("a", "float32", ())] * 2), "two ports cannot both be named `a`"),
        (lambda view: view.set_outputs([Port("gone", "float32", ())]), "no value `gone`"),
        (lambda view: view.add_initializer(tensor("inner", [1])), "the name `inner` is taken"),
    ],
)
def test_an_edit_with_a_wrong_name_is_refused_at_once(edit: Callable[[GraphView], object], message: str) -> None:
    with pytest.raises(RewriteError, match=message):
        edit(view_of(NESTED))


def test_new_names_collide_with_nothing_at_any_depth() -> None:
    view = GraphView(Model.from_proto(rich_model()))
    taken = ("past", "inner2", "d", "first", "sparse", "a", "kinds")
    assert [view.fresh_name(name) for name in taken] == [f"{name}_1" for name in taken]
    assert [view.fresh_name("new") for _ in range(3)] == ["new", "new_1", "new_2"]


def test_only_what_was_alive_through_a_value_is_removed_with_it() -> None:
    view = view_of("""
    g (float[4] x) => (float[4] y) <int64[1] two = {2}, int64[1] zero = {0}, int64[1] unused = {9}> {
        dead = Neg (x)
        a = Abs (x)
        b = Slice (a, zero, two)
        c = Slice (a, two, two)
        d = Concat <axis = 0> (b, c)
        y = Relu (x)
    }""")
    assert view.remove_dead(["y"]) == 0
    assert view.remove_dead(["d"]) == 4
    view.commit()
    graph = view.model.proto.graph
    assert [node.op_type for node in graph.node] == ["Neg", "Relu"]
    assert [stored.name for stored in graph.initializer] == ["unused"]


def test_an_initializer_that_an_annotation_names_stays() -> None:
    view = GraphView(Model.from_proto(rich_model()))
    node = view.add_node("Neg", ["one"])
    view.remove_dead(node.outputs)
    assert view.has_value("one")


def test_what_is_said_of_a_value_goes_with_it() -> None:
    model = rich_model()
    view = GraphView(Model.from_proto(model))
    view.replace_uses("inner", "past")
    for name in ("unread", "inner"):
        view.remove_dead([name])
    view.commit()
    assert [value.name for value in model.graph.value_info] == []
    assert len(model.graph.quantization_annotation) == 0


def test_equal_constants_are_added_once() -> None:
    view = view_of(NESTED)
    names = [view.add_constant(np.array(value), "c_int") for value in ([1, 2], [1, 2], [2, 1], [[1, 2]])]
    assert names == ["c_int", "c_int", "c_int_1", "c_int_2"]
    assert view.add_constant(np.array([1, 2], np.int32)) == "constant"


def test_the_oldest_format_gets_its_constants_as_nodes() -> None:
    model = parsed("g (float[4] x) => (float[2] y) { y = Identity (x) }")
    model.ir_version = 3
    view = GraphView(Model.from_proto(model))
    name = view.add_constant(np.array([2, 2]))
    view.set_outputs([Port(view.add_node("Reshape", ["x", name]).outputs[0], "float32", (2, 2))])
    view.commit()
    assert [node.op_type for node in model.graph.node] == ["Identity", "Constant", "Reshape"]
    assert len(model.graph.initializer) == 0
    onnx.checker.check_model(model)


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("a b", "a w b v"),
        ("b a", "b w a v"),
        ("b", "b w v"),
        ("n a m b", "n w a v m b"),
        ("n", "n w v"),
    ],
)
def test_inputs_with_an_initializer_stay_between_the_ports_in_their_order(
    ir_version: int, ports: str, expected: str
) -> None:
    model = parsed("g (float[2] a, float[2] w, float[2] b, float[2] v) => (float[2] y) { y = Sum (w, v) }")
    model.graph.initializer.extend(tensor(name, np.float32([1, 2])) for name in "vw")
    model.ir_version = ir_version
    view = GraphView(Model.from_proto(model))
    view.set_inputs([Port(name, "float32", (2,)) for name in ports.split()])
    view.commit()
    assert [value.name for value in model.graph.input] == expected.split()
    assert [port.name for port in view.inputs] == ports.split()
    assert [port.name for port in Model.from_proto(model).signature().inputs] == ports.split()
    onnx.checker.check_model(model)


def test_a_port_that_changes_keeps_what_else_is_said_of_it() -> None:
    model = rich_model()
    view = GraphView(Model.from_proto(model))
    view.set_inputs([Port("past", "float16", ("time", None, 3)), view.inputs[1]])
    view.commit()
    changed = model.graph.input[0]
    assert (changed.doc_string, changed.type.tensor_type.elem_type) == ("the cache", TensorProto.FLOAT16)
    assert view.inputs[0] == Port("past", "float16", ("time", None, 3)) == view.type_of("past")
    view.set_inputs([Port("past", "float16", None), view.inputs[1]])
    view.commit()
    assert Model.from_proto(model).signature().inputs[0] == Port("past", "float16", None)


def test_pending_edits_are_seen_and_a_second_commit_goes_on_from_the_first() -> None:
    view = view_of(NESTED)
    node = view.add_node("Neg", ["inner"], name="more")
    assert view.producer(node.outputs[0]) is node
    assert node in view.consumers("inner")
    view.commit()
    view.replace_uses("inner", node.outputs[0])
    assert view.capturers("inner") == ()
    view.set_input(node, 0, "inner")
    view.commit()
    assert [found.op_type for found in view.nodes] == ["Neg", "Neg", "If", "Abs"]
    assert run(view.model.proto, **feeds(True)) == [[1, 2], [2, -4]]


def test_a_deep_graph_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        nodes = [helper.make_node("Add", [f"v{i}", "w"], [f"v{i + 1}"]) for i in range(count)]
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v0", f"v{count}")]
        graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [tensor("w", np.float32([1]))])
        model = Model.from_proto(helper.make_model(graph))
        start = time.process_time()
        view = GraphView(model)
        added = [view.add_node("Neg", [f"v{index}"]).outputs[0] for index in range(0, count, 2)]
        for index, name in enumerate(added):
            view.replace_uses(f"v{2 * index + 1}", name)
        view.rename({f"v{index}": f"u{index}" for index in range(count)})
        view.remove_dead([f"u{index}" for index in range(count)])
        view.commit()
        return time.process_time() - start

    seconds(100)
    # Quadratic work would show as a factor of 64.
    assert seconds(4000) < 24 * max(seconds(500), 0.02)


def test_a_branch_may_name_its_output_as_the_graph_does() -> None:
    # Optimum's merged decoders: one If, and every branch names its outputs as the graph does.
    view = view_of("""
    g (float[2] past, bool c) => (float[2] present) {
        present = If (c) <
            then_branch = t () => (float[2] present) { present = Abs (past) },
            else_branch = e () => (float[2] present) { present = Neg (past) }>
    }""")
    before = view.model.proto.SerializeToString()
    view.rename({"present": "cache"})
    view.commit()
    assert text_of(view).count("present") == 4
    view.rename({"cache": "present"})
    view.commit()
    assert view.model.proto.SerializeToString() == before
    # Another node that takes this name is another matter.
    view.rename({"present": "inside"})
    view.add_node("Neg", ["inside"], ["present"])
    view.set_outputs([Port("present", "float32", (2,))])
    view.commit()
    assert run(view.model.proto, **feeds(True)) == [[-1, -2]]
