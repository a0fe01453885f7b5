"""The sample models: their conventions are found, and a plan gives the ports of the natively exported model."""

from __future__ import annotations

from pathlib import Path

import pytest
from speaking import names, signature_after

from onnxfix.convention.binding import bind
from onnxfix.convention.detect import detect
from onnxfix.convention.load import library
from onnxfix.convention.plan import make_plan
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.errors import DetectError
from onnxfix.model.model import Model

FOLDER = Path(__file__).parents[2] / "sample_models"
CONVENTIONS = {
    "conformer_packed": "wenet-packed",
    "conformer_packed_grow": "wenet-packed",
    "conformer_kv": "wenet-kv",
    "conformer_kv_grow": "wenet-kv",
    "conformer_kv_stacked": "wenet-kv-stacked",
    "conformer_gpu": "wenet-gpu",
    "conformer_gpu_kv": "wenet-gpu-kv",
    "conformer_bpu": "wenet-bpu",
    "gpt2_stacked": "gpt2-stacked",
    "gpt2_kv": "optimum",
    "vad_state": "silero-state",
    "vad_hc": "silero-hc",
    "plain": None,
}


def signature_of(name: str) -> Signature:
    return Model.load(FOLDER / f"{name}.onnx").signature()


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.onnx")))
def test_the_convention_of_every_sample_is_found(name: str) -> None:
    expected = CONVENTIONS[name.removesuffix("_dynamo")]
    detection = detect(signature_of(name))
    if expected is None:
        with pytest.raises(DetectError, match="the model speaks no known convention"):
            detection.choose()
        return
    found = detection.choose()
    assert (found.name, found.conflicts) == (expected, 0)
    plan = make_plan(found.binding, library()[expected])
    assert all(cache.is_kept for cache in plan.caches) and not plan.renames and not plan.metadata
    assert plan.is_identity or (name.endswith("_dynamo") and plan.symbols)
    assert make_plan(bind(library()[expected], signature_after(plan)), library()[expected]).is_identity


@pytest.mark.parametrize(
    ("source", "native"),
    [
        (one, other)
        for family in (
            ("conformer_packed", "conformer_kv", "conformer_kv_stacked"),
            ("conformer_packed_grow", "conformer_kv_grow"),
            ("conformer_gpu", "conformer_gpu_kv"),
            ("gpt2_stacked", "gpt2_kv"),
            ("vad_state", "vad_hc"),
        )
        for one in family
        for other in family
        if one != other
    ],
)
def test_a_plan_gives_the_ports_of_the_native_model(source: str, native: str) -> None:
    """But for dims that the exporter could not tell and named after a node."""
    plan = make_plan(detect(signature_of(source)).choose().binding, library()[CONVENTIONS[native] or ""])
    wanted = signature_of(native)
    for ports, others in ((plan.inputs, wanted.inputs), (plan.outputs, wanted.outputs)):
        assert names(ports) == names(others)
        for port, other in zip(ports, others, strict=True):
            assert port.dtype == other.dtype
            assert told(port, other) == told(other, port), port.name
    assert plan.notes == ()


def told(port: Port, other: Port) -> list[Dim]:
    assert port.dims is not None and other.dims is not None and len(port.dims) == len(other.dims)
    pairs = zip(port.dims, other.dims, strict=True)
    return [dim for dim, its in pairs if not any(isinstance(one, str) and "_dim_" in one for one in (dim, its))]
