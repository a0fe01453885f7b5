"""What is proposed for models that speak no known convention: here samples whose conventions nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

import onnxfix
from onnxfix.cli import main
from onnxfix.convention import detect
from onnxfix.convention.binding import bind
from onnxfix.convention.load import library, load_convention, parse_convention
from onnxfix.errors import DetectError
from onnxfix.model.model import Model
from onnxfix.model.scopes import rename_captures
from onnxfix.pairing import state_pairs
from onnxfix.proposal import propose

SAMPLES = Path(__file__).parents[1] / "sample_models"
PROPOSED = {
    "conformer_bpu.onnx": ["att_cache: batch head dim time", "cnn_cache: batch head time dim"],
    "conformer_gpu.onnx": [
        "offset: batch 1",
        "att_cache: batch layer head time (kv dim)",
        "cnn_cache: batch head time dim",
        "cache_mask: batch 1 time",
    ],
    "conformer_gpu_kv.onnx": [
        "offset: batch 1",
        "{kv}_cache_{layer}: batch head time dim",
        "cnn_cache: batch head time dim",
        "cache_mask: batch 1 time",
    ],
    "conformer_kv.onnx": ["{kv}_cache_{layer}: batch head time dim", "cnn_cache: layer batch channel time"],
    "conformer_kv_stacked.onnx": ["{kv}_cache: layer head time dim", "cnn_cache: layer batch channel time"],
    "conformer_packed.onnx": ["att_cache: layer head time (kv dim)", "cnn_cache: layer batch channel time"],
    "gpt2_kv.onnx": ["past_key_values.{layer}.{kv}: batch head time dim"],
    "gpt2_stacked.onnx": ["past_{layer}: kv batch head time dim"],
    "vad_hc.onnx": ["{hc:h,c}: layer batch dim"],
    "vad_state.onnx": ["state: hc batch dim"],
}


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no convention that a model could speak."""
    monkeypatch.setattr(detect, "library", dict)


