"""Native exports of the same weights agree to the bit; whatever is wrong with one of them is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_models import BFLOAT16, FLOAT, INT64, constant, kept, node, tiny

from onnxfix.convention.detect import detect
from onnxfix.convention.load import load_convention
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.convention.route import Route
from onnxfix.errors import ModelReadError, ModelWriteError, VacuousCheck, VerifyError
from onnxfix.model.model import Model
from onnxfix.verify import lockstep
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.report import DifferenceError

SAMPLES = Path(__file__).parents[2] / "sample_models"
PAIRS = [
    ("conformer_packed", "conformer_kv", "wenet-kv"),
    ("conformer_kv", "conformer_packed", "wenet-packed"),
    ("conformer_packed", "conformer_kv_stacked", "wenet-kv-stacked"),
    ("conformer_kv_stacked", "conformer_kv", "wenet-kv"),
    ("conformer_packed_grow", "conformer_kv_grow", "wenet-kv"),
    ("conformer_kv_grow", "conformer_packed_grow", "wenet-packed"),
    ("conformer_packed_dynamo", "conformer_kv_dynamo", "wenet-kv"),
    ("gpt2_stacked", "gpt2_kv", "optimum"),
    ("gpt2_kv", "gpt2_stacked", "gpt2-stacked"),
    ("gpt2_kv_dynamo", "gpt2_stacked_dynamo", "gpt2-stacked"),
    ("vad_hc", "vad_state", "silero-state"),
    ("vad_state", "vad_hc", "silero-hc"),
]
WINDOWED = ("conformer_packed", "conformer_kv", "wenet-kv")


def sample(name: str) -> Path:
    return SAMPLES / f"{name}.onnx"


def plan_of(source: str, target: str, edits: Edits | None = None) -> Plan:
    binding = detect(Model.load(sample(source)).signature()).choose().binding
    return make_plan(binding, load_convention(target), edits)


def edited(name: str, folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Writes a sample after a change."""
    proto = onnx.load(sample(name))
    change(proto)
    path = folder / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


# ---------------------------------------------------------------- what is sound passes


@pytest.mark.parametrize(("source", "result", "target"), PAIRS)
def test_native_exports_agree_to_the_bit(source, result, target):
    report = verify(sample(source), sample(result), plan_of(source, target), VerifyOptions(seed=3))

    assert report.is_exact
    assert report.max_abs == 0
    assert report.ticks == (10 if source.startswith("conformer") and "grow" not in source else 8)
    assert report.outputs == 1
    assert report.states == len(plan_of(source, target).pairs)
    assert report.values > 500
    assert report.observable
    assert report.not_observable == ()


def test_the_report_says_what_each_port_had(tmp_path):
    told: list[tuple[int, int]] = []
    options = VerifyOptions(ticks=3, progress=lambda done, of: told.append((done, of)))

    report = verify(
        sample("conformer_packed"), sample("conformer_kv"), plan_of("conformer_packed", "wenet-kv"), options
    )

    rows = {port.name: port for port in report.ports}
    assert (rows["output"].is_state, rows["output"].dtype, rows["output"].shape) == (False, "float32", (1, 16, 20))
    assert (rows["r_key_cache_1"].is_state, rows["r_key_cache_1"].shape) == (True, (1, 4, 64, 5))
    assert rows["r_key_cache_1"].values == 3 * 4 * 64 * 5
    assert report.fed == {
        "chunk": "features", "offset": "offset", "required_cache_size": "cache-length", "att_mask": "mask"
    }  # fmt: skip
    parts = [f"attention, layer {layer}, {kv}" for layer in range(3) for kv in ("key", "value")]
    assert report.observable == (*parts, *(f"convolution, layer {layer}" for layer in range(3)))
    # Three ticks from full and three from empty caches, on either side, and nine parts of the state.
    assert told == [(done, 12 + 9) for done in range(1, 22)]


def test_the_same_seed_gives_the_same_run():
    runs = [verify(sample("vad_hc"), sample("vad_hc"), plan_of("vad_hc", "silero-hc")) for _ in range(2)]

    assert replace(runs[0], seconds=0) == replace(runs[1], seconds=0)


