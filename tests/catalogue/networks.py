"""Small stateful networks that speak a convention, whichever it is: one function, laid out as the convention says.

Every cache is a logical array with named axes. What is done to a place of it depends on its indices alone, and is laid
out by numpy: in two conventions of a family the networks are the same one, and no wrong order of layers, heads, keys
and values or axes of equal size can hide. The read-out of a tick is a weighted sum over all places of all caches.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec, TensorSpec
from onnxfix.convention.layout import Layout
from onnxfix.convention.signature import Dim
from onnxfix.convention.sketch import COUNTING, dims_of, labels_of, names_of, ordered_units

Value: TypeAlias = str
"""The name of a value in the graph."""
Row: TypeAlias = tuple[Mapping[str, int], onnx.ValueInfoProto]

SIZES: Mapping[str, int] = {
    "layer": 2, "batch": 2, "head": 3, "time": 4, "kv": 2, "hc": 2, "dim": 5, "channel": 7, "row": 11, "column": 13,
    "stack": 2, "side": 2, "part": 3, "bin": 8,
}  # fmt: skip
STEPS = ("sequence", "frame")
"""What a tick brings: the axis along which the driving input and the output are long."""
BREADTH = 6
"""The size of all other axes of other ports."""
ELEMENTS = {
    "float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL,
}  # fmt: skip


def build(
    convention: Convention, sizes: Mapping[str, int] = SIZES, *, roles: Collection[str] | None = None,
    without: Collection[str] = (), layers: Mapping[str, Sequence[int]] | None = None, opset: int = 17,
) -> onnx.ModelProto:  # fmt: skip
    """Returns a network that speaks a convention.

    Args:
        convention: The convention.
        sizes: The size of each axis of caches; where a cache is appended to, its time is symbolic.
        roles: The roles of the other ports to have; None: all, but for flags.
        without: Caches to leave out.
        layers: The layers of caches, by name, where these do not count from 0.
        opset: ONNX opset, up to 17.
    """
    kept = tuple(cache for cache in convention.caches if cache.name not in without)
    return _Network(replace(convention, caches=kept), sizes, roles, layers or {}, opset).build()


class _Network:
    def __init__(
        self, convention: Convention, sizes: Mapping[str, int], roles: Collection[str] | None,
        layers: Mapping[str, Sequence[int]], opset: int,
    ) -> None:  # fmt: skip
        self.convention = convention
        self.sizes = sizes
        self.labels = labels_of(sizes)
        self.layers = layers
        self.opset = opset
        self.inputs = [spec for spec in convention.inputs if self._has(spec, roles)]
        self.outputs = [spec for spec in convention.outputs if self._has(spec, roles)]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self.terms: list[Value] = []

    @staticmethod
    def _has(spec: PortSpec, roles: Collection[str] | None) -> bool:
        return spec.role != "flag" if roles is None else spec.role in roles

    def build(self) -> onnx.ModelProto:
        given = [((spec.name,), [self._info(spec.name, dtype_of(spec), spec)]) for spec in self.inputs]
        steady = [spec for spec in self.inputs if set(STEPS) & set(spec.layout.axes)]
        driver = next((spec for spec in steady if spec.role in ("tokens", "features")), None)
        if driver is None:
            given.append((("drive",), [helper.make_tensor_value_info("drive", TensorProto.FLOAT, ["STEPS"])]))
            self.line = "drive"
        else:
            self.line = self._line(driver)
        self.mean = self.op("ReduceMean", self.line, keepdims=0)
        for spec in self.inputs:
            if spec is not driver:
                told = self.op("ReduceMean", self.op("Cast", spec.name, to=TensorProto.FLOAT), keepdims=0)
                self.terms.append(self.op("Mul", told, self.number(0.001 * (1 + _rate(spec.role)))))
        past: dict[str, list[Row]] = {}
        present: dict[str, list[Row]] = {}
        for cache in self.convention.caches:
            past[cache.name], present[cache.name] = self._cache(cache)
        self.total = self.terms[0]
        for term in self.terms[1:]:
            self.total = self.op("Add", self.total, term)
        handed = [((spec.name,), [self._output(spec)]) for spec in self.outputs]
        if not any(spec.role == "output" for spec in self.outputs):
            self.op("Add", self.line, self.total, name="told")
            handed.append((("told",), [helper.make_tensor_value_info("told", TensorProto.FLOAT, ["STEPS"])]))
        convention = self.convention
        graph = helper.make_graph(
            self.nodes, convention.name,
            _sorted(given, past, convention.cache_order, convention.input_order),
            _sorted(handed, present, convention.cache_order, convention.output_order),
            list(self.constants.values()),
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    # The language of the graph.

    def op(self, kind: str, *inputs: Value, name: str = "", **attributes: object) -> Value:
        output = name or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, array: np.ndarray) -> Value:
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def number(self, value: float) -> Value:
        return self.constant(np.array(value, np.float32))

    def index(self, *values: int) -> Value:
        return self.constant(np.array(values, np.int64))

    def along(self, value: Value, rank: int, place: int) -> Value:
        """Lays a vector along one dim."""
        return self.op("Reshape", value, self.index(*(-1 if index == place else 1 for index in range(rank))))

    # Other ports.

    def _info(self, name: str, dtype: str, spec: PortSpec) -> onnx.ValueInfoProto:
        sizes = {axis: self._breadth(axis) for axis in spec.layout.axes}
        return helper.make_tensor_value_info(name, ELEMENTS[dtype], dims_of(spec.layout.items, sizes, spec.dims))

    def _breadth(self, axis: str) -> Dim:
        if axis in STEPS:
            return "STEPS"
        return axis.upper() if axis == "key" else self.sizes.get(axis, BREADTH)

    def _line(self, driver: PortSpec) -> Value:
        """Returns one number for each step."""
        step = next(axis for axis in STEPS if axis in driver.layout.axes)
        place, _ = driver.layout.place(step)
        others = [index for index in range(driver.layout.rank) if index != place]
        value = self.op("Cast", driver.name, to=TensorProto.FLOAT)
        return self.op("ReduceMean", value, axes=others, keepdims=0) if others else value

    def _output(self, spec: PortSpec) -> onnx.ValueInfoProto:
        dtype = "int64" if spec.role == "lengths" else "float32"
        layout = spec.layout
        shape = [
            math.prod(self.sizes.get(axis, BREADTH) for axis in item if axis not in STEPS) for item in layout.items
        ]
        step = next((axis for axis in STEPS if axis in layout.axes), None)
        if dtype == "int64":
            ones = self.constant(np.ones(shape, np.int64))
            self.op("Mul", self.op("Size", self.line), ones, name=spec.name)
        else:
            values = np.sin(np.arange(math.prod(shape), dtype=np.float32) + _rate(spec.role)).reshape(shape)
            laid = self.along(self.line, layout.rank, layout.place(step)[0]) if step else self.mean
            self.op("Add", self.op("Add", laid, self.total), self.constant(values), name=spec.name)
        return self._info(spec.name, dtype, spec)

    # Caches.

    def _cache(self, cache: CacheSpec) -> tuple[list[Row], list[Row]]:
        past: list[Row] = []
        present: list[Row] = []
        layers = self.layers.get(cache.name, self.labels["layer"])
        for index, spec in enumerate(cache.past):
            new = cache.present[index] if cache.present else None
            assert new is None or new.layout == spec.layout
            for name, labels in names_of(spec, {**self.labels, "layer": layers}):
                output = new.template.format(labels) if new else ""
                past.append((labels, self._port(cache, spec, name, "time")))
                self._read(cache, spec, name, labels)
                if new is not None:
                    self._update(cache, spec.layout, labels, name, output)
                    present.append((labels, self._port(cache, new, output, "TOTAL")))
        return past, present

    def _port(self, cache: CacheSpec, spec: TensorSpec, name: str, time: str) -> onnx.ValueInfoProto:
        sizes: dict[str, Dim] = dict(self.sizes)
        if cache.update == "append":
            sizes["time"] = time
        element = TensorProto.INT64 if _counts(cache) else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, element, dims_of(spec.layout.items, sizes, spec.dims))

    def _read(self, cache: CacheSpec, spec: TensorSpec, name: Value, labels: Mapping[str, int]) -> None:
        """Adds all places of a tensor to the read-out; the older, the less."""
        layout = spec.layout
        value = self.op("Cast", name, to=TensorProto.FLOAT) if _counts(cache) else name
        value = self.op("Mul", value, self._weight(cache, layout, labels))
        if ("time",) in layout.items:
            place, _ = layout.place("time")
            length = self.op("Gather", self.op("Shape", name), self.constant(np.array(place, np.int64)))
            ages = self.op("Range", length, self.constant(np.array(0, np.int64)), self.constant(np.array(-1, np.int64)))
            ages = self.op("Reciprocal", self.op("Cast", ages, to=TensorProto.FLOAT))
            value = self.op("Mul", value, self.along(ages, layout.rank, place))
        self.terms.append(self.op("ReduceSum", value, keepdims=0))

    def _weight(self, cache: CacheSpec, layout: Layout, labels: Mapping[str, int]) -> Value:
        """Returns a weight for each place, the same at all times."""
        shape = [1 if axis == "time" else self.sizes[axis] for axis in layout.axes]
        phase = np.full(shape, 1 + _rate(cache.name))
        for axis, label in labels.items():
            phase += label * _rate(axis)
        for axis, indices in zip(layout.axes, np.indices(shape), strict=True):
            phase += indices * _rate(axis)
        dims = [math.prod(1 if axis == "time" else self.sizes[axis] for axis in item) for item in layout.items]
        return self.constant(np.sin(phase).astype(np.float32).reshape(dims))

    def _update(self, cache: CacheSpec, layout: Layout, labels: Mapping[str, int], past: Value, present: Value) -> None:
        if cache.update == "fixed":
            self.op("Identity", past, name=present)
        elif _counts(cache):
            self.op("Add", past, self.op("Size", self.line), name=present)
        elif ("time",) not in layout.items:
            news = self.op("Mul", self._weight(cache, layout, labels), self.mean)
            self.op("Add", self.op("Mul", past, self.number(0.5)), news, name=present)
        else:
            self._move(cache, layout, labels, past, present)

    def _move(self, cache: CacheSpec, layout: Layout, labels: Mapping[str, int], past: Value, present: Value) -> None:
        """Appends what a tick brings, drops what is too old, or writes over the place that the offset names."""
        place, _ = layout.place("time")
        weight = self._weight(cache, layout, labels)
        offset = next((spec for spec in self.inputs if spec.role in ("offset", "positions")), None)
        if cache.update == "in-place" and offset is not None:
            slot = self.op("ReduceMax", offset.name, keepdims=0)
            slot = self.op("Mod", slot, self.constant(np.array(self.sizes["time"], np.int64)))
            hit = self.op("Equal", self.index(*range(self.sizes["time"])), slot)
            news = self.op("Mul", weight, self.mean)
            self.op("Where", self.along(hit, layout.rank, place), news, past, name=present)
            return
        news = self.op("Mul", weight, self.along(self.line, layout.rank, place))
        if cache.update == "append":
            self.op("Concat", past, news, axis=place, name=present)
            return
        grown = self.op("Concat", past, news, axis=place)
        ends = self.index(-self.sizes["time"]), self.index(2**31)
        self.op("Slice", grown, *ends, self.index(place), name=present)


def dtype_of(spec: PortSpec) -> str:
    """Returns the element type of a port that is no cache."""
    return spec.dtype or ("int64" if spec.role in (*COUNTING, "mask") else "float32")


def _counts(cache: CacheSpec) -> bool:
    """Whether a cache is a position or a length of each stream."""
    return cache.axes <= {"batch"}


def _rate(word: str) -> float:
    """Returns how fast weights change along an axis; another for each word."""
    return 0.4 + zlib.crc32(word.encode()) % 1009 / 613


def _sorted(
    others: Iterable[tuple[tuple[str, ...], list[onnx.ValueInfoProto]]], rows: Mapping[str, list[Row]],
    keys: Sequence[str], order: Sequence[str],
) -> list[onnx.ValueInfoProto]:  # fmt: skip
    """Returns ports in the order of a convention."""
    units = [*others, *ordered_units({name: own for name, own in rows.items() if own}, keys)]
    ranks = {name: index for index, name in enumerate(order)}
    units.sort(key=lambda unit: min(ranks.get(name, len(ranks)) for name in unit[0]))
    return [info for _, infos in units for info in infos]
