"""Rewriting, on graphs that can be read: what must stay comes first, then what must go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.load import parse_convention
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.signature import Port
from onnxfix.model.model import Model
from onnxfix.surgery.rewrite import SurgeryReport, rewrite
from onnxfix.verify.translation import expected_outputs, translated_inputs

ONE = "state -> next: hc batch dim"
TWO = "{hc:h,c} -> {hc:h,c}n: batch dim"
SIZES = {"B": 3, "T": 5}


def parse(
    body: str, *, inputs: str = "float[2,B,4] state", outputs: str = "float[2,B,4] next", opset: int = 17
) -> Model:
    """Returns a model of a graph's text. Constants are written as `c = Constant <value_ints = [1]> ()`."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> agraph ({inputs}) => ({outputs}) {{ {body} }}'
    return Model.from_proto(onnx.parser.parse_model(text))


def run(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def feeds_of(model: Model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    feeds = {}
    for port in model.signature().inputs:
        shape = [dim if isinstance(dim, int) else SIZES.get(str(dim), 2) for dim in port.dims or ()]
        feeds[port.name] = np.asarray(random.standard_normal(shape) * 3).astype(port.dtype)
    return feeds


def convert(
    model: Model, source: str = ONE, target: str = TWO, *, cancel: bool = True, edits: Edits | None = None
) -> tuple[SurgeryReport, Plan]:
    """Rewrites in place, after which model and plan must agree bit for bit in onnxruntime."""
    original = Model.from_proto(onnx.ModelProto.FromString(model.proto.SerializeToString()))
    binding = bind(convention_from_sentences([source]), model.signature())
    plan = make_plan(binding, convention_from_sentences([target]), edits)
    report = rewrite(model, plan, cancel=cancel)
    onnx.checker.check_model(model.proto, full_check=True)
    feeds = feeds_of(original)
    before = run(original, feeds)
    states = plan.run_past(feeds)
    old = {new: name for name, new in plan.renames.items()}
    given = {port.name: states.get(port.name, feeds.get(old.get(port.name, port.name))) for port in plan.inputs}
    after = run(model, {name: np.asarray(array) for name, array in given.items()})
    expected = {**{plan.renames.get(name, name): array for name, array in before.items()}, **plan.run_present(before)}
    assert list(after) == [port.name for port in plan.outputs]
    for name, array in after.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    return report, plan


def operators(model: Model) -> list[str]:
    return sorted(node.op_type for node in model.proto.graph.node if node.op_type != "Constant")


# What must stay.


def test_a_cache_that_a_branch_captures_keeps_its_adapter() -> None:
    model = parse(
        """
        next = If (flag) <
            then_branch = yes () => (float[2,B,4] a) { a = Neg(state) },
            else_branch = no () => (float[2,B,4] b) { b = Identity(state) }
        >
        """,
        inputs="float[2,B,4] state, bool flag",
    )
    report, _ = convert(model)
    assert report.refused == ("state is read whole by a nested graph",)
    assert operators(model) == ["Concat", "Gather", "Gather", "If", "Unsqueeze", "Unsqueeze"]


def test_a_cache_that_an_operator_reads_whole_keeps_its_adapter() -> None:
    model = parse("next = Tanh(state)")
    report, _ = convert(model)
    assert report.refused == ("state is read whole by Tanh",)
    assert report.nodes_adapters == report.nodes_after


def test_a_shape_that_is_needed_whole_is_put_together_of_sizes() -> None:
    model = parse(
        """
        s = Shape(state) z = ConstantOfShape(s) i = Constant <value_int = 0> ()
        p = Gather <axis = 0> (state, i) next = Add(z, p)
        """
    )
    report, _ = convert(model)
    assert report.refused == ()
    # Nothing asks for the shape of a cache that is no port any more.
    asked = [node.input[0] for node in model.proto.graph.node if node.op_type == "Shape"]
    assert set(asked) <= {"h", "c"}


def test_a_slice_along_another_axis_stays() -> None:
    model = parse(
        """
        a = Constant <value_ints = [0]> () b = Constant <value_ints = [2]> () x = Constant <value_ints = [2]> ()
        half = Slice(state, a, b, x) next = Concat <axis = 2> (half, half)
        """
    )
    report, _ = convert(model)
    # One for each part now: no adapter is needed for it.
    assert operators(model) == ["Concat", "Concat", "Slice", "Slice"]
    assert report.refused == ()


def test_a_negative_step_is_no_movement_that_is_followed() -> None:
    model = parse(
        """
        a = Constant <value_ints = [-1]> () b = Constant <value_ints = [-9]> () x = Constant <value_ints = [0]> ()
        turned = Slice(state, a, b, x, a) next = Neg(turned)
        """
    )
    report, _ = convert(model)
    assert report.refused


@pytest.mark.parametrize("name", ["h", "cn"])
def test_an_inner_value_makes_way_for_a_port_of_its_name(name: str) -> None:
    model = parse(f"{name} = Neg(state) next = Exp({name})")
    convert(model)
    assert f"{name}_inner" in {output for node in model.proto.graph.node for output in node.output}


def test_a_weight_makes_way_for_a_port_of_its_name() -> None:
    model = parse("n = Mul(state, h) next = Exp(n)")
    model.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2.0], np.float32), "h"))
    convert(model)
    assert "h_inner" in {weight.name for weight in model.proto.graph.initializer}


