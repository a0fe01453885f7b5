"""The parts of a state that a conversion could misplace, each of which can be disturbed on its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.convention.binding import BoundCache, BoundTensor
from onnxfix.convention.layout import Layout
from onnxfix.convention.template import LABELS, label_text
from onnxfix.verify.dtypes import decode, encode
from onnxfix.verify.feed import noise
from onnxfix.verify.sizes import axis_sizes

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_DISTURBANCE = 7  # sets this noise apart from that of the feeds
_PART_AXES = ("layer", *LABELS)


@dataclass(frozen=True)
class Part:
    """The smallest piece of a cache that a conversion could misplace: one layer's keys, one layer's values.

    Attributes:
        name: What people call it: `attention, layer 3, key`.
        cache: The cache.
        tensor: The input that holds it.
        labels: Where it lies inside that input, by axis.
    """

    name: str
    cache: BoundCache
    tensor: BoundTensor
    labels: Mapping[str, int]

    @property
    def port(self) -> str:
        """The name of the input that holds it."""
        return self.tensor.port.name


def parts_of(cache: BoundCache, state: Mapping[str, Array]) -> list[Part]:
    """Returns the parts of a cache, layer by layer."""
    parts = []
    for tensor in cache.past:
        sizes = axis_sizes(tensor, state[tensor.port.name])
        axes = [axis for axis in _PART_AXES if axis in sizes]
        for labels in itertools.product(*(range(sizes[axis]) for axis in axes)):
            inside = dict(zip(axes, labels, strict=True))
            everywhere = {**tensor.labels, **inside}
            words = [f"{axis} {everywhere[axis]}" if axis == "layer" else label_text(axis, everywhere[axis])
                     for axis in _PART_AXES if axis in everywhere]  # fmt: skip
            words += [f"{axis} {label}" for axis, label in tensor.labels.items() if axis not in _PART_AXES]
            parts.append(Part(", ".join([cache.spec.name, *words]), cache, tensor, inside))
    return sorted(parts, key=_order)


def _order(part: Part) -> tuple[int, ...]:
    everywhere = {**part.tensor.labels, **part.labels}
    return tuple(everywhere.get(axis, 0) for axis in _PART_AXES)


def disturbed(parts: Sequence[Part], state: Mapping[str, Array], seed: int) -> Iterator[dict[str, Array]]:
    """Yields states in which these parts are other than they were, and all else is the same."""
    # Where the count of frames is at its limit, one more may change nothing, one less does.
    for attempt in range(2 if any("int" in part.tensor.port.dtype for part in parts) else 1):
        changed = dict(state)
        for part in parts:
            array = changed[part.port].copy()
            place = _mask_of(part, array)
            array[place] = _other(array[place], part.tensor.port.dtype, seed, attempt)
            changed[part.port] = array
        yield changed


def _other(values: Array, dtype: str, seed: int, attempt: int) -> Array:
    if dtype == "bool":
        return ~values
    if "int" in dtype:
        return np.where(values > 0, values - 1, values + 1) if attempt == 0 else values + 1
    if values.size > 1 and (values == values.flat[0]).all() and decode(values, dtype).flat[0] in (0, 1):
        # A mask, or zeros at first: noise may have no meaning there.
        return encode(decode(values, dtype) == 0, dtype)
    return noise(values.shape, dtype, np.random.default_rng([seed, _DISTURBANCE]))


def _mask_of(part: Part, array: Array) -> Array:
    """Returns where in its tensor a part lies, as booleans of the tensor's shape."""
    layout = part.tensor.spec.layout
    sizes = axis_sizes(part.tensor, array)
    flat = Layout(tuple((axis,) for axis in layout.axes))
    mask = np.ones([sizes[axis] for axis in flat.axes], bool)
    for axis, label in part.labels.items():
        index = flat.axes.index(axis)
        chosen = np.arange(sizes[axis]) == label
        mask = mask & chosen.reshape([-1 if place == index else 1 for place in range(len(flat.axes))])
    return mask.reshape(array.shape)
