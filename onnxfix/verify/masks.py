"""Which keys a model may see: the patterns that runtimes set, never a row in which there is nothing to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxfix.convention.convention import PortSpec

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

_SEEN = 0.8
_ROWS = frozenset({"batch", "query", "key"})


@dataclass(frozen=True)
class Keys:
    """What the caches hold.

    Attributes:
        time: How long they are; the keys of the present chunk follow.
        filled: How much of it, at the end, is more than what the caches were first filled with.
        varied: Whether to hide more than what is not filled.
        written: How much at the front was written, present chunk included, where they are written in place.
    """

    time: int
    filled: int
    varied: bool
    written: int | None = None


def make_mask(spec: PortSpec, shape: tuple[int, ...], keys: Keys, tick: int, rng: np.random.Generator) -> Array:
    """Returns 1 where a key may be seen, or where it may not for a `padding_mask` of booleans, as PyTorch has it.

    What caches do not hold yet is hidden, as WeNet does while its cache fills up (wenet-e2e/wenet:
    runtime/core/decoder/onnx_asr_model.cc). Besides, where caches begin full, all is seen at the first tick, at every
    second a part at the front is hidden, as in a batch of unequal lengths, and at the others keys here and there. The
    present chunk is seen, by each query up to itself; where there is no cache, its first half at least.

    Args:
        spec: The port; of its axes `batch`, `query` and `key` count. Without `key` it is the last.
        shape: The mask's.
        keys: What the caches hold.
        tick: The tick, from 0.
        rng: Random numbers of this tick and port.
    """
    if not shape:
        return np.ones(shape, np.int64)
    places = {axis: spec.layout.place(axis)[0] for axis in sorted(_ROWS & set(spec.layout.axes))}
    axes = {**places, "key": places.get("key", len(shape) - 1)}
    count = shape[axes["key"]]
    rows = shape[axes["batch"]] if axes.get("batch", axes["key"]) != axes["key"] else 1
    queries = shape[axes["query"]] if "query" in axes else 1
    seen = np.stack([_row(count, keys, tick, rng) for _ in range(rows)])[:, None, :].repeat(queries, axis=1)
    if keys.written is None and keys.varied and tick and tick % 2 == 0 and queries == count - keys.time:
        seen[:, :, count - queries :] &= np.tril(np.ones((queries, queries), bool))
    mask = _spread(seen, axes, len(shape))
    hides = spec.dtype in (None, "bool") and "padding_mask" in spec.name
    return np.broadcast_to(mask != hides, shape).astype(np.int64)


def _row(count: int, keys: Keys, tick: int, rng: np.random.Generator) -> Array:
    """Returns which keys one stream may see."""
    if keys.written is not None:
        return np.asarray(np.arange(count) < keys.written)
    seen = np.ones(count, bool)
    past = keys.time if keys.time < count else 0
    if past:
        seen[: past - min(keys.filled, past)] = False
    if not keys.varied or not tick:
        return seen
    if not past:
        hidden = int(rng.integers(0, count // 2 + 1)) if tick % 2 else 0
        seen[count - hidden :] = False
    elif tick % 2:
        seen[: rng.integers(0, past // 2 + 2)] = False
    else:
        seen[:past] &= rng.random(past) < _SEEN
    return seen


def _spread(seen: Array, axes: dict[str, int], rank: int) -> Array:
    """Returns rows, queries and keys in the places that a layout gives them."""
    places = [axes.get("batch"), axes.get("query"), axes["key"]]
    order = sorted((place, index) for index, place in enumerate(places) if place is not None)
    kept = {index for _, index in order}
    squeezed = seen[tuple(slice(None) if index in kept else 0 for index in range(3))]
    moved = np.transpose(squeezed, [sorted(kept).index(index) for _, index in order])
    sizes = dict(zip([place for place, _ in order], moved.shape, strict=True))
    return moved.reshape([sizes.get(place, 1) for place in range(rank)])
