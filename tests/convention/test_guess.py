"""Axes from dims: what is certain, what is guessed."""

from __future__ import annotations

import pytest

from onnxfix.convention.guess import Axes
from onnxfix.convention.signature import Dim


@pytest.mark.parametrize(
    ("dims", "spread", "time", "layout", "guesses"),
    [
        pytest.param(
            [("B",), (4,), ("T",), (8,)], {"layer", "kv"}, 2, "batch head time dim", "head dim", id="one layer"
        ),
        pytest.param(
            [("B",), (4,), ("T",), (8,)], {"layer"}, 2, "batch head time (kv dim)", "head (kv dim)", id="packed"
        ),
        pytest.param(
            [("B",), (4,), ("T",), (7,)], {"layer"}, 2, "batch head time dim", "head dim", id="odd: not packed"
        ),
        pytest.param(
            [("B",), (4,), (8,), ("T",)], {"layer", "kv"}, 3, "batch head dim time", "head dim", id="keys turned"
        ),
        pytest.param(
            [(1,), (4,), ("T",), (8,)],
            {"layer", "kv"},
            None,
            "batch head time dim",
            "batch time head dim",
            id="static",
        ),
        pytest.param([(3,), (4,), ("T",), (7,)], {"kv"}, 2, "layer head time dim", "layer head dim", id="all layers"),
        pytest.param(
            [(2,), ("B",), (4,), ("T",), (7,)], {"layer"}, 3, "kv batch head time dim", "kv head dim", id="stacked"
        ),
        pytest.param([(2,), ("B",), (9,)], set(), None, "hc batch dim", "hc dim", id="both states"),
        pytest.param([(2,), ("B",), (9,)], {"hc"}, None, "layer batch dim", "layer dim", id="two layers"),
        pytest.param([("B",), (9,), (1,), (3,)], {"layer"}, 3, "batch channel 1 time", "channel", id="units"),
        pytest.param([("B",)], set(), None, "batch", "", id="one axis"),
        pytest.param(
            [("B",), (5, 7), ("T",), (8,)], {"layer", "kv"}, 2, "batch head time dim", "head dim", id="uneven"
        ),
        pytest.param(
            [("B",), (3,), (4,), (5,), (6,), (7,)],
            set(),
            None,
            "batch layer axis0 head time dim",
            "layer axis0 head time dim",
            id="more than there are words for",
        ),
        pytest.param([], set(), None, "", "", id="scalar"),
    ],
)
def test_axes(dims: list[tuple[Dim, ...]], spread: set[str], time: int | None, layout: str, guesses: str) -> None:
    axes = Axes(dims, spread)
    axes.name({"B"}, time)
    assert (" ".join(axes.names), " ".join(axes.guesses)) == (layout, guesses)
