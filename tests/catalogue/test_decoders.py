"""How decoders of encoder-decoders are driven: what the encoder made is there from the start, and flags switch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import build

import onnxfix
from onnxfix.convention.load import library
from onnxfix.convention.plan import make_plan
from onnxfix.model.model import Model
from onnxfix.request import bind_model
from onnxfix.verify.finding import find_drives
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.session import Session
from onnxfix.verify.stream import Stream, Tick

ROLES = {"tokens", "mask", "output", "flag"}


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(build(library()[name], roles=ROLES).SerializeToString())
    return path


def ticks(path: Path) -> dict[str, list[Tick]]:
    """Returns the first two ticks from full caches and from empty ones."""
    plan = make_plan(bind_model(Model.load(path).signature()), None)
    session = Session(path)
    streams = {
        one.begins: Stream(session, one, one.start()) for one in find_drives(session, plan, VerifyOptions()).drives
    }
    return {begins: [stream.step(), stream.step()] for begins, stream in streams.items()}


@pytest.mark.parametrize("name", ["optimum-seq2seq", "mobius-seq2seq", "ort-t5", "moonshine-streaming"])
def test_what_is_only_read_is_never_empty(name: str, tmp_path: Path) -> None:
    model = build(library()[name], roles=ROLES)
    taken = {info.name: info for info in model.graph.input}
    cross = [key for key in taken if ".encoder." in key or "cross" in key]
    handed = [info for info in model.graph.output if ".encoder." not in info.name and "cross" not in info.name]
    del model.graph.output[:]
    model.graph.output.extend(handed)
    for key in cross:
        time = library()[name].cache("cross").past[0].layout.place("time")[0]
        taken[key].type.tensor_type.shape.dim[time].dim_param = "SOURCE"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    driven = ticks(path)
    assert driven.keys() == {"full", "empty"}
    for first, second in driven.values():
        for key in cross:
            assert first.state[key].size > 0
            assert np.ptp(first.state[key]) > 0
            assert second.state[key] is first.state[key]
    own = next(key for key in taken if "decoder.key" in key or "self" in key)
    assert driven["empty"][0].state[own].size == 0


def test_a_flag_says_whether_caches_hold_anything(tmp_path: Path) -> None:
    path = written(tmp_path, "optimum-seq2seq")
    fed = {begins: [bool(one.inputs["use_cache_branch"][0]) for one in both] for begins, both in ticks(path).items()}
    assert fed == {"full": [True, True], "empty": [False, True]}


def test_a_flag_that_was_switched_needs_no_note(tmp_path: Path) -> None:
    path = written(tmp_path, "optimum-seq2seq")
    notes = onnxfix.verify(path, path).notes
    assert not [note for note in notes if "use_cache_branch" in note]


def test_a_result_is_held_against_the_twin_whose_order_it_has(tmp_path: Path) -> None:
    """Optimum says in which order its ports stand, and transformers.js does not: both read the same names."""
    source, new = tmp_path / "source.onnx", tmp_path / "new.onnx"
    source.write_bytes(build(library()["gpt2-stacked"]).SerializeToString())
    onnxfix.convert(source, new, to="transformers-js-hybrid")
    assert onnxfix.inspect(new).convention == "optimum"
    assert onnxfix.verify(source, new).is_exact


def test_a_size_that_only_the_result_has_can_be_told(tmp_path: Path) -> None:
    """One key head is none for gpt_bigcode; Bloom has it in one dim with the streams."""
    source, new = tmp_path / "source.onnx", tmp_path / "new.onnx"
    source.write_bytes(build(library()["bigcode-mqa"]).SerializeToString())
    onnxfix.convert(source, new, to="bloom")
    assert onnxfix.verify(source, new, sizes={"head": 1}).is_exact
    with pytest.raises(onnxfix.OnnxfixError, match="heads"):
        onnxfix.verify(source, new, sizes={"heads": 1})
