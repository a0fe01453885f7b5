"""What one side is fed and puts out, in the form that the other side has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import FLOAT, INT64, constant, node, tiny

import onnxfix
from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import parse_convention
from onnxfix.convention.plan import Edits, Plan, make_plan
from onnxfix.model.model import Model
from onnxfix.verify.header import TraceError
from onnxfix.verify.lockstep import verify
from onnxfix.verify.options import VerifyOptions
from onnxfix.verify.report import DifferenceError
from onnxfix.verify.translation import expected_outputs, translated_inputs

INT32 = TensorProto.INT32


def spoken(offset: str, dtype: str) -> Convention:
    return parse_convention(
        f"""
        name = "counted"
        description = "A sum over what came before, read at an offset."
        source = "nowhere"
        input = [
            {{ role = "offset", port = "{offset}", dtype = "{dtype}" }},
            {{ role = "features", port = "x: batch frame" }},
        ]
        output = [{{ role = "output", port = "y: batch frame" }}]
        [[cache]]
        name = "sum"
        past = "c: batch dim"
        present = "r: batch dim"
        """,
        where="counted",
    )


SCALAR, VECTOR = spoken("offset:", "int64"), spoken("position: 1", "int32")


def scalar(folder: Path) -> Path:
    """Writes a model whose offset is an int64 without axes."""
    nodes = [
        node("far = Cast offset", to=FLOAT), node("turned = Sin far"),
        node("next = Add c x"), node("r = Mul next half"),
        node("sum = Add x c"), node("y = Add sum turned"),
    ]  # fmt: skip
    ports = ("c", FLOAT, [1, 3]), ("offset", INT64, []), ("x", FLOAT, [1, 3])
    outputs = ("y", FLOAT, [1, 3]), ("r", FLOAT, [1, 3])
    return tiny(folder / "scalar.onnx", nodes, ports, outputs, [constant("half", 0.5, FLOAT)])


def vector(folder: Path, sine: str = "Sin") -> Path:
    """Writes the same network as somebody else writes it, with an offset of one int32."""
    nodes = [
        node("far = Cast position", to=FLOAT), node(f"turned = {sine} far"),
        node("next = Add c x"), node("r = Mul next half"),
        node("sum = Add x c"), node("y = Add sum turned"),
    ]  # fmt: skip
    ports = ("c", FLOAT, [1, 3]), ("position", INT32, [1]), ("x", FLOAT, [1, 3])
    outputs = ("y", FLOAT, [1, 3]), ("r", FLOAT, [1, 3])
    return tiny(folder / "vector.onnx", nodes, ports, outputs, [constant("half", 0.5, FLOAT)])


def plan(path: Path, source: Convention, target: Convention, edits: Edits | None = None) -> Plan:
    return make_plan(bind(source, Model.load(path).signature()), target, edits)


def test_a_result_that_takes_the_offset_otherwise_is_found(tmp_path):
    path = scalar(tmp_path)
    with pytest.raises(DifferenceError):
        verify(path, vector(tmp_path, "Cos"), plan(path, SCALAR, VECTOR), VerifyOptions(ticks=3))


def test_an_offset_of_another_form_is_fed_to_either_side(tmp_path):
    one, other = scalar(tmp_path), vector(tmp_path)
    assert verify(one, other, plan(one, SCALAR, VECTOR), VerifyOptions(ticks=3)).is_exact
    assert verify(other, one, plan(other, VECTOR, SCALAR), VerifyOptions(ticks=3)).is_exact


@pytest.mark.parametrize("simplify", [True, False])
def test_a_conversion_is_proved_with_it(tmp_path, simplify):
    there = onnxfix.convert(scalar(tmp_path), from_=SCALAR, to=VECTOR, simplify=simplify)
    assert there.proof is not None and there.proof.is_exact and there.model is not None
    assert [(port.name, port.dtype, port.dims) for port in there.model.signature().inputs] == [
        ("c", "float32", (1, 3)), ("position", "int32", (1,)), ("x", "float32", (1, 3)),
    ]  # fmt: skip
    back = onnxfix.convert(there.model, from_=VECTOR, to=SCALAR, simplify=simplify)
    assert back.proof is not None and back.proof.is_exact and back.model is not None
    first, last = Model.load(scalar(tmp_path)).signature(), back.model.signature()
    assert (last.inputs, last.outputs) == (first.inputs, first.outputs)


def test_arrays_get_type_and_axes(tmp_path):
    there = plan(scalar(tmp_path), SCALAR, VECTOR)
    fed = translated_inputs({"offset": np.array(7), "x": np.zeros((1, 3), np.float32)}, there)
    assert fed["position"].dtype == np.int32 and fed["position"].tolist() == [7] and fed["x"].shape == (1, 3)
    renamed = plan(scalar(tmp_path), SCALAR, VECTOR, Edits(rename={"position": "p"}))
    assert translated_inputs({"offset": np.array(7)}, renamed)["p"].shape == (1,)
    outputs = {"y": np.ones((1, 3), np.float32), "r": np.zeros((1, 3), np.float32)}
    assert expected_outputs(outputs, there)["y"].shape == (1, 3)


def test_a_recorded_array_that_has_no_unit_axis_is_told(tmp_path):
    back = plan(vector(tmp_path), VECTOR, SCALAR)
    with pytest.raises(TraceError, match=r"position: an array \[2\] does not lose an axis"):
        translated_inputs({"position": np.zeros(2, np.int32)}, back)


def test_an_encoder_takes_its_offset_as_another_runtime_hands_it_over():
    samples = Path(__file__).parents[2] / "sample_models"
    there = onnxfix.convert(samples / "conformer_packed.onnx", to="sherpa-wenet", simplify=False)
    assert there.proof is not None and there.proof.is_exact and there.model is not None
    dims = {port.name: (port.dtype, port.dims) for port in there.model.signature().inputs}
    assert dims["offset"] == dims["required_cache_size"] == ("int64", (1,))