def test_new_names_avoid_those_in_nested_graphs() -> None:
    model = parse(
        """
        next = If (flag) <
            then_branch = yes () => (float[2,B,4] onnxfix_Concat_output_0) { onnxfix_Concat_output_0 = Neg(state) },
            else_branch = no () => (float[2,B,4] onnxfix_Concat) { onnxfix_Concat = Identity(state) }
        >
        """,
        inputs="float[2,B,4] state, bool flag",
    )
    convert(model)


def test_bounds_of_another_type_are_not_moved() -> None:
    """Slice wants all bounds of one type, and those that are written anew are int64."""
    model = parse(
        """
        e = Constant <value_ints = [100]> () x = Constant <value_ints = [1]> ()
        ends = Cast <to = 6> (e) axes = Cast <to = 6> (x) cut = Slice(state, from, ends, axes)
        next = Concat <axis = 1> (cut, cut)
        """,
        inputs="float[2,B,4] state, int32[1] from",
        outputs="float[2,C,4] next",
    )
    convert(model)


def test_windows_of_different_lengths_are_cut_before_they_are_packed() -> None:
    model = parse(
        """
        a = Constant <value_ints = [-2]> () b = Constant <value_ints = [100]> () x = Constant <value_ints = [1]> ()
        k = Concat <axis = 1> (h, one) v = Concat <axis = 1> (c, two) kk = Neg(k) vv = Neg(v)
        hn = Slice(kk, a, b, x) cn = Slice(vv, a, b, x)
        """,
        inputs="float[B,4,3] h, float[B,4,3] c, float[B,1,3] one, float[B,2,3] two",
        outputs="float[B,2,3] hn, float[B,2,3] cn",
    )
    convert(model, "{hc:h,c} -> {hc:h,c}n: batch time dim", "state -> next: batch time (hc dim)")


# What must go.


PICKED = """
    zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
    h = Gather <axis = 0> (state, zero) c = Gather <axis = 0> (state, one)
    hh = Neg(h) cc = Tanh(c) n = Add(hh, cc)
    axes = Constant <value_ints = [0]> ()
    u = Unsqueeze(n, axes) v = Unsqueeze(cc, axes) next = Concat <axis = 0> (u, v)
"""
SLICED = """
    a = Constant <value_ints = [0]> () b = Constant <value_ints = [1]> ()
    e = Constant <value_ints = [9223372036854775807]> ()
    h1 = Slice(state, a, b, a) c1 = Slice(state, b, e, a)
    h = Squeeze(h1, a) c = Squeeze(c1, a) hh = Neg(h) cc = Tanh(c) n = Add(hh, cc)
    u = Unsqueeze(n, a) v = Unsqueeze(cc, a) next = Concat <axis = 0> (u, v)
"""
SPLIT = """
    sizes = Constant <value_ints = [1, 1]> () a = Constant <value_ints = [0]> ()
    h1, c1 = Split <axis = 0> (state, sizes) h = Squeeze(h1, a) c = Squeeze(c1, a)
    hh = Neg(h) cc = Tanh(c) n = Add(hh, cc)
    u = Unsqueeze(n, a) v = Unsqueeze(cc, a) next = Concat <axis = 0> (u, v)
"""
TRANSPOSED = """
    t = Transpose <perm = [1, 0, 2]> (state)
    zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
    h = Gather <axis = 1> (t, zero) c = Gather <axis = 1> (t, one)
    hh = Neg(h) cc = Tanh(c) n = Add(hh, cc)
    axes = Constant <value_ints = [1]> ()
    u = Unsqueeze(n, axes) v = Unsqueeze(cc, axes) w = Concat <axis = 1> (u, v)
    next = Transpose <perm = [1, 0, 2]> (w)
"""
RESHAPED = """
    s = Shape(state) one = Constant <value_ints = [1]> () b = Gather <axis = 0> (s, one)
    two = Constant <value_ints = [2]> () four = Constant <value_ints = [4]> () x = Constant <value_ints = [0]> ()
    t = Transpose <perm = [1, 0, 2]> (state) eight = Constant <value_ints = [8]> ()
    flat = Concat <axis = 0> (b, eight) r = Reshape(t, flat)
    h = Slice(r, x, four, one) c = Slice(r, four, eight, one)
    hh = Neg(h) cc = Tanh(c) n = Add(hh, cc)
    axes = Constant <value_ints = [0]> ()
    u = Unsqueeze(n, axes) v = Unsqueeze(cc, axes) next = Concat <axis = 0> (u, v)
"""