def test_renamed_and_cast_ports_are_followed(tmp_path):
    edits = Edits(rename={"input_ids": "ids", "logits": "scores"}, cast={"position_ids": "int32"})

    def change(proto: onnx.ModelProto) -> None:
        ids, _, positions = proto.graph.input[:3]
        positions.type.tensor_type.elem_type = onnx.TensorProto.INT32
        proto.graph.node.insert(0, helper.make_node("Cast", ["position_ids"], ["positions"], to=INT64))
        for one in proto.graph.node[1:]:
            one.input[:] = [{"position_ids": "positions", "input_ids": "ids"}.get(name, name) for name in one.input]
            one.output[:] = ["scores" if name == "logits" else name for name in one.output]
        ids.name, proto.graph.output[0].name = "ids", "scores"

    result = edited("gpt2_kv", tmp_path, change)
    plan = plan_of("gpt2_kv", "optimum", edits)
    # The source's order is the target's but for the mask, which the sample has in second place as Optimum does.
    assert [port.name for port in plan.inputs[:3]] == ["ids", "attention_mask", "position_ids"]

    assert verify(sample("gpt2_kv"), result, plan).is_exact


# ---------------------------------------------------------------- what is wrong is found


def permuted(route: Route, order: Callable[[int, int], int]) -> Route:
    """Gives the tensors of one side each other's names."""
    side = "target" if len(route.target) > 1 else "source"
    blocks = getattr(route, side)
    names = [block.name for block in blocks]
    moved = tuple(replace(block, name=names[order(index, len(names))]) for index, block in enumerate(blocks))
    return replace(route, **{side: moved})


ORDERS = {
    "two neighbours swapped": lambda index, count: index ^ 1 if index < 2 else index,
    "all rotated by one": lambda index, count: (index + 1) % count,
    "the other way round": lambda index, count: count - 1 - index,
}
SIDES = {"past": (True, False), "present": (False, True), "both": (True, True)}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("source", "result", "target"), [PAIRS[i] for i in (0, 1, 2, 4, 7, 8, 10, 11)])
def test_a_plan_that_mixes_up_tensors_is_caught(source, result, target, order, side):
    plan = plan_of(source, target)
    cache = plan.caches[0]
    assert cache.present is not None
    past, present = SIDES[side]
    wrong = replace(
        cache,
        past=permuted(cache.past, ORDERS[order]) if past else cache.past,
        present=permuted(cache.present, ORDERS[order]) if present else cache.present,
    )

    with pytest.raises(DifferenceError):
        verify(sample(source), sample(result), replace(plan, caches=(wrong, *plan.caches[1:])))


def behind(proto: onnx.ModelProto, output: str, *nodes: onnx.NodeProto) -> None:
    """Puts nodes between what computes an output (`was`) and the output."""
    for one in proto.graph.node:
        one.input[:] = ["was" if name == output else name for name in one.input]
        one.output[:] = ["was" if name == output else name for name in one.output]
    proto.graph.node.extend(nodes)


def swap_ports(proto: onnx.ModelProto) -> None:
    """Gives two caches of the model, input and output, each other's name: keys become values."""
    swap = {"key_cache_1": "value_cache_1", "value_cache_1": "key_cache_1"}
    swap |= {f"r_{old}": f"r_{new}" for old, new in swap.items()}
    for one in proto.graph.node:
        one.input[:] = [swap.get(name, name) for name in one.input]
        one.output[:] = [swap.get(name, name) for name in one.output]


def stale(proto: onnx.ModelProto) -> None:
    """A cache puts out what it was, so that the model is always one tick behind."""
    behind(proto, "r_value_cache_2", node("r_value_cache_2 = Identity value_cache_2"))


def shifted(proto: onnx.ModelProto) -> None:
    """The time axis of a cache is rotated by one frame."""
    proto.graph.initializer.extend(
        [constant("one", [1]), constant("end", [2**31]), constant("none", [0]), constant("axis", [2])]
    )
    behind(
        proto, "r_key_cache_0", node("tail = Slice was one end axis"), node("head = Slice was none one axis"),
        node("r_key_cache_0 = Concat tail head", axis=2),
    )  # fmt: skip


def unmasked(proto: onnx.ModelProto) -> None:
    """The mask is ignored: everything may be seen."""
    for one in proto.graph.node:
        one.input[:] = ["everything" if name == "att_mask" else name for name in one.input]
    proto.graph.node.insert(0, node("hidden = Not att_mask"))
    proto.graph.node.insert(1, node("everything = Or att_mask hidden"))


