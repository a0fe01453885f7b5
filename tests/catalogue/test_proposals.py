"""Networks of every convention, as if nobody knew it: the states that are proposed are its own."""

from __future__ import annotations

import pytest
from networks import SIZES, build

from onnxfix.convention import detect
from onnxfix.convention.binding import bind
from onnxfix.convention.load import library, parse_convention
from onnxfix.model.model import Model
from onnxfix.pairing import state_pairs
from onnxfix.proposal import propose

SILENT = {"dtln-1", "dtln-2", "ten-vad"}
"""Names without a word, and networks here without the operator that would tell."""


@pytest.mark.parametrize("name", library())
def test_the_states_of_every_convention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    convention = library()[name]
    model = Model.from_proto(build(convention))
    told = {f"{cache.name}.{axis}": SIZES[axis] for cache in convention.caches for axis in cache.axes if axis in SIZES}
    states = bind(convention, model.signature(), told).pairs
    found = {pair.past.name: pair.present.name for pair in state_pairs(model)}
    assert found.items() <= states.items()
    if name in SILENT:
        assert not found
        return
    assert found == states
    monkeypatch.setattr(detect, "library", dict)
    proposal = propose(model)
    assert bind(parse_convention(proposal.text, where="mine.toml"), model.signature()).pairs == states
