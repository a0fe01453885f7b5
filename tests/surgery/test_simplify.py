"""Simplification: first what it must not do, then what it must."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from onnxfix.model.model import Model
from onnxfix.surgery import simplifier
from onnxfix.surgery.simplify import SimplifyReport, simplify
from tests.model.files import CORPUS, external, parsed, tensor, written

SAMPLES = sorted((Path(__file__).parents[2] / "sample_models").glob("conformer*.onnx"))
"""Exports by TorchScript and by dynamo."""

CHAIN = """
g (float[2, t, 8] x) => (float[2, t, 4] y, float[2, t, 4] z)
<int64 three = {2}, int64[1] axis = {2}, int64[1] zero = {0}> {
    [s1] s1 = Shape (x)
    [g1] g1 = Gather (s1, three)
    [s2] s2 = Shape (x)
    [g2] g2 = Gather (s2, three)
    two = Constant <value_int = 2> ()
    [h1] h1 = Div (g1, two)
    [u1] u1 = Unsqueeze (h1, zero)
    [h2] h2 = Div (g2, two)
    [u2] u2 = Unsqueeze (h2, zero)
    u3 = Unsqueeze (g2, zero)
    [low] y = Slice (x, zero, u1, axis)
    [high] z = Slice (x, u2, u3, axis)
}
"""
"""What TorchScript makes of `x[..., :8 // 2]` and `x[..., 8 // 2 : 8]`."""


def operators(proto: onnx.ModelProto) -> dict[str, int]:
    counted = collections.Counter(node.op_type for node in proto.graph.node)
    del counted["Constant"]
    return dict(counted)


def feeds(model: Model, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {}
    for port in model.signature().inputs:
        shape = [dim if isinstance(dim, int) else sizes.get(dim or "", 3) for dim in port.dims or ()]
        if port.dtype.startswith("float"):
            arrays[port.name] = random.standard_normal(shape).astype(port.dtype)
        else:
            arrays[port.name] = np.full(shape, sizes.get(port.name, 1), port.dtype)
    return arrays


def run(path_or_proto: onnx.ModelProto | Path, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = path_or_proto if isinstance(path_or_proto, Path) else path_or_proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, arrays))


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What it must not do


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.parent.name)
def test_no_model_gets_larger_loses_ports_or_changes_twice(path: Path) -> None:
    source, model = Model.load(path), Model.load(path)
    report = simplify(model)
    assert report.nodes_after <= report.nodes_before
    assert report.reason == ""
    assert list(model.proto.graph.input) == list(source.proto.graph.input)
    assert list(model.proto.graph.output) == list(source.proto.graph.output)
    model.require_no_new_complaint(lambda: source)
    once = model.proto.SerializeToString()
    if not report.is_taken:
        assert once == path.read_bytes()
    assert not simplify(model).is_taken
    assert model.proto.SerializeToString() == once


def weights_alike() -> onnx.ModelProto:
    """Two weights of one type and size, and two nodes that differ in nothing else."""
    model = parsed("g (float[2, 400] x) => (float[2, 400] y) { a = Add (x, v) b = Add (x, w) y = Mul (a, b) }")
    model.graph.initializer.extend([tensor(name, np.full(400, k, np.float32)) for k, name in enumerate("vw")])
    return model


def external_weights_alike(folder: Path) -> onnx.ModelProto:
    model = weights_alike()
    (folder / "w.data").write_bytes(np.arange(800, dtype=np.float32).tobytes())
    del model.graph.initializer[:]
    for index, name in enumerate("vw"):
        model.graph.initializer.append(external(name, [400], location="w.data", offset=1600 * index, length=1600))
    return model


def nested_weights_alike() -> onnx.ModelProto:
    branch = "() => (float[2, 400] {0}) {{ a = Add (x, v) b = Add (x, w) {0} = Mul (a, b) }}"
    model = parsed(
        f"g (float[2, 400] x, bool c) => (float[2, 400] y) {{ y = If (c) <then_branch = t {branch.format('p')}, "
        f"else_branch = e {branch.format('q')}> }}"
    )
    for attribute in model.graph.node[0].attribute:
        attribute.g.initializer.extend([tensor(name, np.full(400, k, np.float32)) for k, name in enumerate("vw")])
    return model


@pytest.mark.parametrize("kind", ["inline", "external", "nested"])
def test_weights_that_look_alike_are_not_merged(tmp_path: Path, kind: str) -> None:
    made = {"inline": weights_alike, "nested": nested_weights_alike}
    proto = made[kind]() if kind in made else external_weights_alike(tmp_path)
    # Two equal nodes, so that there is something to take.
    proto.graph.node.extend([helper.make_node("Neg", ["y"], ["n1"]), helper.make_node("Neg", ["y"], ["n2"])])
    proto.graph.node.append(helper.make_node("Sub", ["n1", "n2"], ["d"]))
    proto.graph.output.append(helper.make_tensor_value_info("d", 1, None))
    source = written(tmp_path / "model.onnx", proto)
    model = Model.load(source)
    assert simplify(model).is_taken
    model.save(tmp_path / "new.onnx")
    arrays = feeds(model, {})
    if kind == "nested":
        arrays["c"] = np.array(True)
    assert same(run(tmp_path / "new.onnx", arrays), run(source, arrays))
    assert operators(model.proto)["Neg"] == 1


@pytest.mark.parametrize(
    "draw", ["RandomNormal <shape = [2]> ()", "RandomUniform <shape = [2000]> ()", "local.draw ()"]
)
def test_what_is_random_is_not_a_duplicate(draw: str) -> None:
    proto = parsed(f"g (float[2] x) => (float[n] y) {{ a = {draw} b = {draw} c = Sub (a, b) n1 = Neg (x) n2 = Neg (x) "
                   "d = Sub (n1, n2) y = Concat <axis = 0> (c, d) }")  # fmt: skip
    node = helper.make_node("RandomNormal", [], ["o"], shape=[2])
    function = helper.make_function("local", "draw", [], ["o"], [node], [proto.opset_import[0]])
    if draw.startswith("local"):
        proto.functions.append(function)
        proto.opset_import.add(domain="local", version=1)
    model = Model.from_proto(proto)
    drawing = [node.SerializeToString() for node in proto.graph.node[:2]]
    assert simplify(model).is_taken
    assert [node.SerializeToString() for node in proto.graph.node[:2]] == drawing
    assert operators(proto)["Neg"] == 1


def test_a_large_constant_is_not_written_out() -> None:
    model = Model.from_proto(
        parsed("""g (float[x] x) => (float[a, b] y) <int64[2] shape = {2000, 2000}> {
            zeros = ConstantOfShape (shape)
            ones = Exp (zeros)
            n1 = Neg (x) n2 = Neg (x) n = Sub (n1, n2)
            y = Mul (ones, n)
        }""")
    )
    report = simplify(model)
    assert (report.nodes_before, report.nodes_after) == (6, 5)
    assert operators(model.proto)["ConstantOfShape"] == 1
    assert len(model.proto.SerializeToString()) < 1000


def test_a_default_that_the_caller_may_override_is_not_folded() -> None:
    proto = parsed(CHAIN)
    proto.graph.input.append(helper.make_tensor_value_info("three", onnx.TensorProto.INT64, []))
    model = Model.from_proto(proto)
    simplify(model)
    assert "Gather" in operators(model.proto)


def test_nothing_is_lost_and_nothing_added_around_the_graph() -> None:
    proto = parsed(CHAIN)
    helper.set_model_props(proto, {"b": "1", "a": "2"})
    proto.doc_string, proto.graph.doc_string, proto.producer_name = "a model", "a graph", "exporter"
    proto.graph.metadata_props.add(key="graph", value="kept")
    proto.graph.input[0].doc_string = "the input"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "frames"
    for node in proto.graph.node:
        node.doc_string = f"docs of {node.name}"
        node.metadata_props.add(key="namespace", value=node.name)
    function = helper.make_function("local", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])
    function.opset_import.add(domain="", version=17)
    proto.functions.append(function)
    proto.opset_import.add(domain="local", version=1)
    proto.graph.node.append(helper.make_node("f", ["y"], ["called"], domain="local"))
    proto.graph.output.append(helper.make_tensor_value_info("called", 1, None))
    before = onnx.ModelProto()
    before.CopyFrom(proto)
    assert simplify(Model.from_proto(proto)).is_taken
    # Nodes and initializers apart, the model is what it was; nodes that remain differ in their inputs alone.
    kept = {node.output[0]: node for node in before.graph.node}
    for node in proto.graph.node:
        del node.input[:]
        del kept[node.output[0]].input[:]
        assert node == kept[node.output[0]]
    for model in (before, proto):
        for field in ("node", "initializer"):
            model.graph.ClearField(field)
    assert proto == before


def test_training_graphs_are_a_reason_to_leave_a_model_alone() -> None:
    proto = parsed(CHAIN)
    proto.training_info.add().algorithm.node.append(helper.make_node("Neg", ["y"], ["b"]))
    before = proto.SerializeToString()
    report = simplify(Model.from_proto(proto))
    assert report == SimplifyReport(
        12, 12, False, "the model has training graphs, which may refer to any of its values"
    )
    assert proto.SerializeToString() == before


def raising(*_: object, **__: object) -> object:
    raise ValueError("No Op registered for Strange\nand more")


def with_other_outputs(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
    del model.graph.node[:]
    model.graph.output[0].name = "strange"
    return model, True


def with_a_node_missing(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
    del model.graph.node[-1]
    return model, True


def not_valid(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
    del model.graph.node[-1]
    return model, False


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (raising, "onnxsim failed: No Op registered for Strange"),
        (with_other_outputs, "onnxsim changed the outputs"),
        (with_a_node_missing, "nothing produces `z` any more, which a graph output reads"),
        (not_valid, "onnxsim's result is not valid"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_onnxsim_fails_the_model_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, broken: object, reason: str
) -> None:
    monkeypatch.setattr(simplifier.load_library(), "simplify", raising)
    monkeypatch.setattr(simplifier.load_package(), "simplify", broken)
    proto = parsed(CHAIN)
    before = proto.SerializeToString()
    report = simplify(Model.from_proto(proto))
    assert (report.is_taken, report.reason) == (False, reason)
    assert proto.SerializeToString() == before


def test_the_terminal_stays_clean(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    library = simplifier.load_library()
    real = library.simplify

    def talkative(*args: object, **options: object) -> object:
        print("from Python", file=sys.stdout)  # noqa: T201
        print("from Python", file=sys.stderr)  # noqa: T201
        os.write(1, b"from C++")
        os.write(2, b"from C++")
        return real(*args, **options)

    monkeypatch.setattr(library, "simplify", talkative)
    assert simplify(Model.from_proto(parsed(CHAIN))).is_taken
    os.write(2, b"heard again")
    assert capfd.readouterr() == ("", "heard again")


# What it must


def test_sizes_that_are_static_are_folded_and_duplicates_merged() -> None:
    model = Model.from_proto(parsed(CHAIN))
    expected = run(model.proto, feeds(model, {"t": 5}))
    assert simplify(model) == SimplifyReport(nodes_before=12, nodes_after=2, is_taken=True)
    assert operators(model.proto) == {"Slice": 2}
    low, high = model.proto.graph.node
    values = {stored.name: onnx.numpy_helper.to_array(stored).tolist() for stored in model.proto.graph.initializer}
    assert [values[name] for name in low.input[1:]] == [[0], [4], [2]]
    assert [values[name] for name in high.input[1:]] == [[4], [8], [2]]
    assert same(run(model.proto, feeds(model, {"t": 5})), expected)


@pytest.mark.parametrize("path", [CHAIN, *SAMPLES[:4]], ids=lambda path: getattr(path, "stem", "chain"))
def test_the_library_and_the_package_make_the_same(path: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release may not like how its library is asked: then its package is."""
    results = []
    asked = []
    real = simplifier.load_package().simplify

    def counted(*args: object, **options: object) -> object:
        asked.append(1)
        return real(*args, **options)

    monkeypatch.setattr(simplifier.load_package(), "simplify", counted)
    for is_other in (False, True):
        if is_other:
            monkeypatch.setattr(simplifier.load_library(), "simplify", raising)
        model = Model.load(path) if isinstance(path, Path) else Model.from_proto(parsed(path))
        assert simplify(model).reason == ""
        results.append(model.proto.SerializeToString())
        assert bool(asked) == is_other
    assert results[0] == results[1]


