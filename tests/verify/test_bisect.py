"""The node at which two models part: faults are planted one at a time, and have to be found where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_models import BFLOAT16, FLOAT, constant, kept, node, tiny

import onnxfix
from onnxfix.convention.detect import detect
from onnxfix.convention.load import load_convention
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.model.model import Model
from onnxfix.model.taps import look_inside
from onnxfix.verify import inner
from onnxfix.verify.bisect import describe, find_culprit
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.recording import record

SAMPLES = Path(__file__).parents[2] / "sample_models"
Plant = Callable[[onnx.ModelProto], None]


def sample(name: str) -> Path:
    return SAMPLES / f"{name}.onnx"


def plan_of(source: str, target: str) -> Plan:
    binding = detect(Model.load(sample(source)).signature()).choose().binding
    return make_plan(binding, load_convention(target))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Callable[[str, str], onnx.ModelProto]:
    """Returns the result of a pair: a native export, or the source converted, simplified and cancelled."""
    folder = tmp_path_factory.mktemp("results")
    made: dict[str, Path] = {}

    def result(source: str, name: str) -> onnx.ModelProto:
        if sample(name).exists():
            return onnx.load(sample(name))
        if source not in made:
            made[source] = folder / f"{source}.onnx"
            onnxfix.convert(sample(source), made[source], to=name, verify=False)
        return onnx.load(made[source])

    return result


# ---------------------------------------------------------------- faults


def named(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in proto.graph.node if one.name == name)


def stored(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(one for one in proto.graph.initializer if one.name == name)


def off_by_one_ulp(name: str, index: int = 1) -> Plant:
    """The largest value of a weight that a node reads becomes the next larger float."""

    def plant(proto: onnx.ModelProto) -> None:
        tensor = stored(proto, named(proto, name).input[index])
        values = numpy_helper.to_array(tensor).copy()
        place = np.unravel_index(np.argmax(np.abs(values)), values.shape)
        values[place] = np.nextafter(values[place], np.float32(np.inf))
        tensor.raw_data = values.tobytes()

    return plant


def swapped(name: str) -> Plant:
    def plant(proto: onnx.ModelProto) -> None:
        inputs = named(proto, name).input
        inputs[0], inputs[1] = inputs[1], inputs[0]

    return plant


def attribute(name: str, key: str, value: object) -> Plant:
    def plant(proto: onnx.ModelProto) -> None:
        one = named(proto, name)
        others = [entry for entry in one.attribute if entry.name != key]
        assert len(others) == len(one.attribute) - 1
        del one.attribute[:]
        one.attribute.extend([*others, helper.make_attribute(key, value)])

    return plant


def operator(name: str, op_type: str) -> Plant:
    def plant(proto: onnx.ModelProto) -> None:
        named(proto, name).op_type = op_type

    return plant


def left_out(name: str, instead: int = 0) -> Plant:
    """A node is removed: who read its output reads one of its inputs."""

    def plant(proto: onnx.ModelProto) -> None:
        gone = named(proto, name)
        for one in proto.graph.node:
            one.input[:] = [gone.input[instead] if read == gone.output[0] else read for read in one.input]
        proto.graph.node.remove(gone)

    return plant


def reads(name: str, index: int, value: str) -> Plant:
    def plant(proto: onnx.ModelProto) -> None:
        named(proto, name).input[index] = value

    return plant


def window(name: str, start: int, end: int) -> Plant:
    """A Slice takes another window."""

    def plant(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.extend([constant("start", [start]), constant("end", [end])])
        named(proto, name).input[1:3] = ["start", "end"]

    return plant


def changed(name: str, index: int) -> Plant:
    """All values of a weight that a node reads grow a little."""

    def plant(proto: onnx.ModelProto) -> None:
        tensor = stored(proto, named(proto, name).input[index])
        tensor.raw_data = (numpy_helper.to_array(tensor) * np.float32(1.01)).tobytes()

    return plant


def folded(value: list[int], new: list[int]) -> Plant:
    """A constant that simplifying computed is another one."""

    def plant(proto: onnx.ModelProto) -> None:
        tensor = next(
            one for one in proto.graph.initializer
            if one.name.startswith("folded") and numpy_helper.to_array(one).tolist() == value
        )  # fmt: skip
        tensor.CopyFrom(constant(tensor.name, new))

    return plant


def exchanged(one: str, other: str, index: int = 1) -> Plant:
    """Two nodes have each other's weights."""

    def plant(proto: onnx.ModelProto) -> None:
        first, second = named(proto, one).input, named(proto, other).input
        first[index], second[index] = second[index], first[index]

    return plant


