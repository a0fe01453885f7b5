"""Random graphs of data movement around a cache, and random pairs of conventions for them, as strategies.

A graph is written as it would be exported: caches come in under a random convention, are taken apart, windowed, used
and put together again in random ways, among movement that means nothing; some of it is read by arithmetic, by branches
and as a size. Every value is computed along with numpy, so that each graph is valid at the sizes it was drawn at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.vendor.pretty import RepresentationPrinter
from onnx import TensorProto, helper, numpy_helper

MAX = 2**63 - 1
SIZES = {"layer": 3, "kv": 2, "batch": 2, "head": 3, "time": 5, "dim": 4}
"""What axes measure when a graph is drawn; open ones may be larger when it is run."""
OPSETS = (11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 23)
LABELS = {"kv": ("key", "value")}
MOST_ELEMENTS = 800
PLAIN = ("identity", "negate", "cast", "branch", "unsqueeze", "ask")
SHAPED = (
    "slice",
    "slice",
    "window",
    "split",
    "gather",
    "gather",
    "transpose",
    "transpose",
    "reshape",
    "concat",
    "squeeze",
)


@dataclass(frozen=True)
class Way:
    """One way to write a cache down.

    Attributes:
        names: What the names of past and present begin with.
        spread: The axes that are spread over tensors.
        items: The axes in each dim of a tensor; none for a dim of size 1.
        open: The axes whose size is not known.
        has_open_groups: Whether it is not known either where a dim holds other axes, too.
    """

    names: tuple[str, str]
    spread: tuple[str, ...]
    items: tuple[tuple[str, ...], ...]
    open: frozenset[str]
    has_open_groups: bool = False

    @property
    def sentence(self) -> str:
        """The way as onnxfix reads it."""
        hole = "".join(f"_{{{axis}}}" for axis in self.spread)
        shown = ("1" if not item else item[0] if len(item) == 1 else f"({' '.join(item)})" for item in self.items)
        return f"{self.names[0]}{hole} -> {self.names[1]}{hole}: {' '.join(shown)}"

    @property
    def suffixes(self) -> list[str]:
        """What the names of its tensors end with."""
        rows = (LABELS.get(axis) or [str(index) for index in range(SIZES[axis])] for axis in self.spread)
        return ["".join(f"_{label}" for label in labels) for labels in itertools.product(*rows)]

    @property
    def dims(self) -> list[int | str]:
        """The dims of each tensor, as a model declares them."""
        return [
            "_".join(item) if self.is_open(item) else math.prod(SIZES[axis] for axis in item) for item in self.items
        ]

    @property
    def known(self) -> dict[str, int]:
        """The sizes of axes that do not vary."""
        varying = {axis for item in self.items if self.is_open(item) for axis in item if axis in self.open}
        return {axis: SIZES[axis] for axis in sorted(self.axes - varying)}

    @property
    def axes(self) -> frozenset[str]:
        """All axes."""
        return frozenset([*self.spread, *(axis for item in self.items for axis in item)])

    def is_open(self, item: Sequence[str]) -> bool:
        """Whether the size of a dim is not known."""
        return not self.open.isdisjoint(item) and (len(item) == 1 or self.has_open_groups)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each tensor."""
        return tuple(math.prod(SIZES[axis] for axis in item) for item in self.items)


@st.composite
def ways(
    draw: st.DrawFn, axes: Sequence[str], opened: frozenset[str], names: tuple[str, str], has_open_groups: bool = False
) -> Way:
    """Draws a way to write down a cache of these axes."""
    spread = [axis for axis in ("layer", "kv") if axis in axes and draw(st.booleans())]
    items: list[tuple[str, ...]] = []
    for axis in draw(st.permutations([axis for axis in axes if axis not in spread])):
        if items and items[-1] and draw(st.integers(0, 3)) == 3:
            items[-1] = (*items[-1], axis)
        else:
            items.append((axis,))
    if draw(st.integers(0, 9)) == 9:
        items.insert(draw(st.integers(0, len(items))), ())
    return Way(names, tuple(spread), tuple(items), opened, has_open_groups)


