"""Shape inference that does not give up where sizes are computed at run time.

onnx infers most shapes, but loses all dims of a `Slice` whose bounds are computed, although only the sliced axes are in
doubt, and even the rank of a `Reshape` to a shape of which one size is unknown. One such node near the inputs of an
export by TorchScript blinds everything behind it. Here the sizes that tensors carry are followed through the nodes that
compute with them, as far as they are known, and what follows for such nodes is written down before onnx infers again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TypeAlias

import onnx

from onnxfix.convention.signature import Dim
from onnxfix.model.attributes import Array, constant_value, tensor_value
from onnxfix.model.external import graphs_of
from onnxfix.model.ports import dims_of, set_dim, set_dims
from onnxfix.model.sizes import BROADCASTING, SHAPES, SIZES, Sizes, broadcast_dims

_ROUNDS = 16
_LONGEST = 64
_FLOATS = 8
_INTEGERS = frozenset(
    onnx.TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)

_UNKNOWN = (onnx.TensorProto(), b"")
_Read: TypeAlias = tuple[onnx.TypeProto, tuple[Dim, ...] | None]


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with the types of its values in `value_info`, as far as they can be inferred.

    The argument stays as it is. Sizes that nobody knows get new names, the same name where they are the same.
    """
    fixed = _Fixed(model)
    if not fixed.has_bodies:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        _Refinement(model, fixed).run()
        return model
    refined = None
    for _ in range(_ROUNDS):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        # Where onnx made nothing of what was learnt, nothing more can be.
        if refined == _described(model) or not _Refinement(model, fixed).run():
            break
        refined = _described(model)
    return model


def _described(model: onnx.ModelProto) -> list[bytes]:
    """Returns what a model says of its values."""
    return [value.SerializeToString() for values in (model.graph.value_info, model.graph.output) for value in values]


