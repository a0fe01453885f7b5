"""The model without a cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from agreement import Arrays, Group
from exporting import Recipe
from networks.plain import Plain

OPSET = 17


def recipes(plain: Plain) -> Iterator[Recipe]:
    """Gives its recipe."""
    features = torch.randn(2, plain.frames, plain.features)
    axes = {"features": {0: "batch"}, "scores": {0: "batch"}}
    yield Recipe("plain", plain, (features,), ("features",), ("scores",), OPSET, axes)


class PlainSpeaker:
    """Feeds features, batch time feature, and keeps no state."""

    def ask(self, tick: np.ndarray, state: Arrays) -> Arrays:
        """Gives the feeds of one call."""
        return {"features": tick}

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives the scores."""
        return fetches, {}


def groups(plain: Plain) -> Iterator[Group[np.ndarray]]:
    """Gives one group of one model: it only has to run, and to listen."""
    random = np.random.default_rng(10)
    ticks = [random.standard_normal((2, plain.frames, plain.features), dtype=np.float32) for _ in range(2)]
    yield Group("Plain", {"plain": PlainSpeaker()}, ticks, {}, {})
