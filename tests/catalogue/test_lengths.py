"""Lengths are fed as long as what they count: a model that is told of one frame in many would hide the others."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from networks import STEPS, build

import onnxfix
from onnxfix.convention.convention import Convention, PortSpec
from onnxfix.convention.load import library
from onnxfix.model.model import Model


def lengths(convention: Convention) -> list[PortSpec]:
    return [spec for spec in convention.inputs if spec.role == "lengths"]


def counted(convention: Convention, length: PortSpec) -> tuple[str, int]:
    """Returns which port a length counts, and along which dim: that of the axis it is fed, else the steps."""
    axes = (str(length.feed),) if length.feed is not None else STEPS
    for spec in convention.inputs:
        for axis in axes:
            if axis in spec.layout.axes:
                return spec.name, spec.layout.place(axis)[0]
    raise AssertionError(f"{convention}: {length.name} counts nothing")


NAMES = [
    name
    for name, convention in library().items()
    if lengths(convention)
    and any(set(STEPS) & set(spec.layout.axes) for spec in convention.inputs)
    and not any(cache.update == "in-place" for cache in convention.caches)
]


@pytest.mark.parametrize("name", NAMES)
def test_a_length_counts_all_that_is_there(name: str, tmp_path: Path) -> None:
    convention = library()[name]
    model = Model.from_proto(build(convention))
    onnxfix.record(model, tmp_path / "run.npz", options=onnxfix.VerifyOptions(ticks=1))
    with np.load(tmp_path / "run.npz") as run:
        for length in lengths(convention):
            port, place = counted(convention, length)
            assert (run[f"tick/0/input/{length.name}"] == run[f"tick/0/input/{port}"].shape[place]).all()


def test_the_library_has_such() -> None:
    assert {"funasr-paraformer", "nemo", "wenet-gpu"} <= set(NAMES)


def test_a_count_of_all_frames_goes_up_with_the_frames(tmp_path: Path) -> None:
    model = Model.from_proto(build(library()["icefall-conformer"]))
    onnxfix.record(model, tmp_path / "run.npz", options=onnxfix.VerifyOptions(ticks=3))
    with np.load(tmp_path / "run.npz") as run:
        counts = [run[f"tick/{tick}/input/processed_lens"] for tick in range(3)]
        frames = [run[f"tick/{tick}/input/x"].shape[1] for tick in range(2)]
    assert [list(later - earlier) for earlier, later in itertools.pairwise(counts)] == [[n, n] for n in frames]