def after(name: str, text: str, **attributes: object) -> Plant:
    """Puts a node `new = Op ...`, which reads what the node `name` puts out as `was`, in front of all its readers."""

    def plant(proto: onnx.ModelProto) -> None:
        maker = named(proto, name)
        output = maker.output[0]
        maker.output[0] = "was"
        new = node(text, **attributes)
        new.name, new.output[0] = "planted node", output
        proto.graph.node.insert(list(proto.graph.node).index(maker) + 1, new)

    return plant


def at_most(name: str, value: str, most: int) -> Plant:
    """A node reads a number that does not grow beyond a bound."""

    def plant(proto: onnx.ModelProto) -> None:
        reader = named(proto, name)
        reader.input[:] = ["bounded" if read == value else read for read in reader.input]
        new = node(f"bounded = Min {value} most")
        new.name = "planted node"
        proto.graph.initializer.append(constant("most", most))
        proto.graph.node.insert(0, new)

    return plant


@dataclass(frozen=True)
class Fault:
    """A fault in a result.

    Attributes:
        source, result: The pair; a result that is no sample is a convention to convert to.
        plant: What is done to the result.
        found: The node that must be named.
        said: What must be said of it.
        tick: The first tick that shows it.
    """

    source: str
    result: str
    plant: Plant
    found: str
    said: str
    target: str = ""
    tick: int = 0


TORCHSCRIPT = {"source": "conformer_packed", "result": "conformer_kv", "target": "wenet-kv"}
DYNAMO = {"source": "conformer_packed_dynamo", "result": "conformer_kv_dynamo", "target": "wenet-kv"}
SIMPLIFIED = {"source": "conformer_packed", "result": "wenet-kv"}
DECODER = {"source": "gpt2_stacked", "result": "optimum"}
PACKING = {"source": "conformer_kv_dynamo", "result": "wenet-packed"}
STACKING = {"source": "gpt2_kv_dynamo", "result": "gpt2-stacked"}
TWINS = {"source": "gpt2_kv_dynamo", "result": "gpt2_stacked_dynamo", "target": "gpt2-stacked"}
DETECTOR = {"source": "vad_hc", "result": "vad_state", "target": "silero-state"}
ATTENTION = "/layers.1/attention"
FORWARD = "feed_forward/feed_forward.0/MatMul"