@pytest.mark.parametrize("body", [PICKED, SLICED, SPLIT, TRANSPOSED, RESHAPED])
def test_nothing_but_arithmetic_is_left(body: str) -> None:
    # `h` and `c` are inner values here, so the ports are called otherwise.
    model = parse(body)
    report, _ = convert(model, target="{hc:p,q} -> {hc:p,q}n: batch dim")
    assert operators(model) == ["Add", "Neg", "Tanh"]
    assert report.refused == ()
    assert report.nodes_after < report.nodes_before < report.nodes_adapters


@pytest.mark.parametrize("body", [PICKED, SPLIT, TRANSPOSED])
def test_without_cancelling_the_adapters_stay(body: str) -> None:
    model = parse(body)
    report, _ = convert(model, target="{hc:p,q} -> {hc:p,q}n: batch dim", cancel=False)
    assert report.nodes_after == report.nodes_adapters
    assert report.fired == {}


def test_the_way_back_writes_what_an_exporter_writes() -> None:
    model = parse(
        "hn = Neg(h) cn = Tanh(c)", inputs="float[B,4] h, float[B,4] c", outputs="float[B,4] hn, float[B,4] cn"
    )
    convert(model, TWO, ONE)
    assert operators(model) == ["Concat", "Gather", "Gather", "Neg", "Tanh", "Unsqueeze", "Unsqueeze"]


def test_one_size_of_a_shape_is_asked_of_a_part() -> None:
    model = parse(
        """
        s = Shape(state) i = Constant <value_int = 1> () n = Gather <axis = 0> (s, i)
        zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
        h = Gather <axis = 0> (state, zero) c = Gather <axis = 0> (state, one)
        f = Cast <to = 1> (n) hh = Mul(h, f) axes = Constant <value_ints = [0]> ()
        u = Unsqueeze(hh, axes) v = Unsqueeze(c, axes) next = Concat <axis = 0> (u, v)
        """
    )
    report, _ = convert(model, target="{hc:p,q} -> {hc:p,q}n: batch dim")
    assert operators(model) == ["Cast", "Gather", "Identity", "Mul", "Shape"]
    assert report.fired["Shape"] == 1


@pytest.mark.parametrize("target", [TWO, "state -> next: batch dim hc", "state -> next: batch (hc dim)"])
def test_a_cache_that_is_read_and_passed_on_stays_one(target: str) -> None:
    model = parse("y = Tanh(state) next = Identity(state)", outputs="float[2,B,4] next, float[2,B,4] y")
    convert(model, target=target)


def test_a_cache_that_passes_through_is_an_identity() -> None:
    model = parse("next = Identity(state)")
    convert(model)
    assert operators(model) == ["Identity", "Identity"]


def test_a_cache_that_nobody_reads_leaves_no_node() -> None:
    model = parse("next = Neg(x)", inputs="float[2,B,4] state, float[2,B,4] x")
    _, plan = convert(model, source="state: hc batch dim", target="{hc:h,c}: batch dim")
    assert [port.name for port in plan.inputs] == ["h", "c", "x"]
    assert operators(model) == ["Neg"]


def test_an_inner_value_that_becomes_a_port_is_read_under_its_new_name() -> None:
    model = parse(
        "n = Neg(h) cn = Tanh(n) i = Identity(n) hn = Identity(n)",
        inputs="float[B,4] h, float[B,4] c",
        outputs="float[B,4] hn, float[B,4] cn",
    )
    convert(model, TWO, ONE)
    assert [value.name for value in model.proto.graph.output] == ["next"]


# Names, types and dims of other ports.


def test_ports_can_trade_their_names() -> None:
    model = parse(
        "u = Neg(x) v = Tanh(y) next = Identity(state)",
        inputs="float[2,B,4] state, float[B] x, float[T] y",
        outputs="float[2,B,4] next, float[B] u, float[T] v",
    )
    _, plan = convert(model, edits=Edits(rename={"x": "y", "y": "x", "u": "v", "v": "u"}))
    assert [port.name for port in plan.inputs] == ["h", "c", "y", "x"]


