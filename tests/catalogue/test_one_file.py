"""A convention is one short TOML file, and nothing else."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from networks import build

import onnxfix
from onnxfix.convention.load import library, load_convention, refused

MINE = """
name = "mine"
family = "decoder"
description = "Keys as columns, values as rows, layers counted in letters"
source = "nowhere"
input = [{ role = "tokens", port = "ids: batch sequence" }]
output = [{ role = "output", port = "scores: batch sequence vocabulary" }]

[[cache]]
name = "self"
past = ["k{kv=key:}{layer:a,b}: batch head dim time", "v{kv=value:}{layer:a,b}: batch head time dim"]
present = ["k{kv=key:}{layer:a,b}_new: batch head dim time", "v{kv=value:}{layer:a,b}_new: batch head time dim"]
update = "append"
past-dims = { time = "seen" }
"""
MOST = 40


def test_a_file_adds_a_convention_that_converts_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    options = onnxfix.VerifyOptions(ticks=6)
    model = build(library()["gpt2-stacked"], roles=("tokens", "output"))
    there = onnxfix.convert(model, to=path, verify=options)
    assert there.model is not None and there.proof is not None and there.proof.is_exact
    inputs = [port.name for port in there.model.signature().inputs]
    assert inputs == ["ids", "ka", "kb", "va", "vb"]
    assert there.model.signature().inputs[1].dims == (2, 3, 5, "seen")

    back = onnxfix.convert(build(load_convention(path)), from_=path, to="gpt2-stacked", verify=options)
    assert back.model is not None and back.proof is not None and back.proof.is_exact
    assert [port.name for port in back.model.signature().inputs] == ["input_ids", "past_0", "past_1"]


@pytest.mark.parametrize("name", [*library(), *refused()])
def test_every_file_of_the_library_is_short(name: str) -> None:
    text = (resources.files("onnxfix.convention") / "library" / f"{name}.toml").read_text(encoding="utf-8")
    said = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(said) <= MOST