FAULTS = {
    "a weight off by one ulp": Fault(
        **TORCHSCRIPT, plant=off_by_one_ulp(f"/layers.1/{FORWARD}"), found=f"/layers.1/{FORWARD}",
        said="differs in 1 of 480 values, by 1 ulp at most",
    ),
    "a weight off by one ulp, other names": Fault(
        **TWINS, plant=off_by_one_ulp("node_MatMul_152"), found="node_MatMul_152", said="by 1 ulp at most",
    ),
    "a weight of a recurrent layer": Fault(
        **DETECTOR, plant=changed("/recurrent/LSTM", 2), found="/recurrent/LSTM", said="the weight `onnx::LSTM",
    ),
    "a constant whose name simplifying changed": Fault(
        **SIMPLIFIED, plant=folded([-7], [-8]), found="/layers.0/convolution/Slice", said="it is -8 instead of -7",
    ),
    "the inputs of a Sub swapped": Fault(
        **TORCHSCRIPT, plant=swapped("/normalization/Sub"), found="/normalization/Sub", said="input 0 is",
    ),
    "the inputs of a Concat swapped": Fault(
        **DECODER, plant=swapped("/blocks.1/attention/Concat_3"), found="/blocks.1/attention/Concat_3",
        said="input 0 is `/blocks.1/attention/Transpose_1_output_0`",
    ),
    "a permutation": Fault(
        **DYNAMO, plant=attribute("node_transpose_18", "perm", [0, 1, 2, 3]), found="node_transpose_18",
        said="the attribute `perm` is [0, 1, 2, 3], in the source [0, 2, 1, 3]",
    ),
    "an axis": Fault(
        **DYNAMO, plant=attribute("node_softmax_1", "axis", 2), found="node_softmax_1",
        said="the attribute `axis` is 2, in the source -1",
    ),
    "an epsilon": Fault(
        **DYNAMO, plant=attribute("node_layer_norm_7", "epsilon", 1e-4), found="node_layer_norm_7",
        said="the attribute `epsilon` is",
    ),
    "another operator": Fault(
        **TORCHSCRIPT, plant=operator("/layers.2/macaron/macaron.1/Sigmoid", "Tanh"),
        found="/layers.2/macaron/macaron.1/Sigmoid", said="the operator is Tanh, in the source Sigmoid",
    ),
    "an operator that does nothing": Fault(
        **PACKING, plant=operator("node_relu", "Identity"), found="node_relu",
        said="the operator is Identity, in the source Relu",
    ),
    "the mask is left out": Fault(
        **TWINS, plant=left_out("node_add_306"), found="node_softmax_1", said="made by Add", tick=1,
    ),
    "a mask within a layer is left out": Fault(
        **TORCHSCRIPT, plant=left_out(f"{ATTENTION}/Where", 2), found=f"{ATTENTION}/Softmax", said="made by Where",
    ),
    "the bounds of a Slice": Fault(
        **TORCHSCRIPT, plant=window("/layers.1/convolution/Slice", -8, -1), found="/layers.1/convolution/Slice",
        said="differs",
    ),
    "the bounds of a Slice that the conversion made": Fault(
        **PACKING, plant=window("onnxfix_Slice_2", 0, 1), found="onnxfix_Slice_2", said="",
    ),
    "a conversion that reads key for value": Fault(
        **PACKING, plant=reads("node_cat_4", 0, "onnxfix_Slice_3_output_0"), found="node_cat_4", said="input 0 is",
    ),
    "layers exchanged": Fault(
        **TORCHSCRIPT, plant=exchanged(f"/layers.0/{FORWARD}", f"/layers.2/{FORWARD}"), found=f"/layers.0/{FORWARD}",
        said="the weight",
    ),
    "the caches of two layers exchanged": Fault(
        **TORCHSCRIPT, plant=exchanged("/layers.1/attention/Concat_2", "/layers.2/attention/Concat_2", 0),
        found="/layers.1/attention/Concat_2", said="input 0 is `key_cache_2`",
    ),
    "a fault that only the second tick shows": Fault(
        **TORCHSCRIPT, plant=at_most("/Sub", "offset", 64), found="planted node",
        said="", tick=1,
    ),
    "a cache put out as it came in": Fault(
        **TORCHSCRIPT, plant=lambda proto: behind_output(proto, "r_value_cache_2", "value_cache_2"),
        found="planted node", said="",
    ),
    "a cache put out too late": Fault(
        **TORCHSCRIPT, plant=window("/Slice_3", 1, 65), found="/Slice_3", said="differs",
    ),
    "layers stacked in the wrong order": Fault(
        **PACKING, plant=swapped("node_cat_9"), found="node_cat_9", said="input 0 is `unsqueeze_4`",
    ),
    "keys and values stacked the wrong way": Fault(
        **TWINS, plant=swapped("node_stack_1"), found="node_stack_1", said="no such node",
    ),
    "a node too many among those that the conversion made": Fault(
        **PACKING, plant=after("onnxfix_Slice_2", "new = Abs was"), found="planted node", said="",
    ),
    "keys for queries": Fault(
        **STACKING, plant=reads("node_view_6", 0, "split_2_split_1"), found="node_view_6",
        said="input 0 is `split_2_split_1`, in the source `split_2_split_0`",
    ),
    "a node too many behind few values": Fault(
        **DETECTOR, plant=after("/Sigmoid", "new = Neg was"), found="planted node", said="",
    ),
    "a node too many": Fault(
        **DECODER, plant=after("/blocks.1/attention/out/Add", "new = Relu was"), found="planted node", said="",
    ),
}  # fmt: skip