def test_a_relayout_may_keep_the_names() -> None:
    model = parse(PICKED)
    _, plan = convert(model, target="state -> next: batch dim hc")
    assert [port.name for port in plan.inputs] == ["state"]


@pytest.mark.parametrize("dtype", ["int32", "int16"])
def test_ports_are_cast(dtype: str) -> None:
    model = parse(
        "u = Neg(n) next = Identity(state)",
        inputs="float[2,B,4] state, int64[B] n",
        outputs="float[2,B,4] next, int64[B] u",
    )
    original = Model.from_proto(onnx.ModelProto.FromString(model.proto.SerializeToString()))
    binding = bind(convention_from_sentences([ONE]), model.signature())
    plan = make_plan(binding, convention_from_sentences([TWO]), Edits(cast={"n": dtype, "u": dtype}))
    rewrite(model, plan)
    onnx.checker.check_model(model.proto, full_check=True)
    assert {port.name: port.dtype for port in (*plan.inputs, *plan.outputs)}["u"] == dtype
    feeds = feeds_of(original)
    after = run(model, {**plan.run_past(feeds), "n": feeds["n"].astype(dtype)})
    np.testing.assert_array_equal(after["u"], run(original, feeds)["u"].astype(dtype))


FORMS = """
name        = "{name}"
description = "An offset, tokens and lengths, one way or another."
source      = "nowhere"
input       = [{{ role = "offset", port = "{offset}" }}, {{ role = "tokens", port = "{tokens}" }}]
output      = [{{ role = "lengths", port = "{lengths}" }}]
[[cache]]
name = "state"
past = "{past}"
present = "{present}"
"""
ONE_FORM = parse_convention(
    FORMS.format(
        name="one", offset='offset:", dtype = "int64', tokens='ids: batch sequence", dtype = "int64',
        lengths='lengths: batch", dtype = "int64', past="state: hc batch dim", present="next: hc batch dim",
    ),
    where="one",
)  # fmt: skip
OTHER_FORM = parse_convention(
    FORMS.format(
        name="other", offset='position: 1", dtype = "int32', tokens='ids: 1 sequence", dtype = "int32',
        lengths='lengths: batch 1", dtype = "int32', past="{hc:h,c}: batch dim", present="{hc:h,c}n: batch dim",
    ),
    where="other",
)  # fmt: skip
SUMS = """
    far = Cast <to = 1> (offset) near = Cast <to = 1> (ids) sums = ReduceSum <keepdims = 0> (near)
    both = Add(far, sums) next = Add(state, both) lengths = Shape <start = 1> (ids)
"""


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("cancel", [True, False])
def test_other_ports_get_the_form_of_the_target(opset: int, cancel: bool) -> None:
    body = SUMS if opset > 11 else SUMS.replace("Shape <start = 1> (ids)", "Cast <to = 7> (one)")
    inputs = "float[2,1,4] state, int64 offset, int64[1,S] ids" + (", float[1] one" if opset == 11 else "")
    model = parse(body, inputs=inputs, outputs="float[2,1,4] next, int64[1] lengths", opset=opset)
    original = Model.from_proto(onnx.ModelProto.FromString(model.proto.SerializeToString()))
    plan = make_plan(bind(ONE_FORM, model.signature()), OTHER_FORM)
    report = rewrite(model, plan, cancel=cancel)
    onnx.checker.check_model(model.proto, full_check=True)
    added = [node.op_type for node in model.proto.graph.node if node.name.startswith("onnxfix_")]
    # The cache is read whole, so two Unsqueezes are adapters of its own.
    assert added.count("Cast") == 3 and "Squeeze" in added and added.count("Unsqueeze") == 3
    assert report.nodes_adapters >= report.nodes_after == len(model.proto.graph.node)
    assert model.signature().inputs[2:4] == (Port("position", "int32", (1,)), Port("ids", "int32", (1, "S")))
    assert model.signature().outputs[-1] == Port("lengths", "int32", (1, 1))

    feeds = feeds_of(original)
    before = run(original, feeds)
    given = {**plan.run_past(feeds), **translated_inputs({name: feeds[name] for name in ("offset", "ids")}, plan)}
    given |= {"one": feeds["one"]} if "one" in feeds else {}
    after = run(model, given)
    for name, array in expected_outputs(before, plan).items():
        assert array.dtype == after[name].dtype
        np.testing.assert_array_equal(after[name], array)

    back = make_plan(bind(OTHER_FORM, model.signature()), ONE_FORM)
    rewrite(model, back, cancel=cancel)
    onnx.checker.check_model(model.proto, full_check=True)
    assert model.signature() == original.signature()
    again = run(model, feeds)
    for name, array in before.items():
        np.testing.assert_array_equal(again[name], array)
    # What 32 bits have cut off does not come back: these Casts stay, there and back.
    added = [node.op_type for node in model.proto.graph.node if node.name.startswith("onnxfix_")]
    assert added.count("Cast") == 6
    assert not cancel or not {"Squeeze", "Unsqueeze"} & set(operators(model))


