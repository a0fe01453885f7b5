"""Nothing sound is refused: native twins, any seed, long streams, from full caches and from empty ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxfix.convention.detect import detect
from onnxfix.convention.load import load_convention
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.errors import DriveError
from onnxfix.model.model import Model
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import EMPTY, FULL, VerifyOptions
from onnxfix.verify.report import VerifyReport

SAMPLES = Path(__file__).parents[2] / "sample_models"
TWINS = [
    ("conformer_packed", "conformer_kv_stacked", "wenet-kv-stacked"),
    ("conformer_kv_grow", "conformer_packed_grow", "wenet-packed"),
    ("conformer_gpu", "conformer_gpu_kv", "wenet-gpu-kv"),
    ("gpt2_stacked", "gpt2_kv", "optimum"),
    ("vad_state", "vad_hc", "silero-hc"),
]


def plan_of(source: str, target: str) -> Plan:
    return make_plan(
        detect(Model.load(SAMPLES / f"{source}.onnx").signature()).choose().binding, load_convention(target)
    )


def held(source: str, result: str, target: str, options: VerifyOptions) -> VerifyReport:
    return verify(SAMPLES / f"{source}.onnx", SAMPLES / f"{result}.onnx", plan_of(source, target), options)


@pytest.mark.parametrize("seed", [1, 22, 333, 2**40])
@pytest.mark.parametrize(("source", "result", "target"), TWINS)
def test_twins_agree_whatever_the_seed(source, result, target, seed):
    report = held(source, result, target, VerifyOptions(seed=seed))

    assert report.is_exact
    assert report.not_observable == ()
    starts = [FULL] if source.startswith("vad") else [FULL, EMPTY]
    assert [run.start for run in report.runs] == starts


def test_a_decoder_passes_a_prompt_and_then_64_single_tokens():
    report = held("gpt2_kv", "gpt2_stacked", "gpt2-stacked", VerifyOptions(ticks=65))

    assert report.is_exact
    logits = [next(port for port in run.ports if port.name == "logits") for run in report.runs]
    assert [[tick.shape[1] for tick in port.ticks] for port in logits] == [[13] + [1] * 64, [11] + [1] * 64]


def test_a_stream_is_no_longer_than_the_model_s_positions_unless_more_was_asked_for():
    sizes = {"past_sequence_length": 80}  # then a prompt of 11 tokens; there are 96 positions
    told: list[tuple[int, int]] = []

    options = VerifyOptions(sizes=sizes, progress=lambda *one: told.append(one))
    report = held("gpt2_kv", "gpt2_stacked", "gpt2-stacked", options)

    assert [(run.start, run.ticks) for run in report.runs] == [("full", 6), ("empty", 6)]
    assert [note for note in report.notes if "the model takes 6 ticks" in note]
    assert told[-1][0] == told[-1][1]
    with pytest.raises(DriveError, match="out of data bounds"):
        held("gpt2_kv", "gpt2_stacked", "gpt2-stacked", VerifyOptions(sizes=sizes, ticks=8))


@pytest.mark.parametrize(("source", "result", "target"), TWINS[:3])
def test_encoders_pass_until_their_positions_end(source, result, target):
    assert held(source, result, target, VerifyOptions(ticks=27)).is_exact
