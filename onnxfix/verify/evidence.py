"""What a comparison proves: which parts of the state have a say in what the model puts out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.convention.binding import BoundCache, BoundTensor
from onnxfix.convention.layout import Layout
from onnxfix.convention.template import LABELS, label_text
from onnxfix.errors import DriveError
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import count_nans, decode, encode
from onnxfix.verify.feed import noise
from onnxfix.verify.session import Session
from onnxfix.verify.sizes import axis_sizes
from onnxfix.verify.stream import Stream, Tick

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

LONGEST = 64
"""Ticks after which a disturbance that has not shown is given up."""
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


@dataclass
class Witness:
    """The undisturbed source: what it put out at each tick, as digests, and states to start from.

    Attributes:
        session, drive: The source.
        outputs: Digests of the outputs that count, by tick and name.
        starts: The first two ticks.
        stream: The source after the last of `outputs`, to go on from.
    """

    session: Session
    drive: Drive
    stream: Stream
    outputs: list[dict[str, bytes]]
    starts: list[Tick]

    def see(self, tick: Tick) -> None:
        """Notes a tick."""
        self.outputs.append(self.digest(tick))
        if len(self.starts) < 2:
            self.starts.append(tick)

    def digest(self, tick: Tick) -> dict[str, bytes]:
        """Returns a fingerprint of each output that counts: those that are no cache, or all if there is no other."""
        states = set(self.drive.plan.binding.pairs.values())
        dtypes = {port.name: port.dtype for port in self.session.outputs}
        names = [name for name in tick.fetched if name not in states] or list(tick.fetched)
        return {name: _digest(tick.fetched[name], dtypes[name]) for name in names}

    def at(self, number: int) -> dict[str, bytes]:
        """Returns the fingerprints of a tick; runs the source until there."""
        while len(self.outputs) <= number:
            self.see(self.stream.step())
        return self.outputs[number]


def _digest(array: Array, dtype: str) -> bytes:
    """Returns a fingerprint in which all NaNs are alike: what differs in the bits of a NaN alone has no say."""
    if count_nans(array, dtype):
        array = np.where(np.isnan(decode(array, dtype)), array.dtype.type(0), array)
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(head + np.asarray(array, order="C").tobytes(), digest_size=16).digest()


def observe(witness: Witness, ticks: int, done: Callable[[], None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Disturbs each part of each cache on its own, and returns the names of those that show in an output and the rest.

    Args:
        witness: The source, undisturbed.
        ticks: How many ticks were compared; a long cache is followed longer.
        done: Called after each part.
    """
    shown: list[str] = []
    hidden: list[str] = []
    for cache in witness.drive.plan.binding.caches:
        parts = parts_of(cache, witness.starts[0].state)
        # Where the whole cache has no say, its parts need not be tried.
        is_dead = len(parts) > 1 and not _shows(witness, parts, ticks)
        for part in parts:
            (shown if not is_dead and _shows(witness, [part], ticks) else hidden).append(part.name)
            done()
    return tuple(shown), tuple(hidden)


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
    return sorted(parts, key=lambda part: _order(part))


def _order(part: Part) -> tuple[int, ...]:
    everywhere = {**part.tensor.labels, **part.labels}
    return tuple(everywhere.get(axis, 0) for axis in _PART_AXES)


def _shows(witness: Witness, parts: Sequence[Part], ticks: int) -> bool:
    """Whether an output changes when these parts are other than they were."""
    names = {part.tensor.port.name for part in parts}
    start = next((tick for tick in witness.starts if all(tick.state[name].size for name in names)), None)
    if start is None:
        return False
    horizon = max(ticks, min(LONGEST, _window(witness)))
    return any(_changes(witness, state, start, horizon, names) for state in _disturbed(parts, start, witness.drive))


def _window(witness: Witness) -> int:
    """Returns the tick by which the longest cache has forgotten all that it held at first.

    Twice as late as the model's output tells: a cache may move at half its rate.
    """
    first, last = witness.starts[0], witness.starts[-1]
    caches = witness.drive.plan.binding.caches
    times = [axis_sizes(tensor, last.state[tensor.port.name]).get("time", 0) for one in caches for tensor in one.past]
    return last.number + 1 + 2 * -(-max(times, default=0) // max(1, last.put_out - first.put_out))


def _changes(witness: Witness, state: Mapping[str, Array], start: Tick, horizon: int, disturbed: set[str]) -> bool:
    own = {witness.drive.plan.binding.pairs.get(name) for name in disturbed}
    stream = Stream(witness.session, witness.drive, state, tick=start.number, put_out=start.put_out)
    for number in range(start.number, horizon):
        try:
            before = witness.at(number)
        except DriveError:
            return False  # The model takes no stream as long as this.
        try:
            now = witness.digest(stream.step())
        except DriveError:
            return True  # A value that the model rejects is a value that it reads.
        if any(now[name] != before[name] for name in now if name not in own):
            return True
    return False


def _disturbed(parts: Sequence[Part], start: Tick, drive: Drive) -> Iterator[dict[str, Array]]:
    """Yields states in which these parts are other than they were, and all else is the same."""
    # Where the count of frames is at its limit, one more may change nothing, one less does.
    for attempt in range(2 if "int" in parts[0].tensor.port.dtype else 1):
        state = dict(start.state)
        for part in parts:
            name = part.tensor.port.name
            array = state[name].copy()
            place = _mask_of(part, array)
            array[place] = _other(array[place], part, drive.seed, attempt)
            state[name] = array
        yield state


def _other(values: Array, part: Part, seed: int, attempt: int) -> Array:
    dtype = part.tensor.port.dtype
    if dtype == "bool":
        return ~values
    if "int" in dtype:
        return np.where(values > 0, values - 1, values + 1) if attempt == 0 else values + 1
    if (values == values.flat[0]).all():
        # A mask, or what the user wants to begin with: noise has no meaning there.
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
