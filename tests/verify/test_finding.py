"""How a model is driven: starts, ticks, sizes kept apart, batches, tables, tones, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_models import FLOAT, INT64, constant, kept, node, tiny

from onnxfix.convention.detect import detect
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.errors import DriveError, OnnxfixError, UsageError
from onnxfix.model.model import Model
from onnxfix.verify.finding import Found, find_drives
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.session import Session

SAMPLES = Path(__file__).parents[2] / "sample_models"


def found(path: Path, plan: Plan | None = None, **options: object) -> Found:
    plan = plan or make_plan(detect(Model.load(path).signature()).choose().binding, None)
    return find_drives(Session(path), plan, VerifyOptions(**options))  # type: ignore[arg-type]


# ---------------------------------------------------------------- starts, lengths and ticks

# sample, starts, whether chunks vary, ticks
SAMPLE_DRIVES = [
    ("conformer_packed", ["full", "empty"], True, 10),
    ("conformer_packed_grow", ["full", "empty"], True, 8),
    ("conformer_gpu", ["full", "empty"], True, 10),
    ("gpt2_kv", ["full", "empty"], True, 8),
    ("vad_state", ["full"], True, 8),
]


@pytest.mark.parametrize(("name", "starts", "varies", "ticks"), SAMPLE_DRIVES)
def test_samples_are_driven_from_full_and_from_empty_caches(name, starts, varies, ticks):
    way = found(SAMPLES / f"{name}.onnx")

    assert ([drive.begins for drive in way.drives], way.ticks, way.notes) == (starts, ticks, ())
    assert way.drives[0].varies == varies


def test_open_sizes_are_primes_of_their_own(tmp_path):
    path = tiny(
        tmp_path / "x.onnx", [node("y = Relu x"), node("present = Identity past"), node("z = Relu w")],
        [("x", FLOAT, [2, "a", "b"]), ("past", FLOAT, ["n", 3, "t"]), ("w", FLOAT, ["c", None])],
        [("y", FLOAT, [2, "a", "b"]), ("present", FLOAT, ["n", 3, "t"]), ("z", FLOAT, ["c", None])],
    )  # fmt: skip
    drive = found(path, kept(path, "past -> present: batch layer time")).drives[0]

    sizes = [*drive.guesses.values()]
    assert len(set(sizes) | {2, 3}) == len(sizes) + 2
    assert set(sizes) <= {5, 7, 11, 13, 17, 19}


def test_a_model_whose_open_sizes_must_be_alike_is_driven_with_sizes_that_are(tmp_path):
    nodes = [
        node("sum = Add x w"),
        node("more = ReduceSum past"),
        node("y = Add sum more"),
        node("present = Identity past"),
    ]
    path = tiny(
        tmp_path / "x.onnx", nodes, [("x", FLOAT, [1, "a"]), ("w", FLOAT, [1, "b"]), ("past", FLOAT, [1, "t"])],
        [("y", FLOAT, [1, "c"]), ("present", FLOAT, [1, "t"])],
    )  # fmt: skip

    way = found(path, kept(path, "past -> present: batch time"))

    assert way.notes[0].startswith("driven with several streams, a full first cache, several tokens at first, open si")


def test_ticks_follow_from_the_user_then_the_file_then_the_window(tmp_path):
    file = tmp_path / "run.npz"
    np.savez(file, input=np.zeros((5, 3, 256), np.float32))

    assert found(SAMPLES / "vad_state.onnx", inputs=file).ticks == 5
    assert found(SAMPLES / "vad_state.onnx", inputs=file, ticks=4).ticks == 4
    with pytest.raises(UsageError, match="no array for tick 5"):
        found(SAMPLES / "vad_state.onnx", inputs=file, ticks=6)


def test_a_recording_is_verified_for_as_long_as_it_is(tmp_path):
    file = tmp_path / "run.npz"
    path = SAMPLES / "vad_state.onnx"
    np.savez(file, input=np.random.default_rng(0).standard_normal((3, 2, 256), np.float32))

    report = verify(path, path, make_plan(detect(Model.load(path).signature()).choose().binding, None),
                    VerifyOptions(inputs=file))  # fmt: skip

    assert (report.ticks, report.fed["input"]) == (3, "from the file")
    assert report.observable == ("lstm, hidden", "lstm, cell")


# ---------------------------------------------------------------- batches


def test_the_user_says_how_many_streams():
    drive = found(SAMPLES / "gpt2_kv.onnx", batch=4).drives[0]

    assert {array.shape[0] for array in drive.inputs(0, 0, drive.start()).values()} == {4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 4, "sizes": {"batch": 3}}, "--size batch=3 says otherwise"),
        ({"batch": 0}, "the axis `batch` of the first cache is empty"),
        ({"batch": -1}, "cannot be fed"),
    ],
)
def test_batches_that_make_no_sense_are_refused(options, message):
    with pytest.raises(OnnxfixError, match=message):
        found(SAMPLES / "gpt2_kv.onnx", **options)


def test_a_batch_that_the_model_does_not_take_is_a_usage_error():
    with pytest.raises(UsageError, match="the model takes a batch of 1") as error:
        found(SAMPLES / "conformer_packed.onnx", batch=2)

    assert error.value.where == "--batch 2"


def test_an_empty_batch_from_a_file_never_reaches_the_runtime(tmp_path):
    file = tmp_path / "run.npz"
    np.savez(file, input=np.zeros((0, 256), np.float32))
    with pytest.raises(UsageError, match="is empty, and only a cache may be"):
        found(SAMPLES / "vad_state.onnx", inputs=file)
    np.savez(file, state=np.zeros((2, 0, 18), np.float32))
    with pytest.raises(DriveError, match="the axis `batch` of the first cache is empty"):
        found(SAMPLES / "vad_state.onnx", inputs=file)


# ---------------------------------------------------------------- sizes that are none


@pytest.mark.parametrize("size", [99999999999999999999, 2**40, -(2**70)])
def test_a_size_that_no_array_has_is_a_usage_error(size):
    with pytest.raises(UsageError, match=r"no array is -?[0-9]+ long"):
        found(SAMPLES / "gpt2_kv.onnx", sizes={"batch": size})


def test_arrays_that_would_fill_the_memory_are_refused():
    with pytest.raises(DriveError, match=r"an array \[2000000000, 4, 11, 7\] is too large"):
        found(SAMPLES / "gpt2_kv.onnx", sizes={"batch": 2_000_000_000})


def test_a_port_of_more_dims_than_numpy_has_is_refused(tmp_path):
    dims: list[int | str | None] = [1] * 65
    path = tiny(
        tmp_path / "x.onnx", [node("y = Relu x"), node("present = Identity past")],
        [("x", FLOAT, dims), ("past", FLOAT, [1])], [("y", FLOAT, dims), ("present", FLOAT, [1])],
    )  # fmt: skip

    with pytest.raises(DriveError, match=r"an array \[1, 1, .*\] is too large to be fed"):
        found(path, kept(path, "past -> present: dim"))


@pytest.mark.parametrize("sizes", [{"time": 3}, {"time": 3, "batch": 2}, {}])
def test_two_open_axes_in_one_dim_are_told_apart(tmp_path, sizes):
    nodes = [node("s = ReduceSum past", keepdims=0), node("y = Add x s"), node("present = Identity past")]
    path = tiny(
        tmp_path / "x.onnx", nodes, [("x", FLOAT, [3]), ("past", FLOAT, ["n", 2])],
        [("y", FLOAT, [3]), ("present", FLOAT, ["n", 2])],
    )  # fmt: skip

    report = verify(path, path, kept(path, "past -> present: (batch time) dim"), VerifyOptions(sizes=sizes))

    assert report.is_exact
    assert report.observable == ("cache",)


# ---------------------------------------------------------------- tables


def lookup(path: Path, rows: int, name: str, dims: list[int | str | None]) -> Path:
    nodes = [
        node("flat = Reshape index shape"), node("rows = Gather table flat"), node("sum = ReduceSum rows", keepdims=0),
        node("y = Add sum past"), node("present = Identity y"),
    ]  # fmt: skip
    table = helper.make_tensor("table", FLOAT, [rows, 2], [float(value) for value in range(rows * 2)])
    model = tiny(
        path, nodes, [("index", INT64, dims), ("past", FLOAT, [1])], [("y", FLOAT, [1]), ("present", FLOAT, [1])],
        [table, constant("shape", [-1])],
    )  # fmt: skip
    proto = onnx.load(model)
    for one in proto.graph.node:
        one.input[:] = [name if value == "index" else value for value in one.input]
    proto.graph.input[0].name = name
    model.write_bytes(proto.SerializeToString())
    return model


@pytest.mark.parametrize(("name", "role"), [("token_ids", "tokens"), ("speaker", "noise")])
@pytest.mark.parametrize("rows", [3, 40])
def test_indices_stay_below_the_table_that_they_are_looked_up_in(tmp_path, name, role, rows):
    path = lookup(tmp_path / "x.onnx", rows, name, ["n", 7])
    drive = found(path, kept(path, "past -> present: dim")).drives[0]

    indices = np.concatenate([drive.inputs(tick, 0, drive.start())[name].ravel() for tick in range(40)])

    assert drive.fed[name] == role
    assert set(indices.tolist()) == set(range(rows))


# ---------------------------------------------------------------- tones


def gated(path: Path) -> Path:
    """Puts out what it hears only if one sample is like the next: noise is not."""
    nodes = [
        node("young = Slice x one end axis"), node("old = Slice x none last axis"), node("step = Sub young old"),
        node("large = Abs step"), node("most = ReduceMax large", keepdims=0), node("loud = Greater most limit"),
        node("sum = Add x past"), node("y = Where loud zero sum"), node("present = Identity x"),
    ]  # fmt: skip
    constants = [
        constant("one", [1]), constant("end", [2**31]), constant("none", [0]), constant("last", [-1]),
        constant("axis", [1]), constant("limit", 0.06, FLOAT), constant("zero", 0.0, FLOAT),
    ]  # fmt: skip
    ports = [("x", FLOAT, [1, 256]), ("past", FLOAT, [1, 256])], [("y", FLOAT, [1, 256]), ("present", FLOAT, [1, 256])]
    return tiny(path, nodes, *ports, constants)


def test_where_noise_gives_constant_outputs_a_tone_is_tried(tmp_path):
    path = gated(tmp_path / "x.onnx")
    plan = kept(path, "past -> present: batch dim")

    way = found(path, plan)
    report = verify(path, path, plan)

    assert way.drives[0].tonal
    assert way.notes == ("noise gives constant outputs: driven with a tone",)
    assert report.observable == ("cache",)


def test_two_seeds_have_tones_of_their_own(tmp_path):
    path = gated(tmp_path / "x.onnx")
    plan = kept(path, "past -> present: batch dim")
    tones = [found(path, plan, seed=seed).drives[0] for seed in (0, 1)]

    assert not np.allclose(*(drive.inputs(0, 0, drive.start())["x"] for drive in tones), atol=0.02)