@dataclass(frozen=True)
class Drawn:
    """A model and what it shall be converted to.

    Attributes:
        model: The model, valid.
        source, target: How its cache is written down, and shall be.
        feeds: Inputs at the sizes at which it was drawn, and at larger open sizes, which it may refuse.
    """

    model: onnx.ModelProto
    source: Way
    target: Way
    feeds: tuple[dict[str, np.ndarray], ...]

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """Shows hypothesis what to print where an example fails: sentences, and the graph as text."""
        text = onnx.printer.to_text(self.model)
        printer.text(f"{self.source.sentence!r} to {self.target.sentence!r}\n{text}\n")


@dataclass
class Writer:
    """Draws a graph, node by node.

    Attributes:
        held: The content of every value, at the sizes at which the graph is drawn.
        moved: The values that are movement of a cache; further movement prefers them.
    """

    draw: st.DrawFn
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    held: dict[str, np.ndarray] = field(default_factory=dict)
    moved: dict[str, None] = field(default_factory=dict)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)

    # Parts of nodes

    def chance(self, percent: int) -> bool:
        """Draws whether something happens; it does not in the smallest example."""
        return self.draw(st.integers(0, 99)) >= 100 - percent

    def one_of(self, choices: Sequence[str]) -> str:
        """Draws one of several names."""
        return self.draw(st.sampled_from(choices))

    def number(self, least: int, most: int) -> int:
        """Draws a number."""
        return self.draw(st.integers(least, most))

    def constant(self, value: Sequence[int] | int, dtype: type = np.int64) -> str:
        """Adds a constant, as an initializer or a node."""
        array = np.array(value, dtype)
        name = f"k{len(self.initializers) + len(self.nodes)}"
        tensor = numpy_helper.from_array(array, name)
        if self.chance(30):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def node(
        self, op_type: str, inputs: Sequence[str], values: Sequence[np.ndarray], *,
        moves: bool = True, **attributes: object,
    ) -> list[str]:  # fmt: skip
        """Adds a node with these values as outputs."""
        names = [f"{op_type.lower()}{len(self.held) + index}" for index in range(len(values))]
        label = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, names, name=label, **attributes))
        self.held.update(zip(names, values, strict=True))
        if moves:
            self.moved.update(dict.fromkeys(names))
        return names

    def with_axes(self, op_type: str, x: str, axes: Sequence[int], value: np.ndarray) -> str:
        """Adds a Squeeze or an Unsqueeze."""
        rank = value.ndim if op_type == "Unsqueeze" else self.held[x].ndim
        given = [axis - rank * self.chance(30) for axis in axes]
        if self.opset < 13:
            return self.node(op_type, [x], [value], axes=given)[0]
        return self.node(op_type, [x, self.constant(given)], [value])[0]

    def axis(self, axis: int, rank: int) -> int:
        """Writes an axis from the front or from the end."""
        return axis - rank * self.chance(30)

    # Movement

    def identity(self, x: str) -> str:
        """Adds an Identity."""
        return self.node("Identity", [x], [self.held[x]])[0]

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """Adds a Transpose."""
        return self.node("Transpose", [x], [self.held[x].transpose(order)], perm=list(order))[0]

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """Adds a Reshape, its shape written out, with -1 or 0 in it, or put together at run time."""
        given, value = list(shape), self.held[x]
        kind = self.one_of(["plain", "open", "copied", "computed"]) if value.size else "plain"
        if kind == "open" and given:
            given[self.number(0, len(given) - 1)] = -1
        if kind == "copied":
            given = [
                0 if index < value.ndim and size == value.shape[index] else size for index, size in enumerate(shape)
            ]
        name = self._computed_shape(x, given) if kind == "computed" and given else self.constant(given)
        return self.node("Reshape", [x, name], [value.reshape(shape)])[0]

    def _computed_shape(self, x: str, shape: Sequence[int]) -> str:
        whole = self.node("Shape", [x], [np.array(self.held[x].shape)], moves=False)[0]
        parts = []
        for size in shape:
            if size in self.held[x].shape and self.chance(70):
                place = list(self.held[x].shape).index(size)
                parts += self.node("Gather", [whole, self.constant([place])], [np.array([size])], moves=False, axis=0)
            else:
                parts.append(self.constant([size]))
        return self.node("Concat", parts, [np.array(shape)], moves=False, axis=0)[0]

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """Adds a Slice of one axis; numbers in range are written in one of the ways that mean the same."""
        value = self.held[x]
        size = value.shape[axis]
        narrow = self.chance(15)
        stop = (
            MAX if stop == size and self.chance(40) and not narrow else stop - size * (stop < size and self.chance(20))
        )
        bounds = [start - size * (start < size and self.chance(20)), stop, self.axis(axis, value.ndim), step]
        dtype = np.int32 if narrow else np.int64
        inputs = [x, *(self.constant([bound], dtype) for bound in bounds)]
        if step == 1 and self.chance(50):
            inputs.pop()
        cut = value[(slice(None),) * axis + (slice(bounds[0], stop, step),)]
        return self.node("Slice", inputs, [cut])[0]

    def window(self, x: str, axis: int) -> str:
        """Adds a Slice whose start is known at run time only."""
        value = self.held[x]
        size = value.shape[axis]
        kind = self.one_of(["input", "size"])
        if kind == "size" and size:
            whole = self.node("Shape", [x], [np.array(value.shape)], moves=False)[0]
            place = self.constant([axis])
            start = size
            name = self.node("Gather", [whole, place], [np.array([size])], moves=False, axis=0)[0]
            back = self.number(0, size)
            name = self.node("Sub", [name, self.constant([back])], [np.array([size - back])], moves=False)[0]
            start = size - back
        else:
            start = self.number(-size - 1, size + 1)
            name = f"n{len(self.inputs)}"
            self.inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [1]))
            self.feeds[name] = np.array([start])
        cut = value[(slice(None),) * axis + (slice(start, None),)]
        return self.node("Slice", [x, name, self.constant([MAX]), self.constant([axis])], [cut])[0]

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Adds a Split."""
        value = self.held[x]
        parts = np.split(value, np.cumsum(sizes)[:-1], axis)
        given = self.axis(axis, value.ndim)
        if len(set(sizes)) == 1 and self.chance(40):
            more = {"num_outputs": len(sizes)} if self.opset >= 18 else {}
            return self.node("Split", [x], parts, axis=given, **more)
        if self.opset < 13:
            return self.node("Split", [x], parts, axis=given, split=list(sizes))
        return self.node("Split", [x, self.constant(sizes)], parts, axis=given)

    def gather(self, x: str, axis: int, indices: Sequence[int] | int) -> str:
        """Adds a Gather of one index, or of a list."""
        value = self.held[x]
        size = value.shape[axis]
        dtype = np.int32 if self.chance(20) else np.int64
        given = (
            indices - size * self.chance(20)
            if isinstance(indices, int)
            else [index - size * self.chance(20) for index in indices]
        )
        found = value.take(indices, axis)
        return self.node("Gather", [x, self.constant(given, dtype)], [found], axis=self.axis(axis, value.ndim))[0]

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Adds a Concat."""
        value = np.concatenate([self.held[part] for part in parts], axis)
        return self.node("Concat", parts, [value], axis=self.axis(axis, value.ndim))[0]

    def squeeze(self, x: str, axis: int) -> str:
        """Adds a Squeeze of one axis."""
        return self.with_axes("Squeeze", x, [axis], self.held[x].squeeze(axis))

    def unsqueeze(self, x: str, axis: int) -> str:
        """Adds an Unsqueeze."""
        return self.with_axes("Unsqueeze", x, [axis], np.expand_dims(self.held[x], axis))

    # Other nodes

    def negate(self, x: str) -> str:
        """Adds arithmetic."""
        return self.node("Neg", [x], [-self.held[x]], moves=False)[0]

    def cast(self, x: str) -> str:
        """Adds a Cast to the other floating-point type that holds all the numbers."""
        other = np.float64 if self.held[x].dtype == np.float32 else np.float32
        to = helper.np_dtype_to_tensor_dtype(np.dtype(other))
        return self.node("Cast", [x], [self.held[x].astype(other)], to=to)[0]

    def branch(self, x: str) -> str:
        """Adds an If whose branches capture a value."""
        if "flag" not in self.feeds:
            self.inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
            self.feeds["flag"] = np.array(True)
        rank = self.held[x].ndim
        graphs = []
        for op_type in ("Neg", "Identity"):
            name = f"{op_type.lower()}_in_{len(self.nodes)}"
            dims = [f"{name}_{axis}" for axis in range(rank)]
            elem_type = helper.np_dtype_to_tensor_dtype(self.held[x].dtype)
            graphs.append(
                helper.make_graph(
                    [helper.make_node(op_type, [x], [name])], f"{name}_graph", [],
                    [helper.make_tensor_value_info(name, elem_type, dims)],
                )
            )  # fmt: skip
        then, other = graphs
        return self.node("If", ["flag"], [-self.held[x]], moves=False, then_branch=then, else_branch=other)[0]

    def output(self, x: str, name: str = "") -> None:
        """Makes a value an output, directly where it may be."""
        taken = {value.name for value in self.outputs}
        direct = not name and x not in taken and x not in self.feeds and self.chance(30)
        name = x if direct else name or f"y{len(self.outputs)}"
        value = self.held[x]
        if name != x:
            op_type = "Identity" if value.dtype == np.int64 or self.chance(30) else "Neg"
            self.nodes.append(helper.make_node(op_type, [x], [name], name=f"{op_type}_{len(self.nodes)}"))
        elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        dims = [f"{name}_{axis}" for axis in range(value.ndim)]
        self.outputs.append(helper.make_tensor_value_info(name, elem_type, dims))

    def ask(self, x: str) -> None:
        """Makes a size of a value an output."""
        value = self.held[x]
        if not value.ndim:
            return
        axis = self.number(0, value.ndim - 1)
        if self.opset >= 15 and self.chance(40):
            start = self.axis(axis, value.ndim)
            last = {"end": start + 1} if start != -1 else {}
            asked = self.node("Shape", [x], [np.array([value.shape[axis]])], moves=False, start=start, **last)[0]
        else:
            asked = self.node("Shape", [x], [np.array(value.shape)], moves=False)[0]
            if not self.chance(20):
                index = self.axis(axis, value.ndim) if self.chance(50) else [axis]
                found = np.array(value.shape).take(index)
                asked = self.node("Gather", [asked, self.constant(index)], [np.array(found)], moves=False, axis=0)[0]
        self.output(asked)

    # Whole graphs

    def pick(self) -> str:
        """Draws a value, most often one that is movement of a cache; the latest in the smallest example."""
        pool = [*self.moved] if not self.chance(15) else [
            name for name, value in self.held.items() if value.dtype.kind == "f"
        ]  # fmt: skip
        return self.one_of(pool[::-1])

    def step(self) -> None:
        """Adds a random node to a random value."""
        x = self.pick()
        value = self.held[x]
        kind = self.one_of([*SHAPED, *PLAIN] if value.ndim and value.size else PLAIN)
        if kind in ("identity", "negate", "cast", "branch", "ask"):
            getattr(self, kind)(x)
        elif kind == "unsqueeze" and value.ndim < 6:
            self.unsqueeze(x, self.number(0, value.ndim))
        elif kind != "unsqueeze":
            self._move(kind, x, self.number(0, value.ndim - 1))

    def _move(self, kind: str, x: str, axis: int) -> None:
        value = self.held[x]
        size = value.shape[axis]
        if kind == "slice":
            start = self.number(0, size - 1)
            self.slice(x, axis, start, self.number(start + 1, size), 1 if self.chance(70) else self.number(1, 3))
        elif kind == "window":
            self.window(x, axis)
        elif kind == "split":
            self.split(x, axis, self._parts(size))
        elif kind == "gather":
            many = st.lists(st.integers(0, size - 1), min_size=1, max_size=3)
            self.gather(x, axis, self.draw(st.one_of(st.integers(0, size - 1), many)))
        elif kind == "transpose":
            self.transpose(x, self.draw(st.permutations(range(value.ndim))))
        elif kind == "reshape":
            self.reshape(x, self._other_shape(value.shape))
        elif kind == "concat" and value.size < MOST_ELEMENTS:
            self.concat(self._mates(x, axis), axis)
        elif kind == "squeeze" and 1 in value.shape:
            self.squeeze(x, value.shape.index(1))

    def _mates(self, x: str, axis: int) -> list[str]:
        """Draws values that can be concatenated with one, in any order."""
        shape = self.held[x].shape

        def fits(name: str) -> bool:
            other = self.held[name].shape
            return (
                len(other) == len(shape)
                and self.held[name].dtype == self.held[x].dtype
                and all(one == two for place, (one, two) in enumerate(zip(shape, other, strict=True)) if place != axis)
            )

        others = [name for name in self.moved if fits(name)] or [x]
        return list(self.draw(st.permutations([x, *self.draw(st.lists(st.sampled_from(others), max_size=3))])))

    def _parts(self, size: int) -> list[int]:
        """Draws the sizes of up to four parts."""
        if size < 2:
            return [size]
        if self.chance(30):
            return [1] * size
        cut = self.draw(st.lists(st.integers(1, size - 1), min_size=1, max_size=3, unique=True))
        return np.diff([0, *sorted(cut), size]).tolist()

    def _other_shape(self, shape: Sequence[int]) -> list[int]:
        """Draws a shape of the same size: two dims merged, or one divided."""
        dims = list(shape)
        place = self.number(0, len(dims) - 1)
        if place + 1 < len(dims) and self.chance(50):
            return [*dims[:place], dims[place] * dims[place + 1], *dims[place + 2 :]]
        size = dims[place]
        factor = self.draw(st.sampled_from([one for one in range(1, size + 1) if size % one == 0]))
        return [*dims[:place], size // factor, factor, *dims[place + 1 :]]

    def through(self, x: str, depth: int) -> str:
        """Takes a value apart, does something to the parts, and puts them together to the same shape again."""
        value = self.held[x]
        ways = ["pass", "negate"] if not depth or not value.ndim or not value.size else [
            "negate", "transpose", "reshape", "split", "gather", "shift", "unit", "cast",
        ]  # fmt: skip
        way = self.one_of(ways)
        if way == "pass":
            return x
        if way == "negate":
            return self.negate(x)
        ahead: Callable[[str], str] = lambda y: self.through(y, depth - 1)  # noqa: E731
        if way == "cast":
            return self.cast(ahead(self.cast(x)))
        axis = self.number(0, value.ndim - 1)
        if way == "transpose":
            order = self.draw(st.permutations(range(value.ndim)))
            return self.transpose(ahead(self.transpose(x, order)), np.argsort(order).tolist())
        if way == "reshape":
            return self.reshape(ahead(self.reshape(x, self._other_shape(value.shape))), value.shape)
        if way == "unit":
            place = self.number(0, value.ndim)
            return self.squeeze(ahead(self.unsqueeze(x, place)), place) if value.ndim < 6 else x
        if way == "split":
            return self.concat([ahead(part) for part in self._apart(x, axis)], axis)
        if way == "gather" and value.shape[axis] < 5:
            place = self.number(0, value.ndim - 1)
            rows = [self.unsqueeze(ahead(self.gather(x, axis, index)), place) for index in range(value.shape[axis])]
            joined = self.concat(rows, place)
            order = [index for index in range(value.ndim) if index != place]
            order.insert(axis, place)
            return joined if place == axis else self.transpose(joined, order)
        return self._shift(x, axis)

    def _apart(self, x: str, axis: int) -> list[str]:
        sizes = self._parts(self.held[x].shape[axis])
        if self.chance(50):
            return self.split(x, axis, sizes)
        ends = np.cumsum(sizes).tolist()
        return [self.slice(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]

    # What an exporter writes

    def exported(self, x: str, items: Sequence[tuple[str, ...]], axes: Sequence[str], opened: frozenset[str]) -> str:
        """Takes a cache apart along axes, updates the parts, and puts them together again.

        Args:
            x: The cache.
            items: The axes in each of its dims.
            axes: The axes to take apart, the first one first.
            opened: The axes whose size is not known.
        """
        if not axes:
            return self._updated(x, items)
        axis, place = axes[0], next(index for index, item in enumerate(items) if axes[0] in item)
        if self.chance(20):
            order = self.draw(st.permutations(range(len(items))))
            inner = self.exported(self.transpose(x, order), [items[index] for index in order], axes, opened)
            return self.transpose(inner, np.argsort(order).tolist())
        if len(items[place]) > 1:
            single = [*items[:place], *((one,) for one in items[place]), *items[place + 1 :]]
            inner = self.exported(self._regroup(x, items, single, opened), single, axes, opened)
            return self._regroup(inner, single, items, opened)
        if self.chance(50):
            rest = [*items[:place], *items[place + 1 :]]
            parts = [self.exported(part, rest, axes[1:], opened) for part in self._picked(x, place)]
            return self._stacked(parts, place)
        units = [*items[:place], (), *items[place + 1 :]]
        ones = [1] * SIZES[axis]
        whole = self.split(x, place, ones) if self.chance(50) else [
            self.slice(x, place, index, index + 1) for index in range(SIZES[axis])
        ]  # fmt: skip
        return self.concat([self.exported(part, units, axes[1:], opened) for part in whole], place)

    def _updated(self, x: str, items: Sequence[tuple[str, ...]]) -> str:
        """Updates what is left when a cache is taken apart."""
        kind = self.one_of(["negate", "grow", "pass", "through"])
        if kind == "grow" and ("time",) in items:
            return self._shift(x, [*items].index(("time",)))
        if kind == "through":
            return self.through(x, 1)
        if self.chance(20):
            self.output(x)
        return x if kind == "pass" else self.negate(x)

    def _picked(self, x: str, axis: int) -> list[str]:
        """Takes an axis apart, and leaves it out."""
        size = self.held[x].shape[axis]
        kind = self.one_of(["gather", "slice", "split"])
        if kind == "gather":
            return [self.gather(x, axis, index) for index in range(size)]
        parts = self.split(x, axis, [1] * size) if kind == "split" else [
            self.slice(x, axis, index, index + 1) for index in range(size)
        ]  # fmt: skip
        return [self.squeeze(part, axis) for part in parts]

    def _stacked(self, parts: Sequence[str], axis: int) -> str:
        """Stacks parts along a new axis, there or in front."""
        rank = self.held[parts[0]].ndim
        place = axis if self.chance(60) else 0
        joined = self.concat([self.unsqueeze(part, place) for part in parts], place)
        if place == axis:
            return joined
        order = [*range(1, rank + 1)]
        order.insert(axis, 0)
        return self.transpose(joined, order)

    def _regroup(
        self, x: str, before: Sequence[tuple[str, ...]], after: Sequence[tuple[str, ...]], opened: frozenset[str]
    ) -> str:
        """Adds a Reshape that divides or merges dims, and takes sizes that are not known from the tensor."""
        value = self.held[x]
        shape = [math.prod(SIZES[axis] for axis in item) for item in after]
        unknown = [index for index, item in enumerate(after) if not opened.isdisjoint(item)]
        if len(unknown) < 2:
            shape_input = self.constant([-1 if index in unknown else size for index, size in enumerate(shape)])
        else:
            whole = self.node("Shape", [x], [np.array(value.shape)], moves=False)[0]
            parts = []
            for index, item in enumerate(after):
                if index in unknown and item in before:
                    place = self.constant([list(before).index(item)])
                    parts += self.node("Gather", [whole, place], [np.array([shape[index]])], moves=False, axis=0)
                else:
                    parts.append(self.constant([shape[index]]))
            shape_input = self.node("Concat", parts, [np.array(shape)], moves=False, axis=0)[0]
        return self.node("Reshape", [x, shape_input], [value.reshape(shape)])[0]

    def _shift(self, x: str, axis: int) -> str:
        """Puts something new behind a cache, and cuts off as much in front."""
        size = self.held[x].shape[axis]
        count = self.number(1, size)
        new = self.negate(self.slice(x, axis, 0, count))
        if self.chance(50):
            return self.concat([self.slice(x, axis, count, size), new] if count < size else [new], axis)
        joined = self.concat([x, new], axis)
        return self.slice(joined, axis, count, size + count)


@st.composite
def random_models(draw: st.DrawFn) -> Drawn:
    """Draws a model that moves its cache about, and another way to write the cache down."""
    source, target, writer = _begin(draw)
    for _ in range(draw(st.integers(0, 6))):
        writer.step()
    _read_some(writer, 25)
    for suffix in source.suffixes:
        x = f"a{suffix}"
        if writer.chance(30):
            like = writer.held[x]
            alike = [
                name
                for name in writer.moved
                if (held := writer.held[name]).shape == like.shape and held.dtype == like.dtype
            ]
            x = writer.one_of(alike)
        _yield_cache(writer, writer.through(x, writer.number(0, 3)), f"b{suffix}", source)
    return _end(writer, source, target)


@st.composite
def exported_models(draw: st.DrawFn) -> Drawn:
    """Draws a model that takes its cache apart as it shall be taken apart, and a few nodes beside that."""
    source, target, writer = _begin(draw)
    axes = [axis for axis in target.spread if axis not in source.spread]
    axes += [
        axis
        for axis in ("layer", "kv")
        if axis in source.axes and axis not in [*source.spread, *axes] and writer.chance(30)
    ]
    for suffix in source.suffixes:
        made = writer.exported(f"a{suffix}", source.items, draw(st.permutations(axes)), source.open)
        _yield_cache(writer, made, f"b{suffix}", source)
    for _ in range(draw(st.integers(0, 2))):
        writer.step()
    _read_some(writer, 8)
    return _end(writer, source, target)


def _begin(draw: st.DrawFn) -> tuple[Way, Way, Writer]:
    axes = draw(st.lists(st.sampled_from([*SIZES]), min_size=2, max_size=5, unique=True))
    opened = frozenset(axis for axis in axes if axis in ("batch", "time", "head") and draw(st.integers(0, 9)) > 4)
    has_open_groups = draw(st.integers(0, 9)) == 9
    source = draw(ways(axes, opened, ("a", "b"), has_open_groups))
    target = draw(ways(axes, opened, ("c", "d"), has_open_groups))
    writer = Writer(draw, draw(st.sampled_from(OPSETS)))
    for suffix in source.suffixes:
        name = f"a{suffix}"
        writer.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, source.dims))
        writer.held[name] = writer.feeds[name] = _numbers(len(writer.inputs), source.shape)
        writer.moved[name] = None
    return source, target, writer