def renamed(proto: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """Returns the model with other names for values of its main graph."""
    proto.graph.ClearField("value_info")
    for values in (proto.graph.input, proto.graph.output):
        for value in values:
            value.name = names.get(value.name, value.name)
    for node in proto.graph.node:
        rename_captures(node, names)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return proto


def loaded(sample: str) -> onnx.ModelProto:
    """Returns a sample, to be changed."""
    return onnx.load(SAMPLES / sample)


@pytest.mark.usefixtures("unknown")
def test_nothing_is_proposed_where_nothing_is_carried() -> None:
    with pytest.raises(DetectError, match="no output of the model looks like an input of the next call"):
        propose(SAMPLES / "plain.onnx")
    # What was cut off from its outputs is read, and carries nothing.
    proto = loaded("vad_state.onnx")
    proto.graph.output.remove(next(value for value in proto.graph.output if value.name == "stateN"))
    with pytest.raises(DetectError):
        propose(proto)


def test_nothing_is_proposed_for_what_is_refused() -> None:
    proto = loaded("vad_state.onnx")
    proto.graph.input.append(onnx.helper.make_tensor_value_info("block_tables", onnx.TensorProto.INT64, [1, "N"]))
    with pytest.raises(DetectError, match="the model speaks `genai-paged`, which onnxfix does not move"):
        propose(proto)


def test_ports_that_only_look_alike_are_no_state() -> None:
    pairs = state_pairs(Model.load(SAMPLES / "conformer_gpu.onnx"))
    assert "chunk_lens" not in [pair.past.name for pair in pairs]
    assert "chunk_out_lens" not in [pair.present.name for pair in pairs]


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("name", PROPOSED)
def test_samples(name: str) -> None:
    for path in sorted(SAMPLES.glob(f"{name.removesuffix('.onnx')}*.onnx")):
        if path.name not in (name, name.replace(".onnx", "_dynamo.onnx"), name.replace(".onnx", "_grow.onnx")):
            continue
        proposal = propose(path)
        assert [str(cache.past[0]) for cache in proposal.convention.caches] == PROPOSED[name], path.name
        assert parse_convention(proposal.text, where="mine.toml") == proposal.convention
        bind(proposal.convention, Model.load(path).signature())


def test_a_known_convention_is_printed_without_guesses() -> None:
    proposal = propose(SAMPLES / "conformer_packed.onnx")
    assert proposal.known == "wenet-packed"
    assert "guess" not in proposal.text.replace("nothing here is a guess", "")
    assert proposal.convention.caches == library()["wenet-packed"].caches


def test_names_that_say_nothing(tmp_path: Path) -> None:
    source = loaded("gpt2_kv.onnx")
    pasts = [value.name for value in source.graph.input if value.name.startswith("past")]
    presents = [value.name for value in source.graph.output if value.name.startswith("present")]
    names = {name: f"k_{index // 2}" if index % 2 == 0 else f"v_{index // 2}" for index, name in enumerate(pasts)}
    names |= {name: f"cat_{3 * index + 1}" for index, name in enumerate(presents)}
    old = tmp_path / "old.onnx"
    old.write_bytes(renamed(source, names).SerializeToString())
    proposal = propose(old)
    (cache,) = proposal.convention.caches
    assert [str(one) for one in cache.past[:2]] == [
        "k_0{kv=key:}{layer=0:}: batch head time dim",
        "v_0{kv=value:}{layer=0:}: batch head time dim",
    ]
    assert str(cache.present[3].template) == "cat_10{kv=value:}{layer=1:}"
    assert cache.update == "append"
    toml = tmp_path / "mine.toml"
    toml.write_text(proposal.text, encoding="utf-8")
    report = onnxfix.convert(old, tmp_path / "new.onnx", from_=toml, to="gpt2-stacked")
    assert report.proof is not None and report.proof.is_exact
    assert onnxfix.inspect(tmp_path / "new.onnx").convention == "gpt2-stacked"


def test_what_is_told_by_order_alone_is_said(tmp_path: Path) -> None:
    names = {"state": "state", "stateN": "37"}
    proto = renamed(loaded("vad_state.onnx"), names)
    # Without the operator that says which output it is.
    proto.graph.node.append(onnx.helper.make_node("Neg", ["37"], ["flipped"]))
    next(value for value in proto.graph.output if value.name == "37").name = "flipped"
    dims = proto.graph.input[1].type.tensor_type.shape
    next(value for value in proto.graph.output if value.name == "flipped").type.tensor_type.shape.CopyFrom(dims)
    proposal = propose(proto)
    assert "# Check: state -> flipped is told by numbers, dims and order alone." in proposal.text


def test_keys_and_values_have_the_same_axes_whatever_the_graph_shows() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Concat", ["k_cache", "x"], ["new_k_cache"], axis=0),
        helper.make_node("Add", ["v_cache", "x"], ["new_v_cache"]),
    ]
    dims = {"x": [1, 3], "k_cache": ["T", 3], "v_cache": [4, 3], "new_k_cache": ["T + 1", 3], "new_v_cache": [4, 3]}
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in dims.items()]
    graph = helper.make_graph(nodes, "two", ports[:3], ports[3:])
    proposal = propose(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    (cache,) = proposal.convention.caches
    assert [str(one) for one in cache.past] == ["{kv:k,v}_cache: channel time"]
    assert "# Guesses: channel time (the dims are [T, 3])." in proposal.text


def test_names_that_no_sentence_can_hold_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(DetectError):
        propose(renamed(loaded("vad_state.onnx"), {"state": "state {0}", "stateN": "state {1}"}))


def test_inspect_prints_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"h": "lstm.hidden", "c": "lstm.cell", "hn": "lstm.new.hidden", "cn": "lstm.new.cell", "input": "frames"}
    path = tmp_path / "vad.onnx"
    path.write_bytes(renamed(loaded("vad_hc.onnx"), names).SerializeToString())
    assert main(["inspect", str(path), "--propose"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "note  look at the axes that are guesses before anything but names is changed\n"
    toml = tmp_path / "mine.toml"
    toml.write_text(printed.out, encoding="utf-8")
    assert [str(cache.past[0]) for cache in load_convention(toml).caches] == ["lstm.{hc}: layer batch dim"]
    assert main(["convert", str(path), f"{tmp_path}/new.onnx", "--from", str(toml), "--to", "silero-hc"]) == 0
    for other in (["--json"], ["--from", "optimum"], ["--size", "head=2"]):
        capsys.readouterr()
        assert main(["inspect", str(path), "--propose", *other]) == 2
        assert f"does not go with {other[0]}" in "".join(capsys.readouterr())
    assert main(["inspect", f"{SAMPLES}/vad_hc.onnx", "--propose"]) == 0
    assert capsys.readouterr().err == "note  the model speaks silero-hc: nothing needs to be proposed\n"