def behind_output(proto: onnx.ModelProto, output: str, value: str) -> None:
    for one in proto.graph.node:
        one.output[:] = ["unread" if name == output else name for name in one.output]
    new = node(f"{output} = Identity {value}")
    new.name = "planted node"
    proto.graph.node.append(new)


@pytest.mark.parametrize("case", FAULTS)
def test_the_node_with_the_fault_is_named(tmp_path, results, case):
    fault = FAULTS[case]
    proto = results(fault.source, fault.result)
    fault.plant(proto)
    path = tmp_path / "result.onnx"
    path.write_bytes(proto.SerializeToString())

    plan = plan_of(fault.source, fault.target or fault.result)
    culprit = find_culprit(sample(fault.source), path, plan, VerifyOptions(ticks=fault.tick + 1))

    assert culprit is not None
    said = "\n".join(describe(culprit))
    assert culprit.node.name == fault.found, said
    assert fault.said in said
    assert culprit.tick == fault.tick


def test_what_was_found_is_told_in_plain_words(tmp_path):
    nodes = [node("a = Mul x w"), node("b = Add a past"), node("y = Tanh b"), node("present = Identity b")]
    nodes[0].name, nodes[2].name = "scale", "bend"
    source, result = (
        tiny(
            tmp_path / f"{name}.onnx", nodes, [("x", FLOAT, [1, 3]), ("past", FLOAT, [1, 3])],
            [("y", FLOAT, [1, 3]), ("present", FLOAT, [1, 3])], [constant("w", weight, FLOAT)],
        )
        for name, weight in (("source", [1.0, 2.0, 3.0]), ("result", [1.0, 2.0, 3.5]))
    )  # fmt: skip

    culprit = find_culprit(source, result, kept(source, "past -> present: batch dim"), VerifyOptions(ticks=1))

    assert culprit is not None
    first, origin, change, *rest = describe(culprit)
    assert first == "first difference: tick 0, Mul `scale`"
    assert origin == "in the source: Mul `scale`"
    assert change == "  the weight `w` differs in 1 of 3 values: at [2] it is 3.5 instead of 3.0"
    assert rest[:2] == ["  reads `x` equal", "  reads `w` differs, a weight"]
    assert rest[2].startswith("  puts out `a` differs, 1 of 3 values, by ")
    assert rest[3:] == [
        "around it:",
        "  > differs  a = Mul x w",
        "    differs  b = Add a past",
        "    differs  y = Tanh b",
        "    differs  present = Identity b",
        "reaches `y`, `present`",
    ]
    told = culprit.to_json()
    assert told["node"] == {
        "name": "scale", "op_type": "Mul", "inputs": ["x", "w"], "outputs": ["a"], "attributes": {},
    }  # fmt: skip
    assert told["counterpart"] == told["node"]


def test_of_two_faults_the_upper_one_is_named_first(tmp_path, results):
    proto = results("conformer_packed", "conformer_kv")
    for layer in (0, 2):
        changed(f"/layers.{layer}/{FORWARD}", 1)(proto)
    path = tmp_path / "result.onnx"
    path.write_bytes(proto.SerializeToString())

    culprit = find_culprit(sample("conformer_packed"), path, plan_of("conformer_packed", "wenet-kv"))

    assert culprit is not None
    assert culprit.node.name == f"/layers.0/{FORWARD}"
    # What lies behind the first fault is wrong anyway: there is no telling whether it would be right otherwise.
    assert culprit.others == ()


