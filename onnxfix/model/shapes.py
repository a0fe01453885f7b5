"""Shape inference that does not give up where sizes are computed at run time.

onnx infers most shapes, but loses all dims of a `Slice` whose bounds are computed, although only the sliced axes are in
doubt, and even the rank of a `Reshape` to a shape of which one size is unknown. One such node near the inputs of an
export by TorchScript blinds everything behind it. Here the sizes that tensors carry are followed through the nodes that
compute with them, as far as they are known, and what follows for such nodes is written down before onnx infers again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import onnx

from onnxfix.convention.signature import Dim
from onnxfix.model.attributes import Array, attributes_of, constant_value, tensor_value
from onnxfix.model.external import graphs_of
from onnxfix.model.ports import dims_of, set_dims

_ROUNDS = 16
_LONGEST = 64


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with the types of its values in `value_info`, as far as they can be inferred.

    The argument stays as it is. Sizes that nobody knows get new names, the same name where they are the same.
    """
    for _ in range(_ROUNDS):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not _Refinement(model).run():
            break
    return model


@dataclass(frozen=True)
class _Sizes:
    """Integers that a small tensor holds, as far as they are known: a vector, or a scalar of one entry."""

    entries: tuple[Dim, ...]
    is_scalar: bool = False

    @property
    def integers(self) -> tuple[int, ...] | None:
        """All entries, where every one is a known integer."""
        known = tuple(entry for entry in self.entries if isinstance(entry, int))
        return known if len(known) == len(self.entries) else None


