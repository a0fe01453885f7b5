"""Writes views as ONNX nodes. What differs between opsets differs here.

Slice has its bounds as inputs from opset 10 on, Squeeze and Unsqueeze their axes from 13 on, Reshape takes a literal 0
from 14 on (`allowzero`), Shape a range from 15 on (onnx/onnx: docs/Changelog.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from onnxfix.errors import RewriteError
from onnxfix.surgery.view import Bound, Join, Leaf, Move, Size, Slice, View, Views, is_identity

if TYPE_CHECKING:
    from onnxfix.model.attributes import Array, Attribute


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
    """Counts nodes instead of adding them."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes = 0
        self.outputs: tuple[str, ...] = ()

    def add_node(
        self, op_type: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, *,
        attributes: Mapping[str, Attribute] | None = None, name: str = "",
    ) -> Counter:  # fmt: skip
        """Counts a node."""
        self.nodes += 1
        self.outputs = ("",) * outputs if isinstance(outputs, int) else tuple(outputs)
        return self

    def add_constant(self, value: Array, name: str = "constant") -> str:
        """Counts nothing: constants are initializers."""
        return ""


class Emitter:
    """Emits views, each once.

    Attributes:
        sink: Where the nodes go.
        made: The view of every tensor that was emitted, by its name.
    """

    def __init__(self, sink: Sink, views: Views) -> None:
        self.sink = sink
        self.made: dict[str, View] = {}
        self._views = views
        self._tiles: dict[int, tuple[Slice, ...]] = {}
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
            made = self._node("Identity", [view.name], name) if name else view.name
        elif id(view) in self._done:
            return self._node("Identity", [self._done[id(view)]], name)
        elif isinstance(view, Slice):
            made = self._slice(view, name)
        elif isinstance(view, Join):
            made = self._node("Concat", [self.tensor(part) for part in view.parts], name, axis=view.axis)
        elif isinstance(view, Move):
            made = self._move(view, name)
        else:
            raise TypeError(type(view).__name__)
        self._done[id(view)] = made
        self.made[made] = view
        return made

    def prefer_split(self, parts: Sequence[View]) -> None:
        """Lets parts that make up a whole tensor come from one Split, as the graph had it, in place of Slices."""
        tiles = tuple(part for part in parts if isinstance(part, Slice) and part.is_static and part.step == 1)
        if len(tiles) != len(parts) or len(tiles) < 2:
            return
        whole = self._views.join(tiles, tiles[0].axis)
        if whole is tiles[0].of and all(part.of is whole and part.axis == tiles[0].axis for part in tiles):
            self._tiles.update(dict.fromkeys(map(id, tiles), tiles))

    def is_made(self, view: View) -> bool:
        """Whether a tensor of that content exists already."""
        return isinstance(view, Leaf) or id(view) in self._done

    # Single nodes

    def _node(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: Attribute) -> str:
        outputs = [name] if name else 1
        return self.sink.add_node(op_type, inputs, outputs, attributes=attributes, name=f"onnxfix_{op_type}").outputs[0]

    def _numbers(self, *numbers: int) -> str:
        return self.sink.add_constant(np.array(numbers, np.int64), "onnxfix_constant")

    def _bound(self, bound: Bound) -> str:
        return bound if isinstance(bound, str) else self._numbers(bound)

    def _slice(self, view: Slice, name: str) -> str:
        if self.sink.opset < 10:
            message = f"opset {self.sink.opset} is too old: Slice takes its bounds as attributes"
            raise RewriteError(message, hint="opset 11 is the oldest that onnxfix writes")
        if id(view) in self._tiles and not name:
            return self._split(view, self._tiles[id(view)])
        return self._cut(self.tensor(view.of), view, view.axis, name)

    def _cut(self, tensor: str, view: Slice, axis: int, name: str) -> str:
        bounds = [self._bound(view.start), self._bound(view.stop), self._numbers(axis), self._numbers(view.step)]
        return self._node("Slice", [tensor, *bounds], name)

    def _split(self, view: Slice, tiles: tuple[Slice, ...]) -> str:
        sizes = [size for part in tiles if isinstance(size := part.dims[part.axis], int)]
        inputs = [self.tensor(view.of)]
        attributes: dict[str, Attribute] = {"axis": view.axis}
        if self.sink.opset < 13:
            attributes["split"] = sizes
        else:
            inputs.append(self._numbers(*sizes))
        node = self.sink.add_node("Split", inputs, len(tiles), attributes=attributes, name="onnxfix_Split")
        for part, made in zip(tiles, node.outputs, strict=True):
            self._done[id(part)] = made
            self.made[made] = part
        return self._done[id(view)]

    def _axes(self, op_type: str, tensor: str, axes: Sequence[int], name: str = "") -> str:
        if self.sink.opset < 13:
            return self._node(op_type, [tensor], name, axes=list(axes))
        return self._node(op_type, [tensor, self._numbers(*axes)], name)

    # Rearrangements

    def _move(self, view: Move, name: str) -> str:
        gone = [axis for axis, sizes in enumerate(view.atoms) if not sizes]
        for axis in gone:
            if (index := _picked(view.of, axis)) is not None:
                return self._pick(view, axis, index, name)
        flat = [index for group in view.groups for index in group]
        is_plain = all(len(sizes) < 2 for sizes in view.atoms) and all(len(group) < 2 for group in view.groups)
        in_order = flat == sorted(flat)
        if is_plain and in_order:
            return self._units(view, gone, name)
        if in_order:
            return self._reshape(self.tensor(view.of), view.of.dims, view.dims, name)
        if is_plain:
            return self._transpose(view, gone, name)
        sizes = [size for row in view.atoms for size in row]
        tensor = self._reshape(self.tensor(view.of), view.of.dims, sizes)
        moved = [sizes[index] for index in flat]
        is_last = all(len(group) == 1 for group in view.groups)
        tensor = self._node("Transpose", [tensor], name if is_last else "", perm=flat)
        return tensor if is_last else self._reshape(tensor, moved, view.dims, name)

    def _pick(self, view: Move, axis: int, index: int, name: str) -> str:
        """A slice of one element whose dim goes is a Gather; slices of other axes come after it, on smaller tensors."""
        inner = view.of
        assert isinstance(inner, Slice)
        atoms = _without(view.atoms, axis)
        if not is_identity(atoms, view.groups):
            picked = self._views.squeeze(inner, (axis,))
            self.tensor(picked)
            return self._move(Move(view.dims, picked, atoms, view.groups), name)
        if inner.axis != axis:
            picked = self._views.squeeze(inner.of, (axis,))
            return self._cut(self.tensor(picked), inner, inner.axis - (axis < inner.axis), name)
        constant = self.sink.add_constant(np.array(index, np.int64), "onnxfix_constant")
        return self._node("Gather", [self.tensor(inner.of), constant], name, axis=axis)

    def _units(self, view: Move, gone: Sequence[int], name: str) -> str:
        """Dims of size 1 come and go: Squeeze and Unsqueeze, or one Reshape for both."""
        added = [axis for axis, group in enumerate(view.groups) if not group]
        tensor = self.tensor(view.of)
        if gone and added and (shape := _constant_shape(view.of.dims, view.dims)) is not None:
            return self._node("Reshape", [tensor, self._numbers(*shape)], name)
        if gone:
            tensor = self._axes("Squeeze", tensor, gone, "" if added else name)
        return self._axes("Unsqueeze", tensor, added, name) if added else tensor

    def _transpose(self, view: Move, gone: Sequence[int], name: str) -> str:
        """Unit dims that stay in number take part in the transposition."""
        added = [axis for axis, group in enumerate(view.groups) if not group]
        kept = min(len(gone), len(added))
        tensor = self.tensor(view.of)
        if gone[kept:]:
            tensor = self._axes("Squeeze", tensor, gone[kept:])
        place: dict[int, int] = {}
        units: list[int] = []
        for position, axis in enumerate(axis for axis in range(len(view.atoms)) if axis not in gone[kept:]):
            if view.atoms[axis]:
                place[len(place)] = position
            else:
                units.append(position)
        spare = iter(units)
        perm = [
            place[group[0]] if group else next(spare)
            for axis, group in enumerate(view.groups)
            if axis not in added[kept:]
        ]
        rest = added[kept:]
        tensor = self._node("Transpose", [tensor], "" if rest else name, perm=perm)
        return self._axes("Unsqueeze", tensor, rest, name) if rest else tensor

    def _reshape(self, tensor: str, before: Sequence[Size], after: Sequence[Size], name: str = "") -> str:
        if tuple(before) == tuple(after) and not name:
            return tensor
        shape = _constant_shape(before, after)
        if shape is not None:
            return self._node("Reshape", [tensor, self._numbers(*shape)], name)
        if self.sink.opset < 14:
            message = (
                f"a reshape from {_show(before)} to {_show(after)} needs opset 14, the model has {self.sink.opset}"
            )
            raise RewriteError(message, hint="freeze a dim with --set-dim NAME=SIZE")
        sizes = self._node("Shape", [tensor])
        dims = [self._run_time_size(sizes, before, size) for size in after]
        return self._node("Reshape", [tensor, self._node("Concat", dims, axis=0)], name, allowzero=1)

    def _run_time_size(self, sizes: str, before: Sequence[Size], size: Size) -> str:
        """Returns a 1-D tensor with one size, computed from the sizes of the tensor before."""
        if isinstance(size, int):
            return self._numbers(size)
        if size in before:
            return self._node("Gather", [sizes, self._numbers(before.index(size))], axis=0)
        factors = size.split("*")
        if len(factors) > 1:
            result = self._factor(sizes, before, factors[0])
            for factor in factors[1:]:
                result = self._node("Mul", [result, self._factor(sizes, before, factor)])
            return result
        whole, slash, divisor = size.rpartition("/")
        if slash and divisor.isdecimal():
            return self._node("Div", [self._run_time_size(sizes, before, whole), self._numbers(int(divisor))])
        raise RewriteError(
            f"the size `{size}` cannot be told from {_show(before)}", hint="freeze a dim with --set-dim NAME=SIZE"
        )

    def _factor(self, sizes: str, before: Sequence[Size], factor: str) -> str:
        return self._numbers(int(factor)) if factor.isdecimal() else self._run_time_size(sizes, before, factor)


T = TypeVar("T")


def _without(items: Sequence[T], index: int) -> tuple[T, ...]:
    return (*items[:index], *items[index + 1 :])


def _picked(view: View, axis: int) -> int | None:
    """Returns the index that a chain of slices takes of an axis, where it takes one and knows which."""
    while isinstance(view, Slice):
        if view.axis == axis:
            return view.start if view.is_static and view.dims[axis] == 1 and isinstance(view.start, int) else None
        view = view.of
    return None


def _constant_shape(before: Sequence[Size], after: Sequence[Size]) -> list[int] | None:
    """Returns Reshape's constant shape, with 0 for a dim that is copied in place; None where one is needed at run time.

    -1 stands in only where every other size is known and not 0: a cache may be empty.
    """
    shape: list[int] = []
    for index, size in enumerate(after):
        if isinstance(size, int):
            if size == 0 and (index >= len(before) or before[index] != 0):
                return None
            shape.append(size)
        elif index < len(before) and before[index] == size:
            shape.append(0)
        else:
            shape.append(-1)
    if shape.count(-1) > 1 or (-1 in shape and 0 in shape):
        return None
    return shape


def _show(dims: Sequence[Size]) -> str:
    return f"[{', '.join(map(str, dims))}]"
