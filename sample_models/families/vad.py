"""The voice activity detector with one state and with two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from agreement import Arrays, Group, Speaker
from exporting import ANY_BATCH, Recipe, for_dynamo
from networks.vad import HiddenCellVad, Sizes, StateVad, Vad

OPSET = 16
BATCH = 3
TICKS = 8
EXPORTERS_APART = 1e-6


def recipes(vad: Vad) -> Iterator[Recipe]:
    """Gives the recipes of both conventions by both exporters."""
    sizes = vad.sizes
    audio = torch.randn(BATCH, sizes.samples)
    state = torch.zeros(2, BATCH, sizes.width)
    hidden, cell = torch.zeros(1, BATCH, sizes.width), torch.zeros(1, BATCH, sizes.width)
    yield from both("vad_state", StateVad(vad), (audio, state), ("input", "state"), ("output", "stateN"))
    yield from both("vad_hc", HiddenCellVad(vad), (audio, hidden, cell), ("input", "h", "c"), ("output", "hn", "cn"))


def both(
    name: str,
    network: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> Iterator[Recipe]:
    """Gives the recipes for both exporters; the new states are left to name their dims themselves."""
    axes = {"input": {0: "batch"}, "output": {0: "batch"}, **{name: {1: "batch"} for name in inputs[1:]}}
    recipe = Recipe(name, network, arguments, inputs, outputs, OPSET, axes)
    yield recipe
    yield for_dynamo(recipe, {"batch": ANY_BATCH})


class StateSpeaker:
    """`state: hc batch dim`; the logical states are `hidden` and `cell`, batch dim."""

    def ask(self, tick: np.ndarray, state: Arrays) -> Arrays:
        """Gives the feeds of one tick."""
        return {"input": tick, "state": np.stack((state["hidden"], state["cell"]))}

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives probability and states."""
        hidden, cell = fetches["stateN"]
        return {"output": fetches["output"]}, {"hidden": hidden, "cell": cell}


class HiddenCellSpeaker:
    """`h`, `c`: layer batch dim, with one layer."""

    def ask(self, tick: np.ndarray, state: Arrays) -> Arrays:
        """Gives the feeds of one tick."""
        return {"input": tick, "h": state["hidden"][None], "c": state["cell"][None]}

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives probability and states."""
        return {"output": fetches["output"]}, {"hidden": fetches["hn"][0], "cell": fetches["cn"][0]}


def groups(sizes: Sizes) -> Iterator[Group[np.ndarray]]:
    """Gives one group: loud noise, from a random state."""
    random = np.random.default_rng(9)
    state = {name: random.standard_normal((2, sizes.width), dtype=np.float32) for name in ("hidden", "cell")}
    ticks = [4 * random.standard_normal((2, sizes.samples), dtype=np.float32) for _ in range(TICKS)]
    speakers: dict[str, Speaker[np.ndarray]] = {
        "vad_state": StateSpeaker(),
        "vad_hc": HiddenCellSpeaker(),
        "vad_state_dynamo": StateSpeaker(),
        "vad_hc_dynamo": HiddenCellSpeaker(),
    }
    tolerance = {name: EXPORTERS_APART for name in speakers if name.endswith("_dynamo")}
    yield Group("VAD", speakers, ticks, state, tolerance)