def _read_some(writer: Writer, percent: int) -> None:
    for name, value in [*writer.held.items()]:
        if name not in writer.feeds and value.dtype.kind == "f" and writer.chance(percent):
            writer.output(name)


def _yield_cache(writer: Writer, made: str, present: str, way: Way) -> None:
    """Makes a value a present cache: under its name, where nothing has read it yet, or through an Identity."""
    maker = writer.nodes[-1] if writer.nodes else None
    is_output = any(value.name == made for value in writer.outputs)
    if made not in writer.feeds and not is_output and maker and list(maker.output) == [made] and writer.chance(60):
        maker.output[0] = present
        writer.held[present] = writer.held.pop(made)
        if made in writer.moved:
            del writer.moved[made]
            writer.moved[present] = None
    else:
        writer.nodes.append(helper.make_node("Identity", [made], [present], name=f"Identity_{len(writer.nodes)}"))
    writer.outputs.append(helper.make_tensor_value_info(present, TensorProto.FLOAT, way.dims))


def _end(writer: Writer, source: Way, target: Way) -> Drawn:
    graph = helper.make_graph(writer.nodes, "drawn", writer.inputs, writer.outputs, writer.initializers)
    opsets = [helper.make_opsetid("", writer.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if writer.opset < 21 else 10)
    return Drawn(model, source, target, (writer.feeds, _larger(writer, source)))


def _numbers(index: int, shape: Sequence[int]) -> np.ndarray:
    """Returns numbers of which each occurs once in all caches."""
    first = 10_000 * index
    return np.arange(first, first + math.prod(shape), dtype=np.float32).reshape(shape)


def _larger(writer: Writer, way: Way) -> dict[str, np.ndarray]:
    """Returns inputs at larger sizes of what is open."""
    feeds = dict(writer.feeds)
    for index, suffix in enumerate(way.suffixes, 1):
        shape = [
            math.prod(SIZES[axis] + (axis in way.open) + 2 * (axis == "time" and axis in way.open) for axis in item)
            if way.is_open(item) else math.prod(SIZES[axis] for axis in item)
            for item in way.items
        ]  # fmt: skip
        feeds[f"a{suffix}"] = _numbers(index, shape)
    return feeds
