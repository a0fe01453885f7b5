"""Ways to spoil a converted model, each as a converter could; each says whether there was anything to spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfix.convention.binding import Binding, BoundCache, BoundTensor
from onnxfix.convention.detect import detect
from onnxfix.model.model import Model

END = 2**31 - 1


class Victim:
    """A model, and what its ports are for.

    Attributes:
        proto: The model; changed in place.
        grows: Whether its caches do.
        binding: The convention that it speaks.
    """

    def __init__(self, proto: onnx.ModelProto, *, grows: bool) -> None:
        self.proto = proto
        self.grows = grows
        self.binding: Binding = detect(Model.from_proto(proto).signature()).choose().binding
        self._count = 0

    @property
    def cache(self) -> BoundCache:
        """The cache that matters most: keys and values, or the state of an LSTM."""
        return next(one for one in self.binding.caches if {"kv", "hc"} & one.spec.axes)

    def constant(self, values: list[int]) -> str:
        """Adds a vector of integers."""
        self._count += 1
        name = f"sabotage_{self._count}"
        self.proto.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def add(self, op: str, *inputs: str, output: str = "", at: int | None = None, **attributes: object) -> str:
        """Adds a node, behind all others if `at` does not say where."""
        self._count += 1
        output = output or f"sabotage_{self._count}"
        node = helper.make_node(op, inputs, [output], **attributes)
        self.proto.graph.node.insert(len(self.proto.graph.node) if at is None else at, node)
        return output

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives values other names, but leaves the ports where they are."""
        for node in self.proto.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]

    def behind(self, port: str) -> str:
        """Lets the caller compute an output anew; returns what it was."""
        self.rename({port: f"{port}_was"})
        return f"{port}_was"

    def cut(self, value: str, start: int, end: int, dim: int) -> str:
        """Adds a slice."""
        return self.add("Slice", value, *(self.constant([one]) for one in (start, end, dim)))

    def roll(self, port: str, dim: int, by: int = 1) -> None:
        """Rotates an output along a dim."""
        was = self.behind(port)
        self.add("Concat", self.cut(was, by, END, dim), self.cut(was, 0, by, dim), output=port, axis=dim)


def exchange(victim: Victim, axis: str, tensors: Iterable[BoundTensor]) -> bool:
    """Rotates the labels of an axis among the outputs: they get each other's names, or are rotated inside."""
    is_done = False
    for tensor in tensors:
        if axis in tensor.labels:
            continue
        item, slot = tensor.spec.layout.place(axis)
        size = tensor.port.dims[item]
        inner = tensor.spec.layout.items[item][slot:]
        count = tensor.sizes[axis]
        assert isinstance(size, int)
        assert isinstance(count, int)
        victim.roll(tensor.port.name, item, 1 if len(inner) == 1 else size // count)
        is_done = count > 1
    named = [tensor for tensor in tensors if axis in tensor.labels]
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for tensor in named:
        rest = tuple(entry for entry in sorted(tensor.labels.items()) if entry[0] != axis)
        groups.setdefault(rest, []).append(tensor.port.name)
    turned = {old: new for names in groups.values() for old, new in zip(names, names[1:] + names[:1], strict=True)}
    victim.rename(turned)
    return is_done or any(old != new for old, new in turned.items())


def axes_swapped(victim: Victim) -> bool:
    """Two axes of a cache change places, and the shape stays what it was, as if they were of one size."""
    port = victim.cache.present[0].port
    rank = len(port.dims or ())
    was = victim.behind(port.name)
    order = [*range(rank - 2), rank - 1, rank - 2]
    victim.add("Reshape", victim.add("Transpose", was, perm=order), victim.add("Shape", was), output=port.name)
    return True


def layers_rotated(victim: Victim) -> bool:
    """Each layer's cache goes to the next layer."""
    return "layer" in victim.cache.spec.axes and exchange(victim, "layer", victim.cache.present)


def keys_for_values(victim: Victim) -> bool:
    """Keys are put out as values, and values as keys; hidden states as cell states."""
    return exchange(victim, "kv" if "kv" in victim.cache.spec.axes else "hc", victim.cache.present)


def one_tick_old(victim: Victim) -> bool:
    """One layer puts out the cache that it was given or, where it grows, the frame before in place of the newest."""
    past, present = victim.cache.past[-1], victim.cache.present[-1]
    was = victim.behind(present.port.name)
    if not victim.grows:
        victim.add("Identity", past.port.name, output=present.port.name)
        return True
    dim = present.spec.layout.place("time")[0]
    victim.add("Concat", victim.cut(was, 0, -1, dim), victim.cut(was, -2, -1, dim), output=present.port.name, axis=dim)
    return True


def mask_ignored(victim: Victim) -> bool:
    """Everything may be seen, whatever the mask says."""
    masks = [port for port in victim.binding.signature.inputs if "mask" in port.name]
    for port in masks:
        everything = f"{port.name}_ignored"
        victim.rename({port.name: everything})
        equal = victim.add("Equal", port.name, port.name, at=0)
        victim.add("Cast", equal, output=everything, at=1, to=helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)))
    return bool(masks)


def one_ulp(victim: Victim) -> bool:
    """One weight is off by one unit in its last place."""
    weights = {one.name: one for one in victim.proto.graph.initializer if one.data_type == TensorProto.FLOAT}
    scales, matrices = (
        [weights[name] for node in victim.proto.graph.node if node.op_type in kinds for name in node.input
         if name in weights and weights[name].dims]
        for kinds in (("Mul", "LayerNormalization"), ("MatMul", "Gemm", "Conv", "LSTM"))
    )  # fmt: skip
    # The nearer to the outputs, the less is lost by rounding on the way; a norm's scale goes into every value.
    tensor = (scales or matrices)[-1]
    array = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.argmax(np.abs(array)), array.shape)
    array[place] = np.nextafter(array[place], np.float32(np.inf))
    tensor.raw_data = array.tobytes()
    return True


def output_dropped(victim: Victim) -> bool:
    """The last output is not there."""
    del victim.proto.graph.output[-1]
    return True


def dtype_changed(victim: Victim) -> bool:
    """The last output has twice the bits."""
    port = victim.proto.graph.output[-1]
    was = victim.behind(port.name)
    victim.add("Cast", was, output=port.name, to=TensorProto.DOUBLE)
    port.type.tensor_type.elem_type = TensorProto.DOUBLE
    return True


def time_shifted(victim: Victim) -> bool:
    """The frames of one layer's cache are rotated by one."""
    present = victim.cache.present[0]
    if "time" not in present.spec.layout.axes:
        return False
    victim.roll(present.port.name, present.spec.layout.place("time")[0])
    return True


VALUES: tuple[Callable[[Victim], bool], ...] = (
    axes_swapped, layers_rotated, keys_for_values, one_tick_old, mask_ignored, one_ulp, time_shifted,
)  # fmt: skip
"""What changes values."""
PORTS: Mapping[Callable[[Victim], bool], str] = {output_dropped: "is missing", dtype_changed: "stands where"}
"""What changes the ports, and what is said of it."""