def test_the_result_is_the_same_every_time() -> None:
    results = set()
    for _ in range(3):
        model = Model.from_proto(parsed(CHAIN))
        simplify(model)
        results.add(model.proto.SerializeToString())
    assert len(results) == 1


def test_a_duplicate_that_a_nested_graph_reads_is_merged_too() -> None:
    model = Model.from_proto(
        parsed("""g (float[2] x, bool c) => (float[2] y) {
            a = Neg (x)
            b = Neg (x)
            s = Add (a, b)
            y = If (c) <then_branch = t () => (float[2] p) { p = Add (b, s) }, else_branch = e () => (float[2] q) {
                q = If (c) <then_branch = tt () => (float[2] r) { r = Neg (b) },
                            else_branch = ee () => (float[2] r) { r = Mul (b, a) }>
            }>
        }""")
    )
    arrays = {"x": np.float32([1, 2]), "c": np.array(False)}
    expected = run(model.proto, arrays)
    assert simplify(model).is_taken
    assert operators(model.proto) == {"Neg": 1, "Add": 1, "If": 1}
    assert same(run(model.proto, arrays), expected)


def test_weights_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(3200))
    proto = parsed(CHAIN)
    proto.graph.initializer.append(external("w", [800], location="w.data", length=3200))
    proto.graph.node.append(helper.make_node("Abs", ["w"], ["v"]))
    proto.graph.output.append(helper.make_tensor_value_info("v", 1, [800]))
    model = Model.load(written(tmp_path / "model.onnx", proto))
    (tmp_path / "w.data").chmod(0)
    assert simplify(model).is_taken
    assert model.external_files() == (("w.data", 3200),)
    assert operators(model.proto) == {"Slice": 2, "Abs": 1}


