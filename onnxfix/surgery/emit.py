"""Writes views as ONNX nodes. What differs between opsets differs here.

Slice has its bounds as inputs from opset 10 on, Squeeze and Unsqueeze their axes from 13 on, Reshape takes a literal 0
from 14 on (`allowzero`), Shape a range from 15 on (onnx/onnx: docs/Changelog.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from onnxfix.errors import RewriteError
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.rearrange import emit_move
from onnxfix.surgery.view import Bound, Cast, Join, Leaf, Move, Slice, View

if TYPE_CHECKING:
    from onnxfix.model.attributes import Array, Attribute
    from onnxfix.model.graph import GraphView


class _Added(Protocol):
    @property
    def outputs(self) -> tuple[str, ...]: ...


class Sink(Protocol):
    """Where nodes go: a graph, or a counter."""

    @property
    def opset(self) -> int:
        """The version of the default operator set."""

    def add_node(
        self, op_type: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, *,
        attributes: Mapping[str, Attribute] | None = None, name: str = "",
    ) -> _Added:  # fmt: skip
        """Adds a node."""

    def add_constant(self, value: Array, name: str = "constant") -> str:
        """Adds a constant and returns its name."""


class Counter:
    """Counts nodes instead of adding them to a graph."""

    def __init__(self, graph: GraphView) -> None:
        self.opset = graph.opset
        self.nodes = 0
        self.outputs: tuple[str, ...] = ()
        self._constants: set[tuple[str, tuple[int, ...], bytes]] | None = set() if graph.model.ir_version < 4 else None

    def add_node(
        self, op_type: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, *,
        attributes: Mapping[str, Attribute] | None = None, name: str = "",
    ) -> Counter:  # fmt: skip
        """Counts a node."""
        self.nodes += 1
        self.outputs = ("",) * outputs if isinstance(outputs, int) else tuple(outputs)
        return self

    def add_constant(self, value: Array, name: str = "constant") -> str:
        """Counts a constant once, where constants are nodes."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if self._constants is not None and key not in self._constants:
            self._constants.add(key)
            self.nodes += 1
        return ""


class Emitter:
    """Emits views, each once.

    Attributes:
        sink: Where the nodes go.
        views: Where the views come from.
        made: The view of every tensor that was emitted, by its name.
    """

    def __init__(self, sink: Sink, views: Views) -> None:
        self.sink = sink
        self.made: dict[str, View] = {}
        self.views = views
        self._tiles: dict[int, tuple[Slice, ...]] = {}
        self._splits: dict[tuple[int, int], tuple[str, ...]] = {}
        self._done: dict[int, str] = {}

    def tensor(self, view: View, name: str = "") -> str:
        """Returns the name of a tensor with the content of `view`, after adding the nodes that are missing.

        Args:
            view: What the tensor holds.
            name: The name that the tensor must have, for a graph output; empty for any.
        """
        if id(view) in self._done and not name:
            return self._done[id(view)]
        if isinstance(view, Leaf):
            made = self.node("Identity", [view.name], name) if name else view.name
        elif id(view) in self._done:
            return self.node("Identity", [self._done[id(view)]], name)
        elif isinstance(view, Slice):
            made = self.part(view.of, view, view.axis, name)
        elif isinstance(view, Join):
            made = self.node("Concat", [self.tensor(part) for part in view.parts], name, axis=view.axis)
        elif isinstance(view, Move):
            made = emit_move(self, view, name)
        elif isinstance(view, Cast):
            made = self.node("Cast", [self.tensor(view.of)], name, to=view.to)
        else:
            raise TypeError(type(view).__name__)
        self._done[id(view)] = made
        self.made[made] = view
        return made

    def existing(self, view: View) -> str:
        """Returns the name of a tensor that holds `view` already; empty if there is none."""
        return view.name if isinstance(view, Leaf) else self._done.get(id(view), "")

    def prefer_split(self, parts: Sequence[View]) -> None:
        """Lets parts that make up a whole tensor come from one Split, as the graph had it, in place of Slices.

        Parts that are cut alike again count as what they are cut of: those of one layer, say, among keys.
        """
        cuts = [part.of if isinstance(part, Move) else part for part in parts]
        while tiles := [cut for cut in cuts if isinstance(cut, Slice) and cut.is_static and cut.step == 1]:
            if len(tiles) < max(2, len(cuts)):
                return
            if self._are_whole(tiles):
                self._tiles.update(dict.fromkeys(map(id, tiles), tuple(tiles)))
                return
            if len({(tile.axis, tile.start, tile.stop) for tile in tiles}) > 1:
                return
            cuts = [tile.of for tile in tiles]

    def _are_whole(self, tiles: Sequence[Slice]) -> bool:
        """Whether slices of one tensor make up that tensor, in order."""
        first = tiles[0]
        if any((tile.of, tile.axis) != (first.of, first.axis) for tile in tiles):
            return False
        return self.views.join(tiles, first.axis) is first.of

    def is_from_split(self, cut: Slice) -> bool:
        """Whether a slice and its neighbours come from one Split."""
        return id(cut) in self._tiles

    # Single nodes

    def node(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: Attribute) -> str:
        """Adds a node with one output, and returns its name."""
        outputs = [name] if name else 1
        return self.sink.add_node(op_type, inputs, outputs, attributes=attributes, name=f"onnxfix_{op_type}").outputs[0]

    def numbers(self, *numbers: int) -> str:
        """Returns a 1-D constant."""
        return self.sink.add_constant(np.array(numbers, np.int64), "onnxfix_constant")

    def _bound(self, bound: Bound) -> str:
        return bound if isinstance(bound, str) else self.numbers(bound)

    def part(self, whole: View, cut: Slice, axis: int, name: str = "") -> str:
        """Adds a Slice of `whole` along an axis with the bounds of `cut`, or a Split for it and its neighbours.

        Raises:
            RewriteError: The model's opset is too old.
        """
        if self.sink.opset < 10:
            message = f"opset {self.sink.opset} is too old: Slice takes its bounds as attributes"
            raise RewriteError(message, hint="opset 11 is the oldest that onnxfix writes")
        tiles = self._tiles.get(id(cut), ())
        if tiles and not name:
            key = (id(whole), id(tiles[0]))
            if key not in self._splits:
                self._splits[key] = self._split(self.tensor(whole), tiles, axis)
            return self._splits[key][tiles.index(cut)]
        bounds = [self._bound(cut.start), self._bound(cut.stop), self.numbers(axis), self.numbers(cut.step)]
        return self.node("Slice", [self.tensor(whole), *bounds], name)

    def _split(self, tensor: str, tiles: Sequence[Slice], axis: int) -> tuple[str, ...]:
        sizes = [size for tile in tiles if isinstance(size := tile.dims[tile.axis], int)]
        inputs = [tensor]
        attributes: dict[str, Attribute] = {"axis": axis}
        if self.sink.opset < 13:
            attributes["split"] = sizes
        else:
            inputs.append(self.numbers(*sizes))
        return self.sink.add_node("Split", inputs, len(tiles), attributes=attributes, name="onnxfix_Split").outputs

    def change_axes(self, op_type: str, tensor: str, axes: Sequence[int], name: str = "") -> str:
        """Adds a Squeeze or an Unsqueeze."""
        if self.sink.opset < 13:
            return self.node(op_type, [tensor], name, axes=list(axes))
        return self.node(op_type, [tensor, self.numbers(*axes)], name)
