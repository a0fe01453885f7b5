"""Small integer tensors, known before run time: shapes, and the bounds that exporters compute from them.

TorchScript writes `x[:, : x.shape[1] // 2]` as Shape, Gather, Div, Unsqueeze and Slice. Where the dims are known the
numbers are, whether the graph was simplified before or not; where they are not, sizes travel as tokens.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import onnx

from onnxfix.surgery.size import Size, product, quotient

if TYPE_CHECKING:
    from onnxfix.model.attributes import Array
    from onnxfix.model.graph import GraphView, Node

_DEPTH = 24
"""How many nodes a chain of arithmetic may have."""
_LARGEST = 2**31 - 1
"""What every integer type that is used for sizes holds; beyond it sums might wrap around."""
_WIDE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


@dataclass(frozen=True)
class Numbers:
    """The content of an integer tensor with one dim or none.

    Attributes:
        entries: Numbers, or tokens for sizes that are known at run time only.
        is_scalar: Whether the tensor has no dim.
    """

    entries: tuple[Size, ...]
    is_scalar: bool = False

    @property
    def known(self) -> tuple[int, ...] | None:
        """The entries, if all are numbers."""
        known = tuple(entry for entry in self.entries if isinstance(entry, int))
        return known if len(known) == len(self.entries) else None


Found: TypeAlias = "Numbers | None"
Evaluate: TypeAlias = "Callable[[Node, list[Numbers]], Found]"


@dataclass(frozen=True)
class Integers:
    """Evaluates integer tensors of a graph.

    Attributes:
        graph: The graph.
        sizes: Tells the dims of a tensor, as tokens where they are known at run time only; None where nothing is known.
        constants: What constants of the graph hold, as far as somebody has asked.
    """

    graph: GraphView
    sizes: Callable[[str], Sequence[Size] | None]
    constants: dict[str, Found] = field(default_factory=dict)
    _found: dict[str, Found] = field(default_factory=dict)

    def of(self, name: str, depth: int = _DEPTH) -> Numbers | None:
        """Returns the content of a tensor; None where it has more than one dim, or an unknown number of entries.

        One number that nothing is known of is a token of its own.
        """
        if name not in self._found:
            self._found[name] = self._evaluate(name, depth) or self._one_number(name)
        return self._found[name]

    def _one_number(self, name: str) -> Found:
        port = self.graph.type_of(name)
        if port is None or port.dtype not in ("int32", "int64") or port.dims not in ((), (1,)):
            return None
        return Numbers((f"value({name})",), port.dims == ())

    def _evaluate(self, name: str, depth: int) -> Found:
        if name in self.constants:
            return self.constants[name]
        value = self.graph.constant(name)
        if value is not None:
            return self.constants.setdefault(name, _numbers(value))
        node = self.graph.producer(name)
        if node is None or not depth or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Shape":
            return self._shape(node)
        evaluate = _OPERATORS.get(node.op_type)
        if evaluate is None:
            return None
        inputs = [self.of(one, depth - 1) if one else None for one in node.inputs]
        known = [one for one in inputs if one is not None]
        return evaluate(node, known) if known and len(known) == len(inputs) else None

    def _shape(self, node: Node) -> Found:
        dims = self.sizes(node.inputs[0])
        if dims is None:
            return None
        return Numbers(tuple(dims[slice(node.integer("start", 0), node.integer("end", len(dims)))]))


def _numbers(value: Array) -> Found:
    # Arithmetic on narrower types wraps around.
    if value.ndim > 1 or value.dtype.kind != "i" or value.dtype.itemsize < 4:
        return None
    return Numbers(tuple(value.reshape(-1).tolist()), value.ndim == 0)


def _same(node: Node, inputs: list[Numbers]) -> Found:
    return inputs[0]


def _cast(node: Node, inputs: list[Numbers]) -> Found:
    """Sizes fit into every type that is wide enough; other types would change them."""
    known = inputs[0].known
    fits = known is None or all(abs(number) <= _LARGEST for number in known)
    return inputs[0] if node.integer("to", 0) in _WIDE and fits else None


def _concat(node: Node, inputs: list[Numbers]) -> Found:
    if any(one.is_scalar for one in inputs):
        return None
    return Numbers(tuple(entry for one in inputs for entry in one.entries))


def _gather(node: Node, inputs: list[Numbers]) -> Found:
    entries, index = inputs[0].entries, inputs[1].known
    if inputs[0].is_scalar or index is None or not all(-len(entries) <= one < len(entries) for one in index):
        return None
    return Numbers(tuple(entries[one] for one in index), inputs[1].is_scalar)


def _slice(node: Node, inputs: list[Numbers]) -> Found:
    bounds = [number for one in inputs[1:] if one.known is not None and len(one.known) == 1 for number in one.known]
    if inputs[0].is_scalar or not 2 <= len(bounds) == len(inputs) - 1:
        return None
    start, stop, _, step = (*bounds, *(0, 1)[len(bounds) - 2 :])
    return Numbers(inputs[0].entries[start:stop:step]) if step > 0 else None


def _squeeze(node: Node, inputs: list[Numbers]) -> Found:
    return Numbers(inputs[0].entries, is_scalar=True) if len(inputs[0].entries) == 1 else None


def _unsqueeze(node: Node, inputs: list[Numbers]) -> Found:
    axes = inputs[1].entries if len(inputs) > 1 else node.integers("axes") or ()
    return Numbers(inputs[0].entries) if inputs[0].is_scalar and len(axes) == 1 else None


def _reshape(node: Node, inputs: list[Numbers]) -> Found:
    shape = inputs[1].known
    if shape is None or len(shape) > 1 or 0 in shape:
        return None
    return Numbers(inputs[0].entries, is_scalar=not shape)


def _negate(node: Node, inputs: list[Numbers]) -> Found:
    known = inputs[0].known
    return None if known is None else Numbers(tuple(-number for number in known), inputs[0].is_scalar)


def _binary(compute: Callable[[int, int], int]) -> Evaluate:
    def evaluate(node: Node, inputs: list[Numbers]) -> Found:
        left, right = inputs[0].known, inputs[1].known if len(inputs) == 2 else None
        if left is None or right is None or not (1 in (len(left), len(right)) or len(left) == len(right)):
            return None
        count = max(len(left), len(right)) if left and right else 0
        pairs = [(left[index % len(left)], right[index % len(right)]) for index in range(count)]
        try:
            results = tuple(compute(one, other) for one, other in pairs)
        except ZeroDivisionError:
            return None
        is_scalar = inputs[0].is_scalar and inputs[1].is_scalar
        return Numbers(results, is_scalar) if all(abs(number) <= _LARGEST for number in results) else None

    return evaluate


def _scaling(compute: Callable[[int, int], int], scale: Callable[[Size, Size], Size | None]) -> Evaluate:
    """Returns what multiplies and divides sizes, too, that are known at run time only."""
    exact = _binary(compute)

    def evaluate(node: Node, inputs: list[Numbers]) -> Found:
        if len(inputs) != 2 or all(one.known is not None for one in inputs):
            return exact(node, inputs)
        left, right = inputs[0].entries, inputs[1].entries
        if not (1 in (len(left), len(right)) or len(left) == len(right)) or not left or not right:
            return None
        if any(isinstance(size, int) and not 0 < size <= _LARGEST for size in (*left, *right)):
            return None
        count = max(len(left), len(right))
        results = [scale(left[index % len(left)], right[index % len(right)]) for index in range(count)]
        known = tuple(size for size in results if size is not None)
        return Numbers(known, inputs[0].is_scalar and inputs[1].is_scalar) if len(known) == count else None

    return evaluate


def _divide(one: int, other: int) -> int:
    """Integers are divided as in C: towards zero (onnx/onnx: docs/Operators.md, Div)."""
    quotient = abs(one) // abs(other)
    return quotient if (one < 0) == (other < 0) else -quotient


_OPERATORS: dict[str, Evaluate] = {
    "Add": _binary(operator.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _scaling(_divide, quotient),
    "Gather": _gather,
    "Identity": _same,
    "Max": _binary(max),
    "Min": _binary(min),
    "Mul": _scaling(operator.mul, lambda one, other: product((one, other))),
    "Neg": _negate,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _binary(operator.sub),
    "Unsqueeze": _unsqueeze,
}