def test_faults_that_do_not_touch_each_other_are_all_named(tmp_path, results):
    proto = results("conformer_packed", "conformer_kv")
    for name in ("/Slice_1", "/Slice_4"):
        window(name, 1, 65)(proto)
    path = tmp_path / "result.onnx"
    path.write_bytes(proto.SerializeToString())

    culprit = find_culprit(sample("conformer_packed"), path, plan_of("conformer_packed", "wenet-kv"))

    assert culprit is not None
    assert (culprit.node.name, culprit.others) == ("/Slice_1", ("/Slice_4",))
    assert culprit.reached == ("r_key_cache_0", "r_value_cache_1")


def test_where_nothing_differs_there_is_no_culprit():
    plan = plan_of("vad_hc", "silero-state")

    assert find_culprit(sample("vad_hc"), sample("vad_state"), plan, VerifyOptions(ticks=2)) is None


def test_a_trace_serves_as_well_as_driving_the_source(tmp_path, results):
    proto = results("gpt2_kv_dynamo", "gpt2_stacked_dynamo")
    left_out("node_add_306")(proto)
    path = tmp_path / "result.onnx"
    path.write_bytes(proto.SerializeToString())
    plan = plan_of("gpt2_kv_dynamo", "gpt2-stacked")

    with record(sample("gpt2_kv_dynamo"), plan, VerifyOptions(ticks=3), tmp_path / "run.npz") as trace:
        found = find_culprit(sample("gpt2_kv_dynamo"), path, plan, trace=trace)
        early = find_culprit(sample("gpt2_kv_dynamo"), path, plan, trace=trace, tick=0)

    assert found is not None
    assert (found.tick, found.node.name) == (1, "node_softmax_1")
    assert early is None


def test_a_tick_at_which_too_much_differs_goes_before_one_at_which_a_little_does(tmp_path):
    """`n` counts ticks: `y` is off by 1e-6 at first, and by 1 from the third tick on."""
    ports = [("x", FLOAT, [1, 9]), ("n", FLOAT, [1, 1])], [("y", FLOAT, [1, 9]), ("m", FLOAT, [1, 1])]
    nodes = [node("m = Add n one"), node("z = Add x n"), node("y = Identity z")]
    source = tiny(tmp_path / "source.onnx", nodes, *ports, [constant("one", 1.0, FLOAT)])
    nodes[2] = node("z2 = Add z little")
    nodes += [node("late = Greater n two"), node("off = Where late one nothing"), node("y = Add z2 off")]
    nodes[-1].name = "planted node"
    constants = [constant(name, value, FLOAT) for name, value in
                 (("one", 1.0), ("little", 1e-6), ("two", 2.0), ("nothing", 0.0))]  # fmt: skip
    result = tiny(tmp_path / "result.onnx", nodes, *ports, constants)
    plan = kept(source, "n -> m: batch count")
    options = VerifyOptions(ticks=5, feeds={"n": "zeros"})

    exact = find_culprit(source, result, plan, options)
    loose = find_culprit(source, result, plan, replace(options, atol=1e-3))

    assert exact is not None
    assert loose is not None
    assert (exact.tick, loose.tick) == (0, 3)


def branches(path: Path, weight: float) -> Path:
    """A model that scales what it is given inside of an If, as a merged decoder does."""
    then = helper.make_graph(
        [helper.make_node("Mul", ["x", "inner"], ["scaled"])], "then", [],
        [helper.make_tensor_value_info("scaled", FLOAT, [1, 9])], [constant("inner", weight, FLOAT)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])], "else", [],
        [helper.make_tensor_value_info("same", FLOAT, [1, 9])],
    )  # fmt: skip
    nodes = [
        node("sum = ReduceSum past", keepdims=0), node("zero = Sub sum sum"), node("yes = Equal zero zero"),
        node("chosen = If yes", then_branch=then, else_branch=other),
        node("y = Add chosen past"), node("present = Identity y"),
    ]  # fmt: skip
    nodes[3].name = "branch"
    ports = [("x", FLOAT, [1, 9]), ("past", FLOAT, [1, 9])], [("y", FLOAT, [1, 9]), ("present", FLOAT, [1, 9])]
    return tiny(path, nodes, *ports)


