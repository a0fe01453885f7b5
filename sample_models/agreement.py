"""Holds the exports of one network against each other, over a few ticks, each with a state of its own."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np
import onnx
import onnxruntime as ort

Arrays = Mapping[str, np.ndarray]
TickT = TypeVar("TickT")
TickT_contra = TypeVar("TickT_contra", contravariant=True)


class Speaker(Protocol[TickT_contra]):
    """Speaks one convention: turns a tick and a logical state into a model's feeds, and its fetches back."""

    def ask(self, tick: TickT_contra, state: Arrays) -> Arrays:
        """Gives the feeds; one that the model does not have is left out by the caller."""
        ...

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives the outputs and the next state, both as logical arrays."""
        ...


@dataclass(frozen=True)
class Group(Generic[TickT]):
    """Models that must agree: the first is the reference. `tolerance` is absolute; 0 asks for equal bits."""

    title: str
    speakers: Mapping[str, Speaker[TickT]]
    ticks: Sequence[TickT]
    state: Arrays
    tolerance: Mapping[str, float]


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Opens a model on the CPU, as it is: no optimization, one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_stream(session: ort.InferenceSession, speaker: Speaker[TickT], group: Group[TickT]) -> list[Arrays]:
    """Drives one model over all ticks, fed its own state; returns what it said, and its state, at every tick."""
    inputs = {port.name for port in session.get_inputs()}
    outputs = [port.name for port in session.get_outputs()]
    said: list[Arrays] = []
    state = group.state
    for tick in group.ticks:
        feeds = {name: value for name, value in speaker.ask(tick, state).items() if name in inputs}
        reply, state = speaker.hear(dict(zip(outputs, session.run(outputs, feeds), strict=True)))
        said.append({**reply, **state})
    return said


def hold_together(group: Group[TickT], models: Mapping[str, onnx.ModelProto]) -> dict[str, float]:
    """Runs a group and returns how far each model is from the first; raises AssertionError if that is too far."""
    streams = {name: run_stream(open_session(models[name]), speaker, group) for name, speaker in group.speakers.items()}
    reference_name = next(iter(streams))
    assert_lively(reference_name, streams[reference_name])
    # An array that the reference lacks is held against the first model that has it.
    wanted = [dict(ChainMap(*map(dict, said))) for said in zip(*streams.values(), strict=True)]
    distances = {}
    for name, stream in streams.items():
        distances[name] = max(map(distance, stream, wanted))
        assert distances[name] <= group.tolerance.get(name, 0.0), f"{name} is {distances[name]} from {reference_name}"
    return distances


def distance(said: Arrays, wanted: Arrays) -> float:
    """Gives the largest absolute difference between arrays that must have the same shapes."""
    for name, value in said.items():
        assert value.shape == wanted[name].shape, f"{name}: {value.shape} is not {wanted[name].shape}"
        assert np.isfinite(value).all(), f"{name} is not finite"
    return max(float(np.abs(value.astype(np.float64) - wanted[name]).max()) for name, value in said.items())


def assert_lively(name: str, stream: Sequence[Arrays]) -> None:
    """Refuses a stream in which an array is constant, or does not change from one tick to the next."""
    for earlier, later in pairwise(stream):
        for key, value in later.items():
            assert value.std() > 1e-3, f"{name}: {key} is constant"
            assert value.shape != earlier[key].shape or np.abs(value - earlier[key]).max() > 1e-3, (
                f"{name}: {key} stays"
            )
