"""The road, from Python: models in files and in memory, what is reported, and in which order things happen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

import onnxfix
from onnxfix.convention.plan import Edits
from onnxfix.errors import DetectError, PlanError, UsageError, VerifyError

SAMPLES = Path(__file__).parents[1] / "sample_models"
STATE, HC = SAMPLES / "vad_state.onnx", SAMPLES / "vad_hc.onnx"
PACKED, PER_LAYER = SAMPLES / "conformer_packed.onnx", SAMPLES / "conformer_kv.onnx"


def names(path: Path) -> list[str]:
    """Returns the ports of a file, in order."""
    graph = onnx.load(path).graph
    return [value.name for value in (*graph.input, *graph.output)]


def operators(proto: onnx.ModelProto) -> Counter[str]:
    """Returns how often each operator occurs in the main graph."""
    return Counter(node.op_type for node in proto.graph.node)


def test_convert_reports_what_it_did(tmp_path: Path) -> None:
    report = onnxfix.convert(STATE, tmp_path / "new.onnx", to="silero-hc")
    assert report.outcome is onnxfix.Outcome.CONVERTED
    assert (report.speaks, report.target) == ("silero-state", "silero-hc")
    assert report.proof is not None
    assert report.proof.is_exact
    assert report.proof.ticks == 8
    assert report.nodes is not None
    assert report.nodes.cancelled == len(onnx.load(tmp_path / "new.onnx").graph.node)
    assert list(report.seconds) == ["load", "plan", "simplify", "rewrite", "check", "write", "verify"]
    assert report.model is None
    assert names(tmp_path / "new.onnx") == names(HC)
    assert json.loads(json.dumps(report.to_json()))["to"] == "silero-hc"


def test_without_a_destination_the_result_stays_in_memory() -> None:
    before = STATE.read_bytes()
    report = onnxfix.convert(STATE, to="silero-hc")
    assert report.model is not None
    assert report.proof is not None
    assert [port.name for port in report.model.signature().inputs] == ["input", "h", "c"]
    assert STATE.read_bytes() == before


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_in_memory_is_not_touched(wrapped: bool, tmp_path: Path) -> None:
    proto = onnx.load(STATE)
    before = proto.SerializeToString()
    source = onnxfix.Model.from_proto(proto) if wrapped else proto
    report = onnxfix.convert(source, tmp_path / "new.onnx", to="silero-hc", stamp=False)
    assert proto.SerializeToString() == before
    assert report.proof is not None
    onnxfix.convert(STATE, tmp_path / "same.onnx", to="silero-hc", stamp=False)
    assert (tmp_path / "new.onnx").read_bytes() == (tmp_path / "same.onnx").read_bytes()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        onnxfix.convert(PACKED, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_there_and_back_again(tmp_path: Path) -> None:
    there = onnxfix.convert(PACKED, tmp_path / "there.onnx")
    back = onnxfix.convert(tmp_path / "there.onnx", tmp_path / "back.onnx", to="wenet-packed")
    assert there.proof is not None
    assert back.proof is not None
    assert there.proof.is_exact
    assert back.proof.is_exact
    assert names(tmp_path / "back.onnx") == names(PACKED)


def test_unchanged_is_a_copy(tmp_path: Path) -> None:
    report = onnxfix.convert(PER_LAYER, tmp_path / "new.onnx")
    assert report.outcome is onnxfix.Outcome.UNCHANGED
    assert (report.nodes, report.proof, report.plan) == (None, None, ())
    assert report.notes == ("no convention has replaced `wenet-kv`: for another one, say --to NAME",)
    assert (tmp_path / "new.onnx").read_bytes() == PER_LAYER.read_bytes()


def test_without_cancelling_the_adapters_stay(tmp_path: Path) -> None:
    whole = onnxfix.convert(PACKED, to="wenet-kv", verify=False)
    bolted = onnxfix.convert(PACKED, to="wenet-kv", cancel=False)
    assert whole.nodes is not None
    assert bolted.nodes is not None
    assert whole.nodes.cancelled < bolted.nodes.cancelled
    assert bolted.proof is not None
    assert bolted.proof.is_exact


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    options = onnxfix.VerifyOptions(ticks=3)
    onnxfix.convert(STATE, to="silero-hc", verify=options, progress=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["load", "plan", "simplify", "rewrite", "check", "write", "verify"]
    steps = [(done, total) for stage, done, total in told if stage == "verify" and total]
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {total for _, total in steps} == {len(steps)}
    assert len(steps) >= options.ticks


def test_a_plan_can_be_had_first() -> None:
    model = onnxfix.open_model(STATE)
    plan = onnxfix.plan_conversion(model, to="silero-hc", edits=onnxfix.Edits(rename={"input": "audio"}))
    assert [port.name for port in plan.inputs] == ["audio", "h", "c"]
    assert plan.explain()


def test_a_convention_object_and_sentences_are_taken_too() -> None:
    target = onnxfix.load_convention("silero-hc")
    sentence = "{hc:h,c} -> {hc:h,c}n: layer batch dim"
    for to in (target, sentence, [sentence]):
        report = onnxfix.convert(STATE, to=to, verify=False)
        assert report.model is not None
        assert [port.name for port in report.model.signature().inputs] == ["input", "h", "c"]


def test_edits_alone_need_no_target() -> None:
    report = onnxfix.convert(HC, edits=onnxfix.Edits(rename={"input": "audio"}))
    assert report.outcome is onnxfix.Outcome.CONVERTED
    assert (report.speaks, report.target) == ("silero-hc", "silero-hc")
    assert report.model is not None
    assert [port.name for port in report.model.signature().inputs] == ["audio", "h", "c"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, UsageError),
        ({"to": []}, UsageError),
        ({"to": "wenet-kv"}, PlanError),
        ({"to": "silero-hc", "from_": "optimum"}, DetectError),
        ({"to": "silero-hc", "sizes": {"batch": 0}}, UsageError),
    ],
)
def test_errors_are_raised(arguments: dict[str, object], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        onnxfix.convert(STATE, tmp_path / "new.onnx", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_verify_holds_two_models_against_each_other(tmp_path: Path) -> None:
    assert onnxfix.verify(STATE, HC).is_exact
    proto = onnx.load(HC)
    weight = max(proto.graph.initializer, key=lambda tensor: tensor.ByteSize())
    weight.raw_data = weight.raw_data[4:] + weight.raw_data[:4]
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(VerifyError):
        onnxfix.verify(STATE, tmp_path / "other.onnx")


def test_inspect_from_python() -> None:
    inspection = onnxfix.inspect(onnx.load(PACKED))
    assert inspection.convention == "wenet-packed"
    assert inspection.path == ""
    assert json.loads(json.dumps(inspection.to_json()))["successor"] == "wenet-kv"


def test_the_functions_are_not_shadowed_by_modules_of_their_name() -> None:
    import onnxfix.convert
    import onnxfix.verify.lockstep

    assert callable(onnxfix.convert)
    assert callable(onnxfix.verify)


def test_a_cast_that_does_not_keep_every_value_is_reported(tmp_path: Path) -> None:
    edits = Edits(cast={"offset": "int32"})
    report = onnxfix.convert(PACKED, tmp_path / "new.onnx", edits=edits, simplify=False, verify=False)
    assert "`offset` becomes int32, which does not hold every int64" in report.notes
