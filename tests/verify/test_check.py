"""The second half of a verification: declared dims, the order of ports, the teacher, and one session at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_models import FLOAT, node, tiny

import onnxfix
from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, PlanError, UsageError, VacuousCheck, VerifyError
from onnxfix.verify import check
from onnxfix.verify.dims import contradictions
from onnxfix.verify.report import DifferenceError
from onnxfix.verify.session import Session
from tests.model.files import external, written

SAMPLES = Path(__file__).parents[2] / "sample_models"
STATE, HC = SAMPLES / "vad_state.onnx", SAMPLES / "vad_hc.onnx"
THREE = onnxfix.VerifyOptions(ticks=3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a trace of a sample."""
    path = tmp_path_factory.mktemp("trace") / "run.npz"
    onnxfix.record(STATE, path, options=THREE).close()
    return path


def edited(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Writes the sample that the trace is held against, after a change."""
    proto = onnx.load(HC)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def dim(proto: onnx.ModelProto, port: str, index: int) -> onnx.TensorShapeProto.Dimension:
    return next(
        value.type.tensor_type.shape.dim[index]
        for value in (*proto.graph.input, *proto.graph.output)
        if value.name == port
    )


# ---------------------------------------------------------------- what the result declares

TABLE = [
    ([(2, "n")], [(2, 3)], []),
    ([(2, "n"), ("n", 4)], [(2, 3), (3, 4)], []),
    ([None, (None, "n")], [(9, 9), (1, 2)], []),
    ([(2, "n")], [(3, 3)], ["p0: [2, n] is [3, 3]"]),
    ([(2,)], [(2, 1)], ["p0: [2] is [2, 1]"]),
    ([("n",), ("n",)], [(3,), (4,)], ["p1 n: [n], with n = 3 as in `p0` is [4]"]),
    ([("n", "n")], [(3, 4)], ["p0 n: [n, n], with n = 3 as in `p0` is [3, 4]"]),
    ([(1,), (2,)], [(2,), (2,)], ["p0: [1] is [2]"]),
]


@pytest.mark.parametrize(("dims", "shapes", "found"), TABLE)
def test_contradictions(dims, shapes, found):
    ports = [Port(f"p{index}", "float32", one) for index, one in enumerate(dims)]
    arrays = {f"p{index}": np.zeros(shape, np.float32) for index, shape in enumerate(shapes)}

    told = [
        f"{one.port}{' ' * bool(one.symbol)}{one.symbol}: {one.mismatch.expected} is {one.mismatch.actual}"
        for one in contradictions(ports, arrays)
    ]

    assert told == found
    assert contradictions(ports, arrays, ["n", "p0"]) == []


def fixed_wrongly(proto: onnx.ModelProto) -> None:
    dim(proto, "output", 1).dim_value = 2


def symbol_of_two_sizes(proto: onnx.ModelProto) -> None:
    dim(proto, "output", 1).dim_param = "batch"


def input_symbol_of_two_sizes(proto: onnx.ModelProto) -> None:
    dim(proto, "h", 2).dim_param = "batch"


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        (fixed_wrongly, "output, tick 0", r"declares the dims \[batch, 2\], and puts out \[\d+, 1\]"),
        (symbol_of_two_sizes, "output, tick 0", r"declares the dims \[batch, batch\], with batch = \d+ as in `input`"),
        (input_symbol_of_two_sizes, "h", r"declares the dims \[1, batch, batch\].*, and is fed \[1, \d+, 18\]"),
    ],
)
def test_shapes_that_are_not_what_the_result_declares_fail(
    change: Callable[[onnx.ModelProto], None], where: str, message: str, recorded: Path, tmp_path: Path
) -> None:
    with pytest.raises(VerifyError, match=message) as error:
        onnxfix.verify(edited(tmp_path / "new.onnx", change), against=recorded)
    assert error.value.where == where


def test_what_the_source_declares_wrongly_is_not_held_against_the_result(tmp_path: Path) -> None:
    ports = [("x", FLOAT, [2, "n"]), ("past", FLOAT, ["n", "d"])]
    outputs = [("y", FLOAT, [2, 4]), ("present", FLOAT, ["n", "d"])]
    path = tiny(tmp_path / "x.onnx", [node("y = MatMul x past"), node("present = Identity past")], ports, outputs)
    sentence, options = "past -> present: time dim", onnxfix.VerifyOptions(3, sizes={"dim": 3})

    report = onnxfix.verify(path, path, to=sentence, from_=sentence, options=options)

    assert report.is_exact
    assert any("the source declares `y` as [2, 4], and it is [2, 3]" in note for note in report.notes)
    onnxfix.record(path, tmp_path / "run.npz", from_=sentence, options=options).close()
    assert onnxfix.verify(path, against=tmp_path / "run.npz", to=sentence).is_exact


# ---------------------------------------------------------------- which models are held against each other


def test_models_under_one_convention_are_simply_compared() -> None:
    report = onnxfix.verify(HC, HC, options=THREE)
    assert report.is_exact
    assert (report.source, report.result) == (str(HC), str(HC))


def test_conventions_without_the_same_axes_are_refused() -> None:
    with pytest.raises(PlanError, match="for different kinds of network"):
        onnxfix.verify(STATE, SAMPLES / "gpt2_kv.onnx")


def test_a_batch_that_only_one_side_has_is_one(tmp_path: Path) -> None:
    source = SAMPLES / "gpt2_kv.onnx"
    sentence = "cache -> new: layer head time (kv dim)"
    edits = onnxfix.Edits(dims={"batch_size": 1})
    onnxfix.convert(source, tmp_path / "new.onnx", to=sentence, edits=edits, simplify=False, verify=False)
    # Nobody says here that the batch is frozen: the result does.
    report = onnxfix.verify(source, tmp_path / "new.onnx", to=sentence, options=THREE)
    assert report.is_exact
    assert "the result has fixed batch_size = 1: nothing is proven of other sizes" in report.notes
    # What somebody says need not be told.
    report = onnxfix.verify(source, tmp_path / "new.onnx", to=sentence, options=THREE, edits=edits)
    assert not any("has fixed" in note for note in report.notes)


def test_a_cache_of_one_name_and_another_layout_fixes_no_size(tmp_path: Path) -> None:
    sentences = ("cache -> new: layer kv batch head time dim", "cache -> new: batch time layer kv head dim")
    for name, sentence in zip(("old", "new"), sentences, strict=True):
        path = tmp_path / f"{name}.onnx"
        onnxfix.convert(SAMPLES / "gpt2_kv.onnx", path, to=sentence, simplify=False, verify=False)
    # Four heads stand where the time stood.
    models = tmp_path / "old.onnx", tmp_path / "new.onnx"
    report = onnxfix.verify(*models, from_=sentences[0], to=sentences[1], options=THREE)
    assert report.is_exact
    assert [run.start for run in report.runs] == ["full", "empty"]
    assert not any("has fixed" in note for note in report.notes)


def test_a_run_of_other_sizes_than_the_result_takes_is_told_with_what_to_record(recorded: Path, tmp_path: Path) -> None:
    edits = onnxfix.Edits(dims={"batch": 1})
    onnxfix.convert(STATE, tmp_path / "new.onnx", to="silero-hc", edits=edits, simplify=False, verify=False)
    with pytest.raises(VerifyError, match="Got: 3 Expected: 1") as error:
        onnxfix.verify(tmp_path / "new.onnx", against=recorded)
    assert error.value.hint == "the result has fixed sizes: `onnxfix record ORIGINAL TRACE.npz --size batch=1`"
    onnxfix.record(STATE, tmp_path / "run.npz", options=onnxfix.VerifyOptions(ticks=3, sizes={"batch": 1})).close()
    assert onnxfix.verify(tmp_path / "new.onnx", against=tmp_path / "run.npz").is_exact


def test_sizes_that_no_model_has_are_refused(recorded: Path) -> None:
    with pytest.raises(UsageError, match="no axis or dim `heads`"):
        onnxfix.verify(STATE, HC, sizes={"heads": 3})
    with pytest.raises(UsageError, match="no axis or dim `heads`"):
        onnxfix.verify(HC, against=recorded, sizes={"heads": 3})
    assert onnxfix.verify(HC, against=recorded, sizes={"batch": 3, "lstm.dim": 18}).is_exact


# ---------------------------------------------------------------- the teacher


def drifting(proto: onnx.ModelProto) -> None:
    """Each cell state is put out a little larger: nothing of it shows in the output until a tick later."""
    for one in proto.graph.node:
        one.output[:] = ["was" if name == "cn" else name for name in one.output]
    proto.graph.initializer.append(helper.make_tensor("more", FLOAT, [], [1.25]))
    proto.graph.node.append(helper.make_node("Mul", ["was", "more"], ["cn"]))


def test_with_a_teacher_no_error_travels_on(recorded: Path, tmp_path: Path) -> None:
    path = edited(tmp_path / "new.onnx", drifting)
    wrong = {}
    for teacher in (False, True):
        with pytest.raises(DifferenceError) as error:
            onnxfix.verify(path, against=recorded, options=onnxfix.VerifyOptions(teacher=teacher))
        report = error.value.report
        wrong[report.mode] = {
            port.name: [one.tick for one in port.ticks if one.difference.mismatched] for port in report.ports
        }
    assert wrong == {
        "closed loop": {"output": [1, 2], "hn": [1, 2], "cn": [0, 1, 2]},
        "teacher": {"output": [], "hn": [], "cn": [0, 1, 2]},
    }


# ---------------------------------------------------------------- nothing but NaN


def spoiling(proto: onnx.ModelProto) -> None:
    """The cell state is NaN: what is put out next is, too, and for ever after."""
    drifting(proto)
    proto.graph.initializer[-1].float_data[:] = [float("nan")]


def test_ticks_of_nothing_but_nan_are_no_proof(tmp_path: Path) -> None:
    path = edited(tmp_path / "nan.onnx", spoiling)
    with pytest.raises(VacuousCheck, match="from full caches every output is NaN at tick 1"):
        onnxfix.verify(path, path)
    # One tick is whole, and its states are NaN in part.
    notes = onnxfix.verify(path, path, options=onnxfix.VerifyOptions(ticks=1)).notes
    assert any("`cn` has" in note and "NaN on both sides" in note for note in notes)


# ---------------------------------------------------------------- several providers and starts


@pytest.mark.parametrize("providers", [("cpu", "cuda", "tensorrt"), ("cuda", "cpu")])
def test_what_differs_is_worse_than_what_cannot_be_driven(
    providers: tuple[str, ...], recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(path: Path, *, provider: str = "cpu", optimize: bool = False) -> Session:
        if provider == "cuda":
            raise DriveError("there is none", where="--provider cuda")
        return Session(path, optimize=optimize)

    monkeypatch.setattr(check, "Session", session)
    monkeypatch.setattr(check, "require_provider", lambda name: None)
    path = edited(tmp_path / "new.onnx", drifting)
    with pytest.raises(VerifyError) as error:
        onnxfix.verify(path, against=recorded, options=onnxfix.VerifyOptions(providers=providers))
    if providers[0] == "cuda":
        assert str(error.value) == "--provider cuda: there is none"
        return
    assert isinstance(error.value, DifferenceError)
    assert error.value.where == "cn (cpu), tick 0"
    assert [(run.provider, run.passed) for run in error.value.report.runs] == [("cpu", False), ("tensorrt", False)]
    assert "not driven on cuda: --provider cuda: there is none" in error.value.report.notes


def late(proto: onnx.ModelProto) -> None:
    """Adds to the caches what is 0 where they are full: only where they are empty does anything differ."""
    for one in proto.graph.node:
        one.output[:] = ["was" if name == "r_cnn_cache" else name for name in one.output]
    nodes = ["size = Size att_cache", "none = Equal size zero"]
    proto.graph.node.extend([*map(node, nodes), node("less = Cast none", to=FLOAT), node("r_cnn_cache = Sub was less")])
    proto.graph.initializer.append(helper.make_tensor("zero", onnx.TensorProto.INT64, [], [0]))


def test_the_run_that_differs_is_told_beside_those_that_do_not(tmp_path: Path) -> None:
    source = SAMPLES / "conformer_packed_grow.onnx"
    proto = onnx.load(source)
    late(proto)
    (tmp_path / "new.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(DifferenceError) as error:
        onnxfix.verify(source, tmp_path / "new.onnx", options=THREE)
    assert error.value.where == "r_cnn_cache (empty start), tick 0"
    assert [(run.start, run.passed) for run in error.value.report.runs] == [("full", True), ("empty", False)]


# ---------------------------------------------------------------- what was converted from what


def test_a_result_of_another_file_is_told(recorded: Path, tmp_path: Path) -> None:
    proto = onnx.load(STATE)
    proto.doc_string = "the same, in other bytes"
    onnxfix.convert(proto, tmp_path / "other.onnx", to="silero-hc", verify=False)
    onnxfix.convert(STATE, tmp_path / "own.onnx", to="silero-hc", verify=False)
    own, other = (onnxfix.verify(tmp_path / name, against=recorded).notes for name in ("own.onnx", "other.onnx"))
    assert not any("another file" in note for note in own)
    assert any("another file" in note for note in other)
    notes = onnxfix.verify(STATE, tmp_path / "other.onnx", options=THREE).notes
    assert "the result was converted from another file than the original" in notes
    # Where they differ it is wanted most.
    wrong = onnx.load(tmp_path / "other.onnx")
    drifting(wrong)
    (tmp_path / "wrong.onnx").write_bytes(wrong.SerializeToString())
    with pytest.raises(DifferenceError) as error:
        onnxfix.verify(tmp_path / "wrong.onnx", against=recorded)
    assert any("another file" in note for note in error.value.report.notes)


def test_what_proves_nothing_is_not_recorded(tmp_path: Path) -> None:
    nodes = [node("y = Relu x"), node("present = Identity past")]
    ports = [("x", FLOAT, [1, 3]), ("past", FLOAT, [2, 3])], [("y", FLOAT, [1, 3]), ("present", FLOAT, [2, 3])]
    path = tiny(tmp_path / "x.onnx", nodes, *ports)
    with pytest.raises(VacuousCheck, match="no output depends on the state"):
        onnxfix.record(path, tmp_path / "run.npz", from_="past -> present: layer dim")
    assert [one.name for one in tmp_path.iterdir()] == ["x.onnx"]


# ---------------------------------------------------------------- memory

LAYERS, WIDTH = 8, 2048
WEIGHTS = LAYERS * WIDTH * WIDTH * 4
PEAK = """
import sys, onnxfix

assert onnxfix.verify(sys.argv[1], sys.argv[2], options=onnxfix.VerifyOptions(ticks=2)).is_exact
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def test_only_one_model_is_in_memory_at_a_time(tmp_path: Path) -> None:
    proto = onnx.load(STATE)
    layers = [node("total = ReduceSum output", keepdims=0), node("h0 = Expand total line")]
    layers += [node(f"h{index + 1} = MatMul h{index} big{index}") for index in range(LAYERS)]
    proto.graph.node.extend([*layers, node(f"wide = Identity h{LAYERS}")])
    proto.graph.initializer.append(helper.make_tensor("line", onnx.TensorProto.INT64, [2], [1, WIDTH]))
    size = WIDTH * WIDTH * 4
    proto.graph.initializer.extend(
        external(f"big{index}", [WIDTH, WIDTH], location="w.data", offset=index * size, length=size)
        for index in range(LAYERS)
    )
    proto.graph.output.append(helper.make_tensor_value_info("wide", FLOAT, [1, WIDTH]))
    with (tmp_path / "w.data").open("wb") as data:
        data.truncate(WEIGHTS)
    source, result = written(tmp_path / "old.onnx", proto), tmp_path / "new.onnx"
    onnxfix.convert(source, result, to="silero-hc", verify=False)
    command = [sys.executable, "-c", PEAK, str(source), str(result)]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
    # onnxruntime alone reads all weights once; two sessions would hold them twice.
    assert WEIGHTS < peak < 2 * WEIGHTS
