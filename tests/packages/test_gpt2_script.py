"""ONNX Runtime's own GPT-2 script: stacked caches, integers of 32 bits, and attention fused into one operator."""

from __future__ import annotations

from pathlib import Path

import groups
import pytest

import onnxfix
from onnxfix.convention.load import library
from onnxfix.convention.reach import reaches
from onnxfix.model.model import Model

EXPORT = str(Path(__file__).with_name("gpt2_export.py"))
GROUP = "optimum-2024"
OPTIONS = {"as traced": (), "fused": ("--optimize_onnx",)}
"""In half precision the script wants a GPU."""
WIDE = {"optimum", "genai", "bigcode-mha", "transformers-js-hybrid"}
"""Conventions that say that tokens, positions and masks have 64 bits."""
PAIRS = [
    (name, found.target)
    for name in OPTIONS
    for found in reaches(library()["gpt2-stacked"])
    if not found.obstacle and not found.units
]


def exported(name: str) -> Path:
    told = "".join([*OPTIONS[name], Path(EXPORT).read_text(), groups.requirements(GROUP)])
    folder = groups.kept(told, lambda path: groups.run(GROUP, EXPORT, str(path), "fp32", *OPTIONS[name]))
    return folder / "model.onnx"


@pytest.mark.parametrize("name", OPTIONS)
def test_what_it_speaks_is_found(name: str) -> None:
    source = exported(name)
    assert onnxfix.inspect(source).convention == "gpt2-stacked"
    integers = {port.name: port.dtype for port in Model.load(source).signature().inputs if "past" not in port.name}
    assert integers == dict.fromkeys(("input_ids", "position_ids", "attention_mask"), "int32")


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_there_and_back(name: str, target: str, tmp_path: Path) -> None:
    source, new = exported(name), tmp_path / "new.onnx"
    report = onnxfix.convert(source, new, to=target)
    assert report.proof is not None
    assert report.proof.is_exact
    assert report.proof.ticks >= 6
    signature = Model.load(new).signature()
    dtypes = {port.name: port.dtype for port in signature.inputs}
    if target in WIDE:
        assert [dtypes[one] for one in ("input_ids", "position_ids", "attention_mask")] == ["int64"] * 3
    heads = {"head": 3} if target == "bloom" else {}
    assert onnxfix.verify(source, new, sizes=heads).is_exact
    returned = onnxfix.convert(new, to="gpt2-stacked", from_=target, sizes=heads)
    assert returned.proof is not None
    assert returned.proof.is_exact
    assert returned.model is not None
    begun = Model.load(source).signature()
    for ours, theirs in (
        (returned.model.signature().inputs, begun.inputs),
        (returned.model.signature().outputs, begun.outputs),
    ):
        assert [port.name for port in ours] == [port.name for port in theirs]