def one_ulp(proto: onnx.ModelProto) -> None:
    """One weight is off by one unit in the last place."""
    tensor = max(proto.graph.initializer, key=lambda one: one.data_type == FLOAT and len(one.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.argmax(np.abs(array)), array.shape)
    array[place] = np.nextafter(array[place], np.float32(np.inf))
    tensor.raw_data = array.tobytes()


@pytest.mark.parametrize("change", [swap_ports, stale, shifted, unmasked, one_ulp])
def test_a_result_that_computes_something_else_is_caught(tmp_path, change):
    source, result, target = WINDOWED
    wrong = edited(result, tmp_path, change)

    with pytest.raises(DifferenceError):
        verify(sample(source), wrong, plan_of(source, target))


def test_a_difference_is_told_with_its_place(tmp_path):
    wrong = edited("conformer_kv", tmp_path, stale)

    with pytest.raises(DifferenceError) as error:
        verify(sample("conformer_packed"), wrong, plan_of("conformer_packed", "wenet-kv"))

    report = error.value.report
    port = next(port for port in report.ports if port.mismatched)
    assert (port.name, port.tick, report.ticks) == ("output", 1, 10)
    port = next(port for port in report.ports if port.tick == 0)
    first = port.ticks[0].difference
    assert port.name == "r_value_cache_2"
    assert [one.tick for one in port.ticks] == list(range(10))
    assert report.observable
    assert not report.is_exact
    assert port.worst is not None
    # How it goes on, and how it goes otherwise, is part of the picture.
    assert [(run.start, run.ticks, run.passed) for run in report.runs] == [("full", 10, False), ("empty", 10, False)]
    assert error.value.where == "r_value_cache_2 (full start), tick 0"
    assert str(error.value) == (
        f"r_value_cache_2 (full start), tick 0: at {list(port.worst.index)} the source has {port.worst.expected}, the "
        f"result {port.worst.actual}; {first.mismatched} values differ, by {first.max_abs:.3g} at most"
    )
    assert error.value.exit_code == 4


def drop_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[-1]


def reverse_inputs(proto: onnx.ModelProto) -> None:
    inputs = [*proto.graph.input]
    del proto.graph.input[:]
    proto.graph.input.extend(reversed(inputs))


def other_type(proto: onnx.ModelProto) -> None:
    behind(proto, "output", node("output = Cast was", to=onnx.TensorProto.DOUBLE))
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def not_runnable(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].op_type = "NoSuchOperator"


def not_accepted(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 66


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_output, "outputs of the result are not those of the plan: `r_cnn_cache float32` is missing"),
        (reverse_inputs, "inputs of the result .*: `att_mask bool` stands where `chunk float32` belongs"),
        (other_type, "outputs of the result .*: `output float64` stands where `output float32` belongs"),
        (not_runnable, "the source can be run, the result not: onnxruntime cannot load .*NoSuchOperator"),
        (not_accepted, "the source can be run, the result not: Got invalid dimensions .*67 Expected: 66"),
    ],
)
def test_a_result_with_another_contract_is_caught(tmp_path, capfd, change, message):
    wrong = edited("conformer_kv", tmp_path, change)

    with pytest.raises(VerifyError, match=message):
        verify(sample("conformer_packed"), wrong, plan_of("conformer_packed", "wenet-kv"))

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_is_no_model_is_a_read_error(tmp_path, which):
    paths = [sample("vad_hc"), sample("vad_hc")]
    paths[which] = tmp_path / "new.onnx"
    for content in (None, b"text"):
        if content is not None:
            paths[which].write_bytes(content)
        with pytest.raises(ModelReadError, match=r"new\.onnx"):
            verify(*paths, plan_of("vad_hc", "silero-hc"))


# ---------------------------------------------------------------- what proves nothing does not pass