class _Refinement:
    """One walk over a graph, in its order."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.graph = graph
        self.model = model
        self.types = {v.name: v.type for values in (graph.value_info, graph.output, graph.input) for v in values}
        known = ((name, dims_of(kind)) for name, kind in self.types.items())
        self.dims = {name: dims for name, dims in known if dims is not None}
        self.sizes: dict[str, _Sizes] = {}
        self.constants: dict[str, onnx.TensorProto] = {}
        self.learnt: set[str] = set()
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        ports = {value.name for value in graph.input} if model.ir_version >= 4 else set()
        for tensor in graph.initializer:
            self.dims[tensor.name] = tuple(tensor.dims)
            self.types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            if tensor.name not in ports:
                self._note(tensor.name, tensor_value(tensor))
                self.constants[tensor.name] = tensor

    def run(self) -> bool:
        """Writes what follows into `value_info`; says whether anything did."""
        for node in self.graph.node:
            if node.domain not in ("", "ai.onnx") or not node.output:
                continue
            if node.op_type == "Constant":
                self._note(node.output[0], constant_value(node))
                continue
            if node.op_type in _SIZES:
                sizes = _SIZES[node.op_type](self, node)
                if sizes is not None and len(sizes.entries) <= _LONGEST:
                    self.sizes[node.output[0]] = sizes
            if node.op_type in _SHAPES:
                dims = _SHAPES[node.op_type](self, node)
                if dims is not None:
                    self._learn(node.output[0], dims)
            elif not self.learnt.isdisjoint(node.input):
                self._infer_node(node)
        return bool(self.learnt)

    def _infer_node(self, node: onnx.NodeProto) -> None:
        """Lets onnx infer one node again, of whose inputs more is known now."""
        read = [name for name in node.input if name]
        if any(name not in self.types for name in read) or next(graphs_of(node), None) is not None:
            return
        versions = {entry.domain: entry.version for entry in self.model.opset_import}
        try:
            outputs = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, versions.get("", versions.get("ai.onnx", 1)), ""),
                node,
                {name: self.types[name] for name in read},
                {name: self.constants[name] for name in read if name in self.constants},
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError):
            return
        for name, kind in outputs.items():
            dims = dims_of(kind)
            if dims is not None:
                self._learn(name, dims)

    def _note(self, name: str, value: Array | None) -> None:
        if value is not None and value.ndim <= 1 and value.size <= _LONGEST and value.dtype.kind in "iu":
            self.sizes[name] = _Sizes(tuple(int(entry) for entry in value.reshape(-1)), value.ndim == 0)

    def _learn(self, name: str, dims: Sequence[Dim]) -> None:
        """Adds what is new in `dims` to what is known of a value."""
        known = self.dims.get(name, (None,) * len(dims))
        if len(known) != len(dims) or name not in self.types:
            return
        merged = tuple(_better(old, new) for old, new in zip(known, dims, strict=True))
        if name in self.dims and merged == known:
            return
        set_dims(self.types[name].tensor_type, merged)
        self.dims[name] = merged
        self.learnt.add(name)

    def sizes_at(self, node: onnx.NodeProto, index: int) -> _Sizes | None:
        """Returns what is known of the sizes that a node reads at an input."""
        name = node.input[index] if index < len(node.input) else ""
        if name in self.sizes:
            return self.sizes[name]
        dims = self.dims.get(name)
        # Of a vector whose length is known, the number of entries is known at least.
        if dims is not None and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= _LONGEST:
            return _Sizes((None,) * dims[0])
        return None

    def integers_at(self, node: onnx.NodeProto, index: int) -> tuple[int, ...] | None:
        """Returns the integers that a node reads at an input, where all are known."""
        sizes = self.sizes_at(node, index)
        return None if sizes is None else sizes.integers

    def dims_at(self, node: onnx.NodeProto, index: int) -> tuple[Dim, ...] | None:
        """Returns the dims of what a node reads at an input."""
        return self.dims.get(node.input[index]) if index < len(node.input) else None


def _better(old: Dim, new: Dim) -> Dim:
    if isinstance(old, int) or new is None:
        return old
    # onnx calls a size that it cannot name `unk__` and a number.
    return new if isinstance(new, int) or old is None or old.startswith("unk__") else old


# The sizes that nodes compute


def _shape(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    dims = walk.dims_at(node, 0)
    attributes = attributes_of(node)
    start, end = attributes.get("start", 0), attributes.get("end")
    if dims is None or not isinstance(start, int) or not isinstance(end, int | None):
        return None
    return _Sizes(dims[start:end])


def _gathered(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    sizes, picked = walk.sizes_at(node, 0), walk.sizes_at(node, 1)
    if sizes is None or sizes.is_scalar or picked is None or picked.integers is None:
        return None
    count = len(sizes.entries)
    if not all(-count <= index < count for index in picked.integers):
        return None
    return _Sizes(tuple(sizes.entries[index] for index in picked.integers), picked.is_scalar)


def _concatenated(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    entries: tuple[Dim, ...] = ()
    for index in range(len(node.input)):
        sizes = walk.sizes_at(node, index)
        if sizes is None or sizes.is_scalar:
            return None
        entries += sizes.entries
    return _Sizes(entries)


def _sliced(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    sizes = walk.sizes_at(node, 0)
    starts, ends = walk.integers_at(node, 1), walk.integers_at(node, 2)
    steps = walk.integers_at(node, 4) if len(node.input) > 4 else (1,)
    if sizes is None or sizes.is_scalar or starts is None or ends is None or steps is None or steps[0] == 0:
        return None
    # A descending slice ends before index 0 at the smallest integer, which for Python means the same as None.
    end = None if steps[0] < 0 and ends[0] < -len(sizes.entries) else ends[0]
    return _Sizes(sizes.entries[starts[0] : end : steps[0]])


def _same(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    return walk.sizes_at(node, 0)


def _cast(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    kept = attributes_of(node).get("to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return walk.sizes_at(node, 0) if kept else None


def _unsqueezed(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return _Sizes(sizes.entries) if sizes is not None and sizes.is_scalar else None


def _squeezed(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return _Sizes(sizes.entries, True) if sizes is not None and len(sizes.entries) == 1 else None


def _flattened(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    sizes = walk.sizes_at(node, 0)
    return _Sizes(sizes.entries) if sizes is not None and walk.integers_at(node, 1) == (-1,) else None


def _computed(walk: _Refinement, node: onnx.NodeProto) -> _Sizes | None:
    left, right = walk.sizes_at(node, 0), walk.sizes_at(node, 1)
    if left is None or right is None:
        return None
    count = max(len(left.entries), len(right.entries))
    if {len(left.entries), len(right.entries)} - {1, count}:
        return None
    pairs = zip(_stretched(left, count), _stretched(right, count), strict=True)
    return _Sizes(tuple(_result(node.op_type, *pair) for pair in pairs), left.is_scalar and right.is_scalar)


def _stretched(sizes: _Sizes, count: int) -> tuple[Dim, ...]:
    return sizes.entries * count if len(sizes.entries) == 1 else sizes.entries


def _result(op_type: str, left: Dim, right: Dim) -> Dim:
    neutral = 1 if op_type in ("Mul", "Div") else 0
    if right == neutral:
        return left
    if left == neutral and op_type in ("Add", "Mul"):
        return right
    if not isinstance(left, int) or not isinstance(right, int):
        return None
    if op_type == "Div":
        # ONNX divides integers towards zero.
        return None if right == 0 else abs(left) // abs(right) * (1 if left * right >= 0 else -1)
    return {"Add": left + right, "Sub": left - right, "Mul": left * right}[op_type]


# The dims that follow


def _slice_dims(walk: _Refinement, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    dims, starts = walk.dims_at(node, 0), walk.sizes_at(node, 1)
    if not dims or starts is None:
        return None
    has_axes = len(node.input) > 3 and node.input[3]
    axes = walk.integers_at(node, 3) if has_axes else tuple(range(len(starts.entries)))
    if axes is None:
        return None
    bounds = [_bounds(walk, node, place) for place in range(len(axes))]
    sliced = list(dims)
    for axis, bound in zip(axes, bounds, strict=True):
        sliced[axis % len(dims)] = _slice_length(dims[axis % len(dims)], bound)
    return tuple(sliced)


def _bounds(walk: _Refinement, node: onnx.NodeProto, place: int) -> tuple[int, int, int] | None:
    """Returns start, end and step of a slice along one of its axes, where all three are known."""
    rows = [walk.sizes_at(node, index) for index in (1, 2)]
    rows.append(walk.sizes_at(node, 4) if len(node.input) > 4 else _Sizes((1,) * (place + 1)))
    entries = [row.entries[place] if row is not None and place < len(row.entries) else None for row in rows]
    start, end, step = entries
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int) and step:
        return start, end, step
    return None


def _slice_length(dim: Dim, bounds: tuple[int, int, int] | None) -> Dim:
    if bounds is None or not isinstance(dim, int):
        return None
    start, end, step = bounds
    # A descending slice ends before index 0 at any integer below -dim, which for Python means the same as None.
    stop = None if step < 0 and end < -dim else end
    return len(range(*slice(start, stop, step).indices(dim)))


def _reshape_dims(walk: _Refinement, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    target, dims = walk.sizes_at(node, 1), walk.dims_at(node, 0)
    if target is None:
        return None
    entries = list(target.entries)
    for axis, entry in enumerate(entries):
        if entry == 0 and not attributes_of(node).get("allowzero"):
            entries[axis] = dims[axis] if dims is not None and axis < len(dims) else None
    if -1 in entries:
        place = entries.index(-1)
        entries[place] = None if dims is None else _quotient(dims, entries[:place] + entries[place + 1 :])
    return tuple(entries)


def _quotient(dims: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """Returns the size that is left when the product of `dims` is divided by that of `others`."""
    if None in dims or None in others or 0 in others or -1 in others:
        return None
    above, below = (Counter(dim for dim in side if isinstance(dim, str)) for side in (dims, others))
    number, divisor = (_product(side) for side in (dims, others))
    left = list((above - below).elements())
    if below - above or number % divisor or len(left) > 1 or (left and number != divisor):
        return None
    return left[0] if left else number // divisor


def _product(dims: Sequence[Dim]) -> int:
    return prod(dim for dim in dims if isinstance(dim, int))


def _expand_dims(walk: _Refinement, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    target, dims = walk.sizes_at(node, 1), walk.dims_at(node, 0)
    if target is None or dims is None:
        return None
    rank = max(len(target.entries), len(dims))
    sides = ((1,) * (rank - len(side)) + tuple(side) for side in (dims, target.entries))
    return tuple(_broadcast(*pair) for pair in zip(*sides, strict=True))


def _broadcast(one: Dim, other: Dim) -> Dim:
    if one == 1 or one == other:
        return other
    if other == 1:
        return one
    return next((size for size in (one, other) if isinstance(size, int)), None)


def _filled_dims(walk: _Refinement, node: onnx.NodeProto) -> tuple[Dim, ...] | None:
    sizes = walk.sizes_at(node, 0)
    return None if sizes is None else sizes.entries


_SIZES: dict[str, Callable[[_Refinement, onnx.NodeProto], _Sizes | None]] = {
    "Shape": _shape,
    "Gather": _gathered,
    "Concat": _concatenated,
    "Slice": _sliced,
    "Identity": _same,
    "Cast": _cast,
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed,
    "Reshape": _flattened,
    "Add": _computed,
    "Sub": _computed,
    "Mul": _computed,
    "Div": _computed,
}

_SHAPES: dict[str, Callable[[_Refinement, onnx.NodeProto], tuple[Dim, ...] | None]] = {
    "Slice": _slice_dims,
    "Reshape": _reshape_dims,
    "Expand": _expand_dims,
    "ConstantOfShape": _filled_dims,
}