@pytest.mark.parametrize("opset", [11, 17])
def test_forms_that_undo_each_other_leave_no_node(opset: int) -> None:
    text = """
        far = Cast <to = 1> (position) near = Cast <to = 1> (ids) sums = ReduceSum <keepdims = 0> (near)
        both = Add(far, sums) next = Add(state, both)
        i = Constant <value_ints = [0]> () lengths = Gather <axis = 0> (ids, i)
    """
    inputs = "float[2,1,4] state, int32[1] position, int32[1,S] ids"
    model = parse(text, inputs=inputs, outputs="float[2,1,4] next, int32[1,S] lengths", opset=opset)
    original = operators(model)
    sentences = {"past": "state: hc batch dim", "present": "next: hc batch dim"}
    narrow = FORMS.format(
        name="narrow", offset='position: 1", dtype = "int32', tokens='ids: batch sequence", dtype = "int32',
        lengths='lengths: batch frame", dtype = "int32', **sentences,
    )  # fmt: skip
    wide = FORMS.format(
        name="wide", offset='offset:", dtype = "int64', tokens='tokens: sequence", dtype = "int64',
        lengths='lengths: 1 frame 1", dtype = "int64', **sentences,
    )  # fmt: skip
    first = model.signature()
    conventions = parse_convention(narrow, where="narrow"), parse_convention(wide, where="wide")
    report = rewrite(model, make_plan(bind(conventions[0], first), conventions[1]))
    # Two Casts, two axes gained for the inputs; one Cast and one axis for the output.
    assert len(operators(model)) == len(original) + 6 and report.refused == ()
    rewrite(model, make_plan(bind(conventions[1], model.signature()), conventions[0]))
    assert operators(model) == original and model.signature() == first


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        # Who reads the port as it is keeps its form; who undoes the form reads the port.
        ("w = Unsqueeze(n, i) u = Neg(w) v = Neg(n)", ["Neg", "Neg", "Squeeze"]),
        ("w = Unsqueeze(n, j) u = Neg(w) v = Neg(n)", ["Neg", "Neg", "Squeeze", "Unsqueeze"]),
        ("u = Unsqueeze(n, i) v = Neg(n)", ["Neg", "Squeeze", "Unsqueeze"]),
        ("w = Unsqueeze(n, i) u = Neg(w) v = Identity(n)", ["Identity", "Neg", "Squeeze"]),
    ],
)
def test_only_what_undoes_a_form_goes(body: str, kept: list[str]) -> None:
    model = parse(
        f"i = Constant <value_ints = [0]> () j = Constant <value_ints = [1]> () {body} next = Identity(state)",
        inputs="float[2,B,4] state, int64[5] n", outputs="float[2,B,4] next, int64[A,C] u, int64[5] v",
    )  # fmt: skip
    original = Model.from_proto(onnx.ModelProto.FromString(model.proto.SerializeToString()))
    text = 'name = "{0}"\ndescription = "x"\nsource = "x"\ninput = [{{ role = "features", port = "n: {1}" }}]\n'
    text += '[[cache]]\nname = "c"\npast = "state: hc batch dim"\npresent = "next: hc batch dim"\n'
    source, target = (parse_convention(text.format(*one), where="x") for one in (("a", "frame"), ("b", "1 frame")))
    plan = make_plan(bind(source, model.signature()), target)
    rewrite(model, plan)
    assert operators(model) == sorted([*kept, "Identity"])
    feeds = feeds_of(original)
    before, after = run(original, feeds), run(model, {**feeds, "n": feeds["n"][None]})
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_a_dim_is_frozen_everywhere() -> None:
    model = parse(PICKED)
    _, plan = convert(model, target="{hc:p,q} -> {hc:p,q}n: batch dim", edits=Edits(dims={"batch": 3}))
    for value in (*model.proto.graph.input, *model.proto.graph.output):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [3, 4]
    assert plan.inputs[0].dims == (3, 4)