X = ("x", FLOAT, [1, 3])
PAST, PRESENT = ("past", FLOAT, [2, 3]), ("present", FLOAT, [2, 3])
SENTENCE = "past -> present: layer dim"
NOTHING = {
    "the state is ignored": (["y = Relu x", "present = Identity past"], "no output depends on the state"),
    "the outputs are constant": (
        ["zero = Sub x x", "y = Sign zero", "present = Identity past"], "every output is the same at every tick",
    ),
    "only NaN comes out": (
        ["minus = Sub x x", "y = Div minus minus", "half = Sub past past", "present = Div half half"],
        "no value was compared",
    ),
    "NaN hides the state": (
        ["a = ReduceSum past", "zero = Sub a a", "nan = Div zero zero", "y = Add x nan", "present = Identity past"],
        "every output is NaN",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_counts_as_a_proof_unless_the_state_shows(tmp_path, case):
    nodes, message = NOTHING[case]
    path = tiny(tmp_path / "x.onnx", [node(text) for text in nodes], [X, PAST], [("y", FLOAT, [1, 3]), PRESENT])

    with pytest.raises(VacuousCheck, match=message) as error:
        verify(path, path, kept(path, SENTENCE))

    assert error.value.hint


def test_no_tick_proves_nothing():
    with pytest.raises(VacuousCheck, match="no tick"):
        verify(sample("vad_hc"), sample("vad_hc"), plan_of("vad_hc", "silero-hc"), VerifyOptions(ticks=0))


def test_a_cache_that_has_no_length_proves_nothing(tmp_path):
    nodes = [node("all = Concat past x", axis=0), node("present = Slice all end end"), node("y = Relu x")]
    empty = ("past", FLOAT, [0, 3]), ("present", FLOAT, [0, 3])
    path = tiny(tmp_path / "x.onnx", nodes, [X, empty[0]], [("y", FLOAT, [1, 3]), empty[1]], [constant("end", [2**31])])

    with pytest.raises(VacuousCheck, match="every cache is empty at every tick"):
        verify(path, path, kept(path, "past -> present: time dim"))


def test_a_dead_layer_is_named(tmp_path):
    def path(order: str) -> Path:
        nodes = [
            node("live dead = Split past", axis=0),
            node("y = Add x live"),
            node(f"present = Concat {order}", axis=0),
        ]
        return tiny(tmp_path / "x.onnx", nodes, [X, PAST], [("y", FLOAT, [1, 3]), PRESENT])

    report = verify(path("y dead"), path("y dead"), kept(path("y dead"), SENTENCE), VerifyOptions(ticks=1))

    assert (report.observable, report.not_observable) == (("cache, layer 0",), ("cache, layer 1",))
    # Here the second layer becomes the first, and is followed until then.
    assert verify(path("dead y"), path("dead y"), kept(path("dead y"), SENTENCE)).not_observable == ()


def test_no_place_to_record_is_one_clear_error(monkeypatch):
    def nowhere(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(lockstep.tempfile, "TemporaryDirectory", nowhere)
    with pytest.raises(ModelWriteError, match="no place to record the source: No usable") as error:
        verify(sample("vad_hc"), sample("vad_hc"), plan_of("vad_hc", "silero-hc"))
    assert error.value.hint.startswith("set TMPDIR")


def test_a_long_cache_is_followed_beyond_the_ticks_that_are_compared(tmp_path):
    nodes = [
        node("young = Slice past one end one"), node("present = Concat young last", axis=1),
        node("oldest = Slice past none one one"), node("y = Add oldest x"), node("new = Identity x"),
    ]  # fmt: skip
    path = tiny(
        tmp_path / "x.onnx", nodes,
        [("x", FLOAT, [1, 1]), ("past", FLOAT, [1, 20]), ("last", FLOAT, [1, 1])],
        [("y", FLOAT, [1, 1]), ("present", FLOAT, [1, 20]), ("new", FLOAT, [1, 1])],
        [constant("none", [0]), constant("one", [1]), constant("end", [2**31])],
    )  # fmt: skip

    report = verify(path, path, kept(path, "past -> present: batch time", "last -> new: batch dim"))

    assert (report.ticks, report.observable, report.not_observable) == (42, ("cache1", "cache2"), ())


def test_bfloat16_is_compared_bit_by_bit(tmp_path):
    nodes = [
        node("wide = Cast past", to=FLOAT), node("y = Add x wide"), node("present = Cast y", to=BFLOAT16),
    ]  # fmt: skip
    ports = [X, ("past", BFLOAT16, [1, 3])], [("y", FLOAT, [1, 3]), ("present", BFLOAT16, [1, 3])]
    path = tiny(tmp_path / "x.onnx", nodes, *ports)
    nodes[1] = node("y = Sub x wide")
    wrong = tiny(tmp_path / "wrong.onnx", nodes, *ports)
    plan = kept(path, "past -> present: batch dim")

    assert verify(path, path, plan).observable == ("cache",)
    with pytest.raises(DifferenceError, match="y, tick 0"):
        verify(path, wrong, plan)


@pytest.mark.parametrize("sentence", ["count: batch", "count -> new: batch"])
def test_a_state_of_integers_is_disturbed_too(tmp_path, sentence):
    nodes = [node("real = Cast count", to=FLOAT), node("y = Add x real"), node("new = Add count one")]
    path = tiny(
        tmp_path / "x.onnx", nodes, [("x", FLOAT, [1]), ("count", INT64, [1])],
        [("y", FLOAT, [1]), ("new", INT64, [1])], [constant("one", [1])],
    )  # fmt: skip

    assert verify(path, path, kept(path, sentence)).observable == ("cache",)
