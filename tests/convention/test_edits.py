"""What users ask for besides a convention: ports renamed and cast, dims frozen and renamed."""

from __future__ import annotations

import numpy as np
import pytest
from speaking import anonymous, convention, dims, names, plan

from onnxfix.convention.binding import bind
from onnxfix.convention.edits import CASTS, cast_notes
from onnxfix.convention.load import library
from onnxfix.convention.plan import Edits, make_plan
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.errors import PlanError, UsageError

DYNAMIC = {**SIZES, "batch": "B", "time": "T"}


def test_ports_are_renamed_by_their_new_names() -> None:
    renames = {"chunk": "x", "key_cache_0": "k0", "r_key_cache_0": "nk0"}
    done = plan("wenet-gpu", "wenet-kv", edits=Edits(rename=renames))
    assert done.renames["chunk_xs"] == "x" and "k0" in names(done.inputs) and "nk0" in names(done.outputs)
    assert done.pairs["k0"] == "nk0"
    assert done.caches[0].past.target[0].name == "k0"
    kept = plan("wenet-packed", None, edits=Edits(rename={"att_cache": "a", "offset": "att_cache", "chunk": "offset"}))
    assert names(kept.inputs) == ["offset", "att_cache", "required_cache_size", "a", "cnn_cache", "att_mask"]
    assert kept.caches[0].past.renames == {"att_cache": "a"} and not kept.is_identity
    assert plan("wenet-packed", None, edits=Edits(rename={"chunk": "chunk"})).is_identity
    swapped = plan("wenet-gpu", "wenet-packed", edits=Edits(rename={"chunk": "chunk_xs"}))
    assert "chunk_xs" not in swapped.renames and names(swapped.inputs)[0] == "chunk_xs"


def test_dims_are_frozen_and_renamed() -> None:
    done = plan("wenet-gpu", "wenet-packed", DYNAMIC, edits=Edits(dims={"batch": 1, "T": 64}))
    assert done.symbols == {"B": 1, "T": 64}
    assert dims(done.inputs)["att_cache"] == (3, 5, 64, 22) and dims(done.inputs)["chunk"] == (1, "FRAME", "FEATURE")
    for name in ("T", "time"):
        renamed = plan("wenet-packed", "wenet-kv", {**SIZES, "time": "T"}, edits=Edits(dims={name: "FRAMES"}))
        assert dims(renamed.inputs)["key_cache_0"] == (1, 5, "T_CACHE", 11) or name == "T"
    one = plan(["a -> b: batch time"], None, {"batch": "N", "time": "T"}, edits=Edits(dims={"N": "T", "T": "N"}))
    assert dims(one.inputs) == {"a": ("T", "N")} and not one.is_identity
    by_port = plan("wenet-packed", None, edits=Edits(dims={"frame": 67}))
    assert dims(by_port.inputs)["chunk"] == (1, 67, "FEATURE")


def test_a_name_that_the_user_chose_stays() -> None:
    signature = anonymous(signature_of(library()["gpt2-stacked"], DYNAMIC))
    batch, sequence = signature.inputs[0].dims or ()
    done = make_plan(
        bind(library()["gpt2-stacked"], signature), library()["gpt2-stacked"], Edits(dims={str(batch): "MINE"})
    )
    assert (done.symbols[str(batch)], done.symbols[str(sequence)]) == ("MINE", "seq_len")
    assert dims(done.inputs)["input_ids"] == ("MINE", "seq_len")


def test_ports_are_cast() -> None:
    done = plan("wenet-gpu", "wenet-packed", edits=Edits(cast={"chunk": "float16", "chunk_lens": "int32"}))
    assert done.casts == {"chunk": "float16"}
    assert done.inputs[0] == Port("chunk", "float16", (1, "FRAME", "FEATURE"))
    both = plan("wenet-gpu", "wenet-packed", edits=Edits(cast={"chunk": "float16"}, rename={"chunk": "x"}))
    assert both.casts == {"x": "float16"} and both.inputs[0].name == "x"


