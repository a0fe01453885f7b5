"""Many parts of a state disturbed at once, each in a stream of its own: a batch is as good as that many runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.errors import DriveError
from onnxfix.verify.drive import Drive
from onnxfix.verify.dtypes import decode
from onnxfix.verify.parts import Part, disturbed
from onnxfix.verify.roles import known_outputs
from onnxfix.verify.session import Session
from onnxfix.verify.sizes import axis_sizes
from onnxfix.verify.stream import Stream, Tick

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

MOST = 16
"""Parts at once: a batch much larger takes longer than it saves."""
_FEWEST = 4
LIMIT = 32 << 20
"""Bytes of all streams' states: with caches that are larger, one stream after the other takes less time and room."""


@dataclass(frozen=True)
class _Batch:
    """A model that runs many streams, and the tick at which they are disturbed.

    Attributes:
        session, drive: The model.
        tick: The tick, undisturbed.
        places: Which dim of each output counts streams.
        dtypes: The element types of these outputs.
        size: How many streams there are; the first is left alone.
    """

    session: Session
    drive: Drive
    tick: Tick
    places: Mapping[str, int]
    dtypes: Mapping[str, str]
    size: int

    def changed(self, parts: Sequence[Part], state: Mapping[str, Array]) -> set[int]:
        """Returns the streams whose outputs, other than what these parts feed, are not what they were."""
        own = {self.drive.plan.binding.pairs.get(part.port) for part in parts}
        start = self.tick
        now = Stream(self.session, self.drive, state, tick=start.number, put_out=start.put_out).step()
        rows: set[int] = set()
        for name, place in self.places.items():
            before, after = start.fetched[name], now.fetched[name]
            if name in own or before.shape != after.shape:
                continue
            rows |= set(np.flatnonzero(_apart(before, after, self.dtypes[name], place)).tolist())
        return rows


def _apart(before: Array, after: Array, dtype: str, place: int) -> Array:
    """Returns for each stream whether any value differs; NaN is like NaN."""
    one, two = decode(before, dtype), decode(after, dtype)
    odd = (one != two) & ~((one != one) & (two != two))
    result: Array = np.moveaxis(odd, place, 0).reshape(odd.shape[place], -1).any(axis=1)
    return result


def shown_in_rows(session: Session, drive: Drive, parts: Sequence[Part]) -> set[str]:
    """Returns the names of parts that show at once when each is disturbed in a stream of its own.

    Nothing is said of the others: of those of caches without a batch, of all where the batch is fixed or streams are
    not independent of each other, and of those that take longer to show.

    Args:
        session: The model.
        drive: How it is driven.
        parts: What to try.
    """
    fit = [part for part in parts if "batch" in part.tensor.spec.layout.axes]
    if len(fit) < _FEWEST or drive.recording.names:
        return set()
    try:
        batch = _batch(session, drive, min(MOST, len(fit)) + 1)
        if batch is None or not _are_independent(batch, fit):
            return set()
        return {name for group in _groups(fit, batch.size - 1) for name in _shown(batch, group)}
    except DriveError:
        return set()


def _batch(session: Session, drive: Drive, size: int) -> _Batch | None:
    """Returns the model with as many streams, after its first tick, or fewer where its state is large.

    None where it takes no other batch than it has, or its state is too large for several streams.
    """
    binding = drive.plan.binding
    if "batch" not in drive.given and not binding.symbols_of("batch") & drive.given.keys():
        alone = replace(drive, given={**drive.given, "batch": 1}, guesses={}, fed={})
        size = min(size, LIMIT // max(1, sum(array.nbytes for array in alone.start().values())))
        if size <= _FEWEST:
            return None
        drive = replace(drive, given={**drive.given, "batch": size}, varies=False, guesses={}, fed={})
    stream = Stream(session, drive, drive.start())
    stream.step()
    tick = stream.step()
    sizes = {
        axis_sizes(tensor, tick.state[tensor.port.name]).get("batch")
        for cache in binding.caches for tensor in cache.past if "batch" in cache.spec.axes
    }  # fmt: skip
    found = sizes.pop() if len(sizes) == 1 else None
    places = {name: place for name, place in _places(drive) if tick.fetched[name].shape[place : place + 1] == (found,)}
    dtypes = {port.name: port.dtype for port in session.outputs}
    return _Batch(session, drive, tick, places, dtypes, found) if found is not None and found > 2 and places else None


def _places(drive: Drive) -> Iterator[tuple[str, int]]:
    """Yields the outputs that are no cache, with the dim that counts streams."""
    binding = drive.plan.binding
    symbols, known = binding.symbols_of("batch"), known_outputs(binding)
    states = set(binding.pairs.values())
    for port in binding.signature.outputs:
        if port.name in states:
            continue
        if port.name in known and ("batch",) in known[port.name].spec.layout.items:
            yield port.name, known[port.name].spec.layout.items.index(("batch",))
        elif found := [index for index, dim in enumerate(port.dims or ()) if dim in symbols]:
            yield port.name, found[0]


def _are_independent(batch: _Batch, parts: Sequence[Part]) -> bool:
    """Whether one stream, with all its state disturbed, changes none but itself."""
    once = [_in_row(part, 1) for part in parts]
    states = disturbed(once, batch.tick.state, batch.drive.seed)
    return all(batch.changed([], state) <= {1} for state in states)


def _shown(batch: _Batch, parts: Sequence[Part]) -> set[str]:
    """Returns those of a few parts, one a stream, that show; none if the stream that is left alone changes."""
    once = [_in_row(part, row) for row, part in enumerate(parts, start=1)]
    changed: set[int] = set()
    for state in disturbed(once, batch.tick.state, batch.drive.seed):
        changed |= batch.changed(parts, state)
    return {part.name for row, part in enumerate(parts, start=1) if row in changed} if 0 not in changed else set()


def _in_row(part: Part, row: int) -> Part:
    return replace(part, labels={**part.labels, "batch": row})


def _groups(parts: Sequence[Part], size: int) -> Iterator[Sequence[Part]]:
    for start in range(0, len(parts), size):
        yield parts[start : start + size]
