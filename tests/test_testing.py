"""What other projects' tests call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxfix import VerifyOptions
from onnxfix.errors import ModelReadError
from onnxfix.testing import assert_equivalent

SAMPLES = Path(__file__).parents[1] / "sample_models"
HC, STATE = SAMPLES / "vad_hc.onnx", SAMPLES / "vad_state.onnx"


def test_models_that_are_the_same_pass_and_give_their_report() -> None:
    report = assert_equivalent(HC, STATE, options=VerifyOptions(ticks=3))
    assert (report.ticks, report.is_exact) == (3, True)


def test_models_that_differ_fail_with_every_output_that_does() -> None:
    proto = onnx.load(STATE)
    weight = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    with pytest.raises(
        AssertionError, match=r"(?s)^output, tick 0: .*\noutput.*: tick 0 .*\nstateN.*: tick 0 "
    ) as error:
        assert_equivalent(HC, proto)
    assert "would have passed: --atol " in str(error.value)


def test_what_proves_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="no tick was driven"):
        assert_equivalent(HC, STATE, options=VerifyOptions(ticks=0))


def test_a_model_that_is_not_there_is_no_failed_assertion() -> None:
    with pytest.raises(ModelReadError):
        assert_equivalent(HC, SAMPLES / "nowhere.onnx")