@pytest.mark.parametrize(
    ("dtype", "loses"),
    [("float32", False), ("float64", False), ("float16", True), ("bfloat16", True), ("int64", True), ("bool", True)],
)
def test_a_cast_that_does_not_keep_every_value_is_noted(dtype: str, loses: bool) -> None:
    done = plan("wenet-gpu", "wenet-packed", edits=Edits(cast={"chunk": dtype}))
    note = f"`chunk` becomes {dtype}, which does not hold every float32"
    assert (note in done.notes) == (f"note: {note}" in done.explain()) == loses


@pytest.mark.parametrize("old", CASTS)
def test_the_types_that_hold_all_values_are_those_that_numpy_knows(old: str) -> None:
    # numpy has no bfloat16, and takes every int64 for a float64.
    for new in [new for new in CASTS if "bfloat16" not in (old, new) and (old, new) != ("int64", "float64")]:
        edits = Edits(cast={"x": new})
        assert bool(cast_notes(edits, [Port("x", old, ())])) != np.can_cast(old, new, "safe"), new


WRONG = [
    (Edits(rename={"nothing": "x"}), "--rename nothing=x: no port is called `nothing`\n  the ports are chunk, offset,"),
    (Edits(rename={"att_cache": "x"}), "--rename att_cache=x: no port is called `att_cache`\n  the ports are chunk,"),
    (
        Edits(rename={"chunk": "offset"}),
        "two ports would be called `offset`\n  choose another name for it: --rename chunk=NAME",
    ),
    (Edits(rename={"chunk": "output"}), "two ports would be called `output`"),
    (Edits(rename={"chunk": ""}), "--rename: a port needs a name"),
    (Edits(cast={"nothing": "int32"}), "--cast nothing=int32: no port is called `nothing`"),
    (Edits(cast={"chunk": "int7"}), "--cast chunk=int7: this element type is not known\n  known are bool, int8,"),
    (
        Edits(cast={"key_cache_0": "float16"}),
        "--cast key_cache_0=float16: this port is a cache\n  only ports",
    ),
    (Edits(cast={"r_cnn_cache": "float16"}), "--cast r_cnn_cache=float16: this port is a cache"),
    (
        Edits(dims={"X": 3}),
        "--set-dim X=3: no port has a symbolic dim `X`, and no axis of this name has one\n  symb",
    ),
    (Edits(dims={"head": 3}), "--set-dim head=3: no port has a symbolic dim `head`, and no axis of this name"),
    (Edits(dims={"T_CACHE": 3, "time": 4}), "--set-dim time=4: `T_CACHE` cannot be both 3 and 4"),
]


@pytest.mark.parametrize(("edits", "message"), WRONG)
def test_wrong_edits(edits: Edits, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan("wenet-packed", "wenet-kv", {**SIZES, "time": "T"}, edits=edits)
    assert str(caught.value).startswith(message)


NO_DIMS: list[tuple[int | str, str]] = [
    (0, "0 is no size"),
    (-1, "-1 is no size"),
    (2**63, "this is no size"),
    ("", "a dim needs a size or a name"),
    *((text, f"`{text}` is neither a size nor a name") for text in ("1.5", "+3", "-2.", ".5", "1e3", "1_000", "0x40")),
]


@pytest.mark.parametrize(("value", "message"), NO_DIMS, ids=str)
def test_what_no_dim_can_be(value: int | str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Edits(dims={"T": value})
    assert str(caught.value).startswith(f"--set-dim T={value}: {message}")


@pytest.mark.parametrize(
    "name", ["T", "past_sequence_length + 1", "2*s0", "8*((s0//8))", "-s0", "e3", "1st", "floor(T/4 - 1/2)", "nan"]
)
def test_what_a_dim_can_be_called(name: str) -> None:
    done = plan("wenet-packed", None, {**SIZES, "time": "T"}, edits=Edits(dims={"T_CACHE": name}))
    assert dims(done.inputs)["att_cache"] == (3, 5, name, 22)


def test_an_edit_that_breaks_a_layout() -> None:
    source = convention(["c -> r_c: layer (kv dim)"])
    signature = Signature((Port("c", "float32", (3, "D")),), (Port("r_c", "float32", (3, "D")),))
    with pytest.raises(PlanError) as caught:
        make_plan(bind(source, signature), convention(["c.{kv} -> d.{kv}: layer dim"]), Edits(dims={"D": 7}))
    assert str(caught.value).startswith("c: --set-dim D=7 does not fit: a dimension of 7 does not divide")