class _Fixed:
    """What no inference changes: nodes and constants.

    Attributes:
        nodes: The nodes of onnx's own operators, in the graph's order.
        sizes: The constants that may be sizes.
        initializers: All initializers.
        unnamed: New names for sizes that are not known.
        has_bodies: Whether nodes hold graphs: what these make of what is learnt here, onnx must tell.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._versions = {entry.domain: entry.version for entry in model.opset_import}
        self._constants: dict[str, tuple[onnx.TensorProto, bytes]] = {}
        self._inferred: dict[tuple[object, ...], dict[int, tuple[Dim, ...]]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.has_bodies = False
        self.sizes: dict[str, Sizes] = {}
        self.unnamed = _new_names(model)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        # From IR version 4 on, an initializer that is also an input is a default that the caller may override.
        ports = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
        for name, tensor in self.initializers.items():
            if name not in ports:
                self._note_tensor(name, tensor)
        for node in model.graph.node:
            is_known = node.domain in ("", "ai.onnx") and bool(node.output)
            if is_known and node.op_type == "Constant":
                self._note_constant(node)
                continue
            self.has_bodies = self.has_bodies or next(graphs_of(node), None) is not None
            if is_known:
                self.nodes.append(node)

    def _note_constant(self, node: onnx.NodeProto) -> None:
        attribute = node.attribute[0] if node.attribute else None
        if attribute is not None and attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
            self._note_tensor(node.output[0], attribute.t)
            return
        value = constant_value(node)
        if value is not None and value.dtype.kind in "if":
            self._note_tensor(node.output[0], onnx.numpy_helper.from_array(value))

    def _note_tensor(self, name: str, tensor: onnx.TensorProto) -> None:
        # Shapes follow from integers, and for a few operators (Resize, Range) from some floats.
        if tensor.data_type in _INTEGERS or prod(tensor.dims) <= _FLOATS:
            value = tensor_value(tensor)
            self._constants[name] = tensor, name.encode() if value is None else value.tobytes()
            self._note(name, value)

    def _note(self, name: str, value: Array | None) -> None:
        if value is not None and value.ndim <= 1 and value.size <= _LONGEST and value.dtype.kind in "iu":
            self.sizes[name] = Sizes(tuple(int(entry) for entry in value.reshape(-1)), value.ndim == 0)

    def infer(self, node: onnx.NodeProto, read: Mapping[str, _Read]) -> dict[int, tuple[Dim, ...]]:
        """Lets onnx infer one node, and returns the dims of its outputs, by place, as far as it can tell.

        Layers repeat: what was once inferred of a node holds for all that read the same, whatever its sizes are called.
        """
        spelling = _Spelling()
        key = (
            node.op_type,
            tuple(map(bool, node.output)),
            tuple([attribute.SerializeToString() for attribute in node.attribute]),
            tuple([name and (spelling.of(*read[name]), self._constants.get(name, _UNKNOWN)[1]) for name in node.input]),
        )
        if key not in self._inferred:
            found = self._infer(node, {name: kind for name, (kind, _) in read.items()})
            self._inferred[key] = {place: spelling.coded(dims) for place, dims in found.items()}
        return {place: spelling.decoded(dims) for place, dims in self._inferred[key].items()}

    def _infer(self, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> dict[int, tuple[Dim, ...]]:
        try:
            outputs = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self._versions.get("", self._versions.get("ai.onnx", 1)), ""),
                node,
                dict(types),
                {name: self._constants[name][0] for name in types if name in self._constants},
                opset_imports=list(self._model.opset_import),
                ir_version=self._model.ir_version,
            )
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError):
            return {}
        found = {place: dims_of(outputs[name]) for place, name in enumerate(node.output) if name in outputs}
        return {place: dims for place, dims in found.items() if dims is not None}


def _new_names(model: onnx.ModelProto) -> Iterator[str]:
    """Yields names of sizes that the model does not have, and that onnx does not make up itself."""
    stem = "unk__new"
    declared = [v.type for values in (model.graph.input, model.graph.output, model.graph.value_info) for v in values]
    while any(isinstance(dim, str) and dim.startswith(stem) for kind in declared for dim in dims_of(kind) or ()):
        stem += "er"
    return (f"{stem}{number}" for number in itertools.count())


class _Spelling:
    """Names of sizes by the order in which they occur: -1 is the first one."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def of(self, kind: onnx.TypeProto, dims: tuple[Dim, ...] | None) -> object:
        """Returns what is the same for types that differ in nothing but the names of sizes."""
        return kind.SerializeToString() if dims is None else (kind.tensor_type.elem_type, self.coded(dims))

    def coded(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """Replaces names by numbers below zero."""
        codes = self._codes
        return tuple([codes.setdefault(dim, -1 - len(codes)) if isinstance(dim, str) else dim for dim in dims])

    def decoded(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """Replaces numbers below zero by names."""
        names = list(self._codes)
        return tuple(names[-1 - dim] if isinstance(dim, int) and dim < 0 else dim for dim in dims)


class _Refinement:
    """One walk over a graph, in its order."""

    def __init__(self, model: onnx.ModelProto, fixed: _Fixed) -> None:
        graph = model.graph
        self._graph = graph
        self._fixed = fixed
        self._types = {v.name: v.type for values in (graph.value_info, graph.output, graph.input) for v in values}
        self._dims: dict[str, tuple[Dim, ...] | None] = {}
        self._sizes = dict(fixed.sizes)
        self._learnt: set[str] = set()
        self._unnamed = fixed.unnamed
        for name in fixed.initializers:
            self._types.pop(name, None)

    def run(self) -> bool:
        """Writes what follows into `value_info`; says whether anything did."""
        for node in self._fixed.nodes:
            op_type = node.op_type
            if op_type in SIZES and self._may_be_sizes(node.output[0]):
                sizes = SIZES[op_type](self, node)
                if sizes is not None and len(sizes.entries) <= _LONGEST:
                    self._sizes[node.output[0]] = sizes
            if op_type in SHAPES:
                dims = SHAPES[op_type](self, node)
                if dims is not None:
                    self._learn(node.output[0], dims)
            elif self._learnt.isdisjoint(node.input):
                continue
            elif op_type in BROADCASTING:
                dims = broadcast_dims(self, node)
                if dims is not None:
                    self._learn(node.output[0], dims)
            else:
                self._infer_node(node)
        return bool(self._learnt)

    def _may_be_sizes(self, name: str) -> bool:
        kind = self._types.get(name)
        return kind is None or kind.tensor_type.elem_type in _INTEGERS

    def _infer_node(self, node: onnx.NodeProto) -> None:
        """Lets onnx infer one node again, of whose inputs more is known now."""
        read: dict[str, _Read] = {}
        for name in filter(None, node.input):
            kind = self._type(name)
            if kind is None:
                return
            read[name] = kind, self._dims_of(name)
        if next(graphs_of(node), None) is None:
            for place, dims in self._fixed.infer(node, read).items():
                self._learn(node.output[place], dims)

    def _learn(self, name: str, dims: Sequence[Dim]) -> None:
        """Adds what is new in `dims` to what is known of a value."""
        known = self._dims_of(name)
        kind = self._type(name)
        if kind is None or (known is not None and len(known) != len(dims)):
            return
        merged = tuple(dims) if known is None else tuple(map(_better, known, dims))
        if merged == known:
            return
        # What reads it shall have the same size by the same name.
        if None in merged:
            merged = tuple([next(self._unnamed) if dim is None else dim for dim in merged])
        if known is None:
            kind.tensor_type.shape.CopyFrom(_shape_of(merged))
        else:
            for place, (old, new) in enumerate(zip(known, merged, strict=True)):
                if old != new:
                    set_dim(kind.tensor_type.shape.dim[place], new)
        self._dims[name] = merged
        self._learnt.add(name)

    def _type(self, name: str) -> onnx.TypeProto | None:
        kind = self._types.get(name)
        if kind is None and (stored := self._fixed.initializers.get(name)) is not None:
            kind = self._types[name] = _type_of(stored.data_type, tuple(stored.dims))
        return kind

    def _dims_of(self, name: str) -> tuple[Dim, ...] | None:
        if name in self._dims:
            return self._dims[name]
        kind = self._type(name)
        dims = self._dims[name] = None if kind is None else dims_of(kind)
        return dims

    def sizes_at(self, node: onnx.NodeProto, index: int) -> Sizes | None:
        """Returns what is known of the sizes that a node reads at an input."""
        name = node.input[index] if index < len(node.input) else ""
        if name in self._sizes:
            return self._sizes[name]
        dims = self._dims_of(name)
        # Of a vector whose length is known, the number of entries is known at least.
        if dims is not None and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= _LONGEST:
            return Sizes((None,) * dims[0])
        return None

    def integers_at(self, node: onnx.NodeProto, index: int) -> tuple[int, ...] | None:
        """Returns the integers that a node reads at an input, where all are known."""
        sizes = self.sizes_at(node, index)
        return None if sizes is None else sizes.integers

    def dims_at(self, node: onnx.NodeProto, index: int) -> tuple[Dim, ...] | None:
        """Returns the dims of what a node reads at an input."""
        return self._dims_of(node.input[index]) if index < len(node.input) else None


@functools.lru_cache
def _type_of(elem_type: int, dims: tuple[int, ...]) -> onnx.TypeProto:
    """Returns the type of a tensor, which is shared: nothing may be written into it."""
    return onnx.helper.make_tensor_type_proto(elem_type, dims)


@functools.lru_cache
def _shape_of(dims: tuple[Dim, ...]) -> onnx.TensorShapeProto:
    """Returns dims as a message to copy: layers repeat them, and to copy is quicker than to write."""
    kind = onnx.TypeProto.Tensor()
    set_dims(kind, dims)
    return kind.shape


def _better(old: Dim, new: Dim) -> Dim:
    if isinstance(old, int) or new is None:
        return old
    # onnx calls a size that it cannot name `unk__` and a number.
    return new if isinstance(new, int) or old is None or old.startswith("unk__") else old