def test_a_fault_within_a_branch_is_told_by_the_node_that_branches(tmp_path):
    source, result = branches(tmp_path / "source.onnx", 2.0), branches(tmp_path / "result.onnx", 2.5)

    culprit = find_culprit(source, result, kept(source, "past -> present: batch dim"), VerifyOptions(ticks=1))

    assert culprit is not None
    assert culprit.node.name == "branch"
    assert [change.split(" is ")[0] for change in culprit.changes] == ["the attribute `then_branch`"]


def test_values_that_are_no_tensors_are_passed_by(tmp_path):
    nodes = [
        node("parts = SequenceConstruct x past"), node("all = ConcatFromSequence parts", axis=0),
        node("y = Mul all two"), node("present = Identity past"),
    ]  # fmt: skip
    nodes[2].name = "double"
    ports = [("x", FLOAT, [1, 9]), ("past", FLOAT, [1, 9])], [("y", FLOAT, [2, 9]), ("present", FLOAT, [1, 9])]
    source = tiny(tmp_path / "source.onnx", nodes, *ports, [constant("two", 2.0, FLOAT)])
    result = tiny(tmp_path / "result.onnx", nodes, *ports, [constant("two", 3.0, FLOAT)])

    culprit = find_culprit(source, result, kept(source, "past -> present: batch dim"), VerifyOptions(ticks=1))

    assert culprit is not None
    assert culprit.node.name == "double"


def test_bfloat16_inside_is_compared_bit_by_bit(tmp_path):
    nodes = [
        node("small = Cast x", to=BFLOAT16), node("wide = Cast small", to=FLOAT), node("b = Add wide past"),
        node("y = Relu b"), node("present = Identity y"),
    ]  # fmt: skip
    nodes[2].name = "add"
    ports = [("x", FLOAT, [1, 9]), ("past", FLOAT, [1, 9])], [("y", FLOAT, [1, 9]), ("present", FLOAT, [1, 9])]
    source = tiny(tmp_path / "source.onnx", nodes, *ports)
    nodes[2].op_type = "Sub"
    result = tiny(tmp_path / "result.onnx", nodes, *ports)

    culprit = find_culprit(source, result, kept(source, "past -> present: batch dim"), VerifyOptions(ticks=1))

    assert culprit is not None
    assert (culprit.node.name, culprit.node.op_type) == ("add", "Sub")


@pytest.mark.parametrize(
    ("values", "is_plain"),
    [
        ([1, 2, 3, 4], True), ([True, False], True), ([], True), ([0.5, 1.0, -3.25], True), ([0.1, 0.1], True),
        ([np.nan, np.inf], True), ([0.1], False), ([0.1, 0.5], False),
    ],
)  # fmt: skip
def test_values_that_may_well_be_equal_by_chance_are_plain(values, is_plain):
    assert inner.print_of(np.array(values)).is_plain is is_plain


def test_inner_values_are_fetched_a_few_at_a_time(tmp_path, monkeypatch):
    """Forty values of 8 KB each, of which no more than 64 KB may be fetched at once."""
    count, size = 200, 2048
    nodes = [node(f"v{index + 1} = Neg v{index}") for index in range(count)] + [node("present = Add past v9")]
    path = tiny(
        tmp_path / "x.onnx", nodes, [("v0", FLOAT, [size]), ("past", FLOAT, [size])],
        [(f"v{count}", FLOAT, [size]), ("present", FLOAT, [size])],
    )  # fmt: skip
    sizes: list[int] = []
    fetched = inner.fetched

    def counted(*arguments: object) -> dict[str, np.ndarray]:
        arrays = fetched(*arguments)
        sizes.append(sum(array.nbytes for array in arrays.values()))
        return arrays

    monkeypatch.setattr(inner, "fetched", counted)
    monkeypatch.setattr(inner, "LIMIT", 1 << 16)
    feeds = {"v0": np.ones(size, np.float32), "past": np.zeros(size, np.float32)}

    prints = inner.take_prints(look_inside(path), feeds)

    assert len(prints) == count + 3
    # At first nobody knows how large they are.
    assert all(one <= 1 << 16 for one in sizes[1:])
    assert len(sizes) > 10
