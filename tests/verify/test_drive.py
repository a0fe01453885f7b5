"""What a model is fed: each input what its role asks for, sizes from wherever they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_models import FLOAT, INT64, constant, kept, node, tiny

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.detect import detect
from onnxfix.convention.load import parse_convention
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.errors import DriveError, UsageError
from onnxfix.model.model import Model
from onnxfix.verify.drive import Drive
from onnxfix.verify.feed import Feed
from onnxfix.verify.inputs import Recording
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.profile import EMPTY_PROFILES, PROFILES, Profile
from onnxfix.verify.roles import known_inputs
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick

SAMPLES = Path(__file__).parents[2] / "sample_models"


def sample(name: str) -> Path:
    return SAMPLES / f"{name}.onnx"


def plan_of(path: Path, *sentences: str, edits: Edits | None = None) -> Plan:
    signature = Model.load(path).signature()
    if not sentences:
        return make_plan(detect(signature).choose().binding, None, edits)
    return make_plan(bind(convention_from_sentences(sentences), signature), None, edits)


def drive(
    name: str, *sentences: str, ticks: int = 5, profile: Profile = PROFILES[0], edits: Edits | None = None,
    recording: Recording | None = None, feeds: dict[str, Feed] | None = None, varies: bool = False, **sizes: int,
) -> list[Tick]:  # fmt: skip
    """Runs a sample on its own."""
    path = sample(name)
    driven = Drive(
        plan_of(path, *sentences, edits=edits), sizes, 0, feeds or {}, recording or Recording.empty(), profile, varies
    )
    stream = Stream(Session(path), driven, driven.start())
    return [stream.step() for _ in range(ticks)]


def values(ticks: list[Tick], port: str) -> list[object]:
    return [tick.inputs[port].tolist() for tick in ticks]


def test_a_windowed_conformer_is_driven_as_its_runtime_drives_it():
    ticks = drive("conformer_packed")

    # Metadata: chunk_size 16, left_chunks 4; the offset grows by the frames that are put out.
    assert values(ticks, "offset") == [64, 80, 96, 112, 128]
    assert values(ticks, "required_cache_size") == [64] * 5
    assert {tick.inputs["chunk"].shape for tick in ticks} == {(1, 67, 18)}
    assert {tick.state["att_cache"].shape for tick in ticks} == {(3, 4, 64, 10)}
    assert all(tick.inputs["chunk"].std() > 0.9 for tick in ticks)
    assert ticks[0].state["att_cache"].std() > 0.9
    assert len({tick.inputs["chunk"].tobytes() for tick in ticks}) == 5


def test_a_mask_hides_some_of_the_cache_but_never_the_chunk():
    masks = [tick.inputs["att_mask"] for tick in drive("conformer_packed", ticks=8)]

    assert all(mask.shape == (1, 1, 80) and mask.dtype == bool for mask in masks)
    assert [bool(mask.all()) for mask in masks] == [True] + [False] * 7
    assert all(mask[..., 64:].all() for mask in masks)
    assert all(mask[..., :64].sum() > 30 for mask in masks)
    # Every second tick the front is hidden, as in a batch of unequal lengths; at the others keys here and there.
    assert [bool((np.diff(mask[0, 0].astype(int)) >= 0).all()) for mask in masks] == [True, True] + [False, True] * 3


def test_from_an_empty_cache_the_mask_is_what_wenet_s_runtime_sets():
    ticks = drive("conformer_packed", ticks=7, profile=EMPTY_PROFILES[0])

    # onnx_asr_model.cc: the first (left_chunks - chunk) * chunk_size keys are hidden, and the offset begins there.
    hidden = [64, 48, 32, 16, 0, 0, 0]
    expected = [[0] * count + [1] * (80 - count) for count in hidden]
    assert [tick.inputs["att_mask"][0, 0].astype(int).tolist() for tick in ticks] == expected
    assert values(ticks, "offset") == [64, 80, 96, 112, 128, 144, 160]
    assert not ticks[0].state["att_cache"].any()
    assert ticks[0].state["att_cache"].shape == (3, 4, 64, 10)
    assert not ticks[0].state["cnn_cache"].any()


def test_a_growing_conformer_starts_with_a_cache_that_is_not_empty():
    ticks = drive("conformer_packed_grow")

    assert [tick.state["att_cache"].shape[2] for tick in ticks] == [11, 27, 43, 59, 75]
    assert values(ticks, "offset") == [11, 27, 43, 59, 75]


def test_a_growing_conformer_takes_an_empty_cache_and_chunks_of_other_lengths():
    ticks = drive("conformer_packed_grow", profile=EMPTY_PROFILES[0], varies=True)

    assert [tick.inputs["chunk"].shape[1] for tick in ticks] == [67, 35, 67, 67, 35]
    assert [tick.state["att_cache"].shape[2] for tick in ticks] == [0, 16, 24, 40, 56]
    assert values(ticks, "offset") == [0, 16, 24, 40, 56]


def test_a_decoder_gets_a_prompt_and_then_token_by_token():
    ticks = drive("gpt2_kv")

    # Batch, first length and prompt are primes that nothing else in the model is as large as.
    assert [tick.inputs["input_ids"].shape for tick in ticks] == [(5, 13)] + [(5, 1)] * 4
    assert ticks[0].inputs["position_ids"].tolist() == [list(range(11, 24))] * 5
    assert [tick.inputs["position_ids"][0, 0] for tick in ticks[1:]] == [24, 25, 26, 27]
    assert [tick.inputs["attention_mask"].shape for tick in ticks] == [(5, 24), (5, 25), (5, 26), (5, 27), (5, 28)]
    assert len({row.tobytes() for row in ticks[1].inputs["attention_mask"]}) > 1
    assert all(tick.inputs["attention_mask"].any(axis=1).all() for tick in ticks)
    tokens = np.concatenate([tick.inputs["input_ids"].ravel() for tick in ticks])
    assert tokens.max() < 61 and len(set(tokens.tolist())) > 4


def test_a_batched_conformer_carries_its_offset_and_mask():
    ticks = drive("conformer_gpu", ticks=2)

    assert ticks[0].state["offset"].tolist() == [[64]] * 11
    assert ticks[1].state["offset"].tolist() == [[80]] * 11
    assert ticks[0].state["cache_mask"].min() == 1
    assert ticks[0].inputs["chunk_lens"].tolist() == [67] * 11


def test_a_batched_conformer_begins_empty_as_its_server_begins_it():
    first = drive("conformer_gpu", ticks=1, profile=EMPTY_PROFILES[0])[0]

    assert {name for name, array in first.state.items() if array.any()} == set()
    assert first.state["cache_mask"].shape == (11, 1, 64)


def test_a_detector_gets_samples():
    ticks = drive("vad_state", ticks=2)

    assert ticks[0].inputs["input"].shape == (3, 256)
    assert ticks[0].state["state"].shape == (2, 3, 18)


# ---------------------------------------------------------------- where sizes come from


@pytest.mark.parametrize(
    ("sizes", "cache", "mask"),
    [
        ({"T_CACHE": 32}, 32, 48),
        ({"time": 32}, 32, 48),
        ({"attention.time": 32}, 32, 48),
        ({"left_chunks": 2}, 32, 48),
        ({"T_CACHE": 32, "T_ADD_T_CACHE": 49}, 32, 49),
    ],
)
def test_sizes_go_by_dim_axis_cache_and_metadata(sizes, cache, mask):
    driven = Drive(plan_of(sample("conformer_packed")), sizes, 0, {}, Recording.empty(), PROFILES[0])
    state = driven.start()

    assert state["att_cache"].shape[2] == cache
    inputs = driven.inputs(0, 0, state)
    assert inputs["att_mask"].shape == (1, 1, mask)
    assert inputs["required_cache_size"] == cache


def test_a_dim_that_a_convention_has_as_one_is_as_large_as_its_namesakes():
    # The convention has positions for one stream; in this export they are for as many as there are.
    (first, *_) = drive("spoken/decoder_llm-export", ticks=1)
    assert first.inputs["position_ids"].shape == first.inputs["input_ids"].shape == (5, 11)


def test_dims_that_the_conversion_freezes_have_that_size_in_the_source():
    ticks = drive("conformer_packed", ticks=2, edits=Edits(dims={"T_CACHE": 48, "T_ADD_T_CACHE": 64}))

    assert [tick.state["att_cache"].shape[2] for tick in ticks] == [48, 48]
    assert ticks[1].inputs["att_mask"].shape == (1, 1, 64)


def test_an_axis_that_the_target_lacks_has_size_one():
    path = sample("vad_hc")
    target = convention_from_sentences(["{hc:h,c} -> {hc:h,c}n: layer dim"])
    plan = make_plan(detect(Model.load(path).signature()).choose().binding, target, Edits(dims={"batch": 1}))

    driven = Drive(plan, {}, 0, {}, Recording.empty(), PROFILES[0])

    assert {array.shape for array in driven.start().values()} == {(1, 1, 18)}


def test_arrays_from_a_file_set_the_sizes_of_the_rest():
    tokens = np.array([[5, 4, 3, 2]])
    cache = np.ones((1, 4, 9, 7), np.float32)
    recording = Recording({"input_ids": tokens, "past_key_values.0.key": cache}, {})

    ticks = drive("gpt2_kv", ticks=2, recording=recording)

    assert ticks[0].state["past_key_values.0.key"] is cache
    assert ticks[0].state["past_key_values.2.value"].shape == (1, 4, 9, 7)
    assert ticks[0].inputs["attention_mask"].shape == (1, 13)
    assert ticks[1].inputs["attention_mask"].shape == (1, 17)
    assert ticks[1].inputs["position_ids"].tolist() == [[13, 14, 15, 16]]


def test_a_user_s_feed_comes_before_the_role():
    ticks = drive(
        "conformer_packed", ticks=3, feeds={"offset": Feed("step", (100.0, 16.0)), "cnn_cache": Feed("zeros")}
    )

    assert values(ticks, "offset") == [100, 116, 132]
    assert not ticks[0].state["cnn_cache"].any()
    assert ticks[1].state["cnn_cache"].any()


# ---------------------------------------------------------------- models of which little is known


def test_without_a_convention_ports_are_known_by_their_names():
    ticks = drive("conformer_packed", "att_cache -> r_att_cache: layer head time (kv dim)", T_CACHE=64)

    assert values(ticks, "offset") == [64, 80, 96, 112, 128]
    assert ticks[0].inputs["att_mask"].shape == (1, 1, 80)
    # This cache is no cache to the sentence: it gets noise at every tick.
    assert ticks[1].inputs["cnn_cache"].std() > 0.9


def test_words_in_names_tell_roles_too(tmp_path):
    path = tiny(
        tmp_path / "x.onnx",
        [node("y = Add past heap"), node("present = Identity y")],
        [
            ("heap", FLOAT, ["n", 3]), ("past", FLOAT, ["n", 3]), ("my_tokens", INT64, ["n", "s"]),
            ("start_offset", INT64, ["n", 1]), ("x_lens", INT64, ["n"]), ("key_mask", FLOAT, ["n", "s + 2"]),
            ("compost", INT64, [2]),
        ],
        [("y", FLOAT, ["n", 3]), ("present", FLOAT, ["n", 3])],
    )  # fmt: skip
    driven = Drive(kept(path, "past -> present: batch dim"), {}, 0, {}, Recording.empty(), PROFILES[0])

    inputs = driven.inputs(0, 0, driven.start())

    assert driven.fed == {
        "my_tokens": "tokens", "heap": "noise", "start_offset": "offset", "x_lens": "lengths", "key_mask": "mask",
        "compost": "noise",
    }  # fmt: skip
    assert inputs["my_tokens"].shape == (5, 7)
    assert inputs["key_mask"].tolist() == [[1] * 9] * 5
    assert inputs["start_offset"].tolist() == [[0]] * 5


def test_a_single_letter_alone_tells_no_role(tmp_path):
    nodes = [node("y = Add x past"), node("present = Identity y")]
    ports = (
        [("past", FLOAT, ["n", 3]), ("x", FLOAT, ["n", "t"])],
        [("y", FLOAT, ["n", 3]), ("present", FLOAT, ["n", 3])],
    )
    driven = Drive(
        kept(tiny(tmp_path / "x.onnx", nodes, *ports), "past -> present: batch dim"), {}, 0, {}, Recording.empty(),
        PROFILES[0],
    )  # fmt: skip
    driven.inputs(0, 0, driven.start())
    assert driven.fed == {"x": "noise"}
    # With what else the convention has it is what the convention says.
    outputs = [("encoder_out", FLOAT, ["n", 3, 5]), ("present", FLOAT, ["n", 3])]
    nodes = [node("present = Identity past"), node("encoder_out = Identity x")]
    path = tiny(tmp_path / "z.onnx", nodes, [("past", FLOAT, ["n", 3]), ("x", FLOAT, ["n", 3, 5])], outputs)
    assert known_inputs(kept(path, "past -> present: batch dim").binding)["x"].spec.role == "features"


def test_sound_is_quiet_and_loud_by_turns():
    quiet, loud = [tick.inputs["input"].std() for tick in drive("vad_state", ticks=2)]
    assert 0.08 < quiet < 0.12 and 0.8 < loud < 1.2


def test_what_chooses_a_part_of_a_model_is_told(tmp_path):
    nodes = [
        node("slow = Cast sr", to=FLOAT), node("scaled = Mul slow little"), node("z = Add past scaled"),
        node("present = Add z x"), node("y = Sin present"),
    ]  # fmt: skip
    ports = [("past", FLOAT, [1, 3]), ("sr", INT64, []), ("x", FLOAT, [1, 3])]
    path = tiny(
        tmp_path / "x.onnx", nodes, ports, [("y", FLOAT, [1, 3]), ("present", FLOAT, [1, 3])],
        [constant("little", 1e-6, FLOAT)],
    )  # fmt: skip
    plan = kept(path, "past -> present: batch dim")
    note = "`sr` was 16000 at every tick: what runs with another is not checked; --feed sr=constant:N"
    assert note in verify(path, path, plan, VerifyOptions(ticks=3)).notes
    chosen = VerifyOptions(ticks=3, feeds={"sr": "constant:8000"})
    assert not [line for line in verify(path, path, plan, chosen).notes if "sr" in line]


IN_PLACE = """
name = "static"
description = "A cache of full length, written at an offset."
source = "nowhere"
input = [
    { role = "tokens", port = "ids: batch sequence" },
    { role = "offset", port = "at: 1" },
    { role = "positions", port = "places: batch sequence", optional = true },
    { role = "mask", port = "mask: batch key", optional = true },
    { role = "lengths", port = "total: batch", optional = true },
]
[[cache]]
name = "self"
past = "c: batch time dim"
present = "r: batch time dim"
update = "in-place"
"""


def in_place(folder: Path, length: int | str, *more: tuple[str, int, list[int | str | None]]) -> Path:
    """Writes a model that writes its token at an offset, and reads what lies before it."""
    nodes = [
        node("token = Cast ids", to=FLOAT), node("news = Unsqueeze token last"), node("index = Reshape at cube"),
        node("r = ScatterElements c index news", axis=1),
        node("shape = Shape c", start=1, end=2), node("length = Squeeze shape"), node("slots = Range zero length one"),
        node("is_seen = LessOrEqual slots at"), node("row = Cast is_seen", to=FLOAT), node("seen = Reshape row column"),
        node("kept = Mul r seen"), node("y = ReduceSum kept", keepdims=0),
    ]  # fmt: skip
    constants = [
        constant("last", [2]), constant("cube", [1, 1, 1]), constant("column", [1, -1, 1]), constant("zero", 0),
        constant("one", 1),
    ]  # fmt: skip
    inputs = [("ids", INT64, [1, 1]), ("at", INT64, [1]), *more, ("c", FLOAT, [1, length, 1])]
    return tiny(folder / "static.onnx", nodes, inputs, [("y", FLOAT, []), ("r", FLOAT, [1, length, 1])], constants)


def in_place_plan(path: Path) -> Plan:
    return make_plan(bind(parse_convention(IN_PLACE, where="static"), Model.load(path).signature()), None)


@pytest.mark.parametrize(("length", "profile", "first"), [(12, 0, 6), (12, -1, 0), ("T", 0, 15), ("T", -1, 0)])
def test_caches_that_are_written_in_place_are_filled_from_the_front(tmp_path, length, profile, first):
    more = ("places", INT64, [1, 1]), ("mask", INT64, [1, "K"]), ("total", INT64, [1])
    path = in_place(tmp_path, length, *more)
    driven = Drive(in_place_plan(path), {}, 0, {}, Recording.empty(), PROFILES[profile])
    start = driven.start()
    room = 12 if length == 12 else 31
    assert start["c"].shape == (1, room, 1) and bool(start["c"].any()) == (profile == 0)
    stream = Stream(Session(path), driven, start)
    for number in range(4):
        fed = stream.step().inputs
        assert fed["at"].tolist() == [first + number] and fed["places"].tolist() == [[first + number]]
        assert fed["total"].tolist() == [first + number + 1]
        assert fed["mask"].tolist() == [[1] * (first + number + 1) + [0] * (room - first - number - 1)]


def test_a_cache_that_is_written_in_place_is_compared_until_it_is_full(tmp_path):
    path = in_place(tmp_path, 12)
    report = verify(path, path, in_place_plan(path), VerifyOptions())
    assert report.is_exact and report.ticks == 6 and report.observable
    with pytest.raises(DriveError, match="tick 6"):
        verify(path, path, in_place_plan(path), VerifyOptions(ticks=13))


def only_one_stream(path: Path) -> Path:
    nodes = [node("sum = Add x past"), node("y = Reshape sum shape"), node("present = Identity sum")]
    ports = [("x", FLOAT, ["n", 3]), ("past", FLOAT, ["n", 3])], [("y", FLOAT, [1, 3]), ("present", FLOAT, ["n", 3])]
    return tiny(path, nodes, *ports, [constant("shape", [1, 3])])


def only_empty_at_first(path: Path) -> Path:
    # Unless the length of the cache is the offset, an index is out of bounds.
    nodes = [
        node("y = Concat past x", axis=0), node("present = Identity y"),
        node("length = Shape past"), node("is_right = Equal length offset"), node("right = Cast is_right", to=INT64),
        node("wrong = Sub right one"), node("index = Add wrong wrong"), node("never = Gather zero index"),
    ]  # fmt: skip
    return tiny(
        path, nodes, [("x", FLOAT, [1]), ("past", FLOAT, ["t"]), ("offset", INT64, [1])],
        [("y", FLOAT, ["u"]), ("present", FLOAT, ["u"]), ("never", FLOAT, [1])],
        [constant("one", [1]), constant("zero", [0.0], FLOAT)],
    )  # fmt: skip


def test_a_model_for_one_stream_is_driven_with_one(tmp_path):
    path = only_one_stream(tmp_path / "x.onnx")

    report = verify(path, path, kept(path, "past -> present: batch dim"))

    assert report.is_exact
    assert report.notes[0].startswith("driven with one stream, a full first cache, several tokens at first: ")


def test_a_model_that_takes_only_an_empty_first_cache_gets_one(tmp_path):
    path = only_empty_at_first(tmp_path / "x.onnx")
    plan = kept(path, "past -> present: time")

    report = verify(path, path, plan, VerifyOptions(feeds={"offset": "step:0,1"}))

    assert report.observable == ("cache",)
    assert "an empty first cache" in report.notes[0]


# ---------------------------------------------------------------- what cannot be driven says so


def test_a_size_that_nobody_knows_is_asked_for(tmp_path):
    nodes = [node("y = Relu past"), node("present = Identity past")]
    ports = [("past", FLOAT, [2, "d"])], [("y", FLOAT, [2, "d"]), ("present", FLOAT, [2, "d"])]
    path = tiny(tmp_path / "x.onnx", nodes, *ports)
    plan = kept(path, "past -> present: layer dim")

    with pytest.raises(DriveError, match="the size of the axis `dim` of the cache `cache` is not known") as error:
        verify(path, path, plan)

    assert (error.value.where, error.value.hint) == ("past", "set it with --size cache.dim=N")
    assert verify(path, path, plan, VerifyOptions(sizes={"cache.dim": 5})).is_exact
    assert verify(path, path, plan, VerifyOptions(sizes={"d": 5})).is_exact


def test_what_onnxruntime_rejects_is_told_with_what_to_set(capfd):
    path = sample("conformer_packed")

    with pytest.raises(DriveError) as error:
        verify(path, path, plan_of(path), VerifyOptions(feeds={"offset": "constant:3"}))

    assert error.value.message.startswith("the source cannot be driven: Add node. Name:'/layers.0/attention/Add")
    assert "onnxruntime_src" not in error.value.message
    assert "offset [] (constant:3)" in error.value.hint
    for option in ("--size T_CACHE=N (it is 64)", "--feed offset=constant:N", "--inputs FILE.npz"):
        assert option in error.value.hint
    assert error.value.exit_code == 4
    assert capfd.readouterr().err == ""


def test_a_stream_that_ends_tells_how_long_it_was():
    path = sample("gpt2_kv")  # positions up to 95

    with pytest.raises(DriveError, match="out of data bounds") as error:
        verify(path, path, plan_of(path), VerifyOptions(ticks=8, sizes={"past_sequence_length": 90, "sequence": 3}))

    assert error.value.where == "tick 2"
    assert "--ticks 2" in error.value.hint


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        (VerifyOptions(feeds={"ofset": "zeros"}), "--feed", "no input is called `ofset`"),
        (VerifyOptions(feeds={"offset": "nought"}), "--feed offset=nought", "no kind of feed"),
        (VerifyOptions(sizes={"T_CASH": 3}), "--size T_CASH", "no dim or axis has this name"),
        (VerifyOptions(inputs=Path("no.npz")), "no.npz", "cannot be read"),
    ],
)
def test_wishes_that_name_nothing_are_usage_errors(options, where, message):
    path = sample("conformer_packed")

    with pytest.raises(UsageError, match=message) as error:
        verify(path, path, plan_of(path), options)

    assert error.value.where == where


@pytest.mark.parametrize(("side", "where"), [("input", "words"), ("output", "said")])
def test_strings_can_be_neither_fed_nor_compared(tmp_path, side, where):
    def path(name: str) -> Path:
        strings = ("words", TensorProto.STRING, [1])
        return tiny(
            tmp_path / name, [node("y = Relu past"), node("present = Identity past")],
            [("past", FLOAT, [1, 2]), *([strings] if side == "input" else [])],
            [("y", FLOAT, [1, 2]), ("present", FLOAT, [1, 2]), *([("said", *strings[1:])] if side == "output" else [])],
            [onnx.helper.make_tensor("said", TensorProto.STRING, [1], [b"so"])] if side == "output" else [],
        )  # fmt: skip

    model = path("x.onnx")
    with pytest.raises(DriveError, match="element type string") as error:
        verify(model, model, kept(model, "past -> present: batch dim"))

    assert error.value.where == where


def test_another_provider_than_asked_for_is_refused(monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["OtherProvider"])

    with pytest.raises(DriveError, match="onnxruntime runs the model on OtherProvider, not on CPUExecutionProvider"):
        Session(sample("vad_hc"))