SIZES = {"T": 67, "T_CACHE": 64, "T_ADD_T_CACHE": 80, "B": 1, "offset": 64, "required_cache_size": 64, "s33": 80}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_exports_of_real_networks_are_simplified_bit_for_bit(path: Path) -> None:
    model = Model.load(path)
    arrays = feeds(model, SIZES)
    expected = run(model.proto, arrays)
    report = simplify(model)
    assert same(run(model.proto, arrays), expected)
    if not path.stem.endswith("_dynamo"):
        assert report.nodes_after < 0.8 * report.nodes_before


FLOOR = """
import sys
from onnxfix.model.model import Model
from onnxfix.surgery.simplify import simplify

model = Model.load(sys.argv[1])
assert simplify(model).is_taken
model.save(sys.argv[2])
# Not getrusage: its peak counts the memory of the process that this one was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024, bool({"torch", "sympy"} & set(sys.modules)))
"""


def test_a_model_with_weights_of_gigabytes_takes_little_memory(tmp_path: Path) -> None:
    size = 1_500_000_000
    with (tmp_path / "w.data").open("wb") as data:
        data.truncate(size)
    proto = parsed(CHAIN)
    for index in range(100):
        length = size // 100
        stored = external(f"w{index}", [length // 4], location="w.data", offset=index * length, length=length)
        proto.graph.initializer.append(stored)
        proto.graph.node.append(helper.make_node("Abs", [stored.name], [f"v{index}"]))
        proto.graph.output.append(helper.make_tensor_value_info(f"v{index}", 1, None))
    source = written(tmp_path / "model.onnx", proto)
    (tmp_path / "new").mkdir()
    command = [sys.executable, "-c", FLOOR, str(source), str(tmp_path / "new/model.onnx")]
    peak, is_heavy = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(peak) < 200, "MB"
    assert is_heavy == "False"
    assert (tmp_path / "new/w.data").stat().st_size == size


def test_a_renamed_node_with_weights_in_a_nested_graph_stops_it() -> None:
    """onnxsim drops the Identity and renames the If's output; the nested weight that it saw is only a stub."""
    proto = parsed(
        """
        g (float[400] x, bool c) => (float[400] y) {
            inner = If (c) <
                then_branch = t () => (float[400] p) { w = RandomNormal <shape = [400], seed = 1.0> () p = Add (x, w) },
                else_branch = e () => (float[400] q) { q = Neg (x) }
            >
            y = Identity (inner)
        }
        """
    )
    branch = proto.graph.node[0].attribute[0].g
    del branch.node[0]
    branch.initializer.append(tensor("w", np.ones(400, np.float32)))
    model = Model.from_proto(proto)
    before = model.proto.SerializeToString()
    report = simplify(model)
    assert not report.is_taken
    assert "nested graphs" in report.reason
    assert model.proto.SerializeToString() == before


TWICE = """
import sys, onnx
from onnxfix.model.model import Model
from onnxfix.surgery.simplify import simplify
for _ in range(2):
    model = Model.load(sys.argv[1])
    assert not simplify(model).is_taken, onnx.printer.to_text(model.proto.graph)
"""


def test_the_first_model_of_a_process_is_simplified_as_all_others(tmp_path: Path) -> None:
    """onnxsim names most of its passes only after it has run once; those that fuse would put sums in another order."""
    proto = parsed(
        """
        g (float[t, 3] x) => (float[t, 3] y)
        <float[3] a = {1.1, 1.2, 1.3}, float[3] b = {1.7, 1.9, 2.3}> { x1 = Mul (x, a) y = Mul (x1, b) }
        """
    )
    source = written(tmp_path / "model.onnx", proto)
    done = subprocess.run([sys.executable, "-c", TWICE, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


DEFERRED = """
import sys
from onnxfix.surgery.simplifier import load_library, load_package
library = load_library()
assert "onnxsim.onnx_simplifier" not in sys.modules, "what stands around the library was loaded"
ours = load_package()
assert ours.C is library
assert "onnxsim.accuracy" not in sys.modules, "what quantises was loaded"
import onnxsim
assert "onnxsim.accuracy" not in sys.modules, "so far nobody asked for it"
from onnxsim import *
assert onnxsim.simplify is ours.simplify
assert onnxsim.accuracy.quantize is onnxsim.quantize is quantize
assert onnxsim.version.version == onnxsim.__version__
try:
    onnxsim.nothing
except AttributeError:
    print("whole")
"""


def test_whoever_imports_onnxsim_besides_gets_all_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", DEFERRED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


KNOWN = """
import onnxsim
from onnxfix.surgery.simplifier import load_library, load_package
assert load_package() is onnxsim.onnx_simplifier
assert load_library() is onnxsim.onnx_simplifier.C
"""


def test_onnxsim_is_taken_as_it_is_if_somebody_has_imported_it() -> None:
    done = subprocess.run([sys.executable, "-c", KNOWN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
