"""Sizes that nobody told: what is tried, and how they are kept apart from each other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnxfix.convention.binding import Binding
from onnxfix.convention.template import LABELS

STREAMS, TIME, ROOM, PROMPT, FRAMES, SAMPLES, OTHER = 2, 7, 31, 3, 67, 512, 3
"""Of streams at once, of a cache's time, of one that is written in place, of the first tokens, of features by frames,
of raw audio, of anything else."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)
_MOST, _MOST_OF_CACHE = 2**28, 2**31
"""Elements of one array; beyond, a size was mistyped."""


@dataclass(frozen=True)
class Profile:
    """One way to choose the sizes that are left open.

    Attributes:
        batch: How many streams at once, at least.
        time: The length of the first cache, at least; 0 for an empty one.
        prefill: The tokens of the first tick, at least; after that one token a tick.
        distinct: Whether every open size is another number, so that axes which are mixed up show.
    """

    batch: int
    time: int
    prefill: int
    distinct: bool = True

    def __str__(self) -> str:
        streams = "several streams" if self.batch > 1 else "one stream"
        first = "a full first cache" if self.time else "an empty first cache"
        tokens = "several tokens at first" if self.prefill > 1 else "one token at a time"
        return f"{streams}, {first}, {tokens}" + ("" if self.distinct else ", open sizes alike")


_SHAPES = ((STREAMS, PROMPT), (1, PROMPT), (1, 1))
FULL_PROFILES = tuple(Profile(batch, TIME, prefill, way) for way in (True, False) for batch, prefill in _SHAPES)
EMPTY_PROFILES = tuple(Profile(batch, 0, prefill, way) for way in (True, False) for batch, prefill in _SHAPES)
"""In the order in which they are tried."""
PROFILES = (*FULL_PROFILES, *EMPTY_PROFILES)


def distinct_size(least: int, taken: Collection[int]) -> int:
    """Returns the smallest prime from `least` on that is not taken; 0 and 1 stay what they are.

    >>> distinct_size(2, {2, 4, 5})
    3
    """
    if least < 2:
        return least
    return next((prime for prime in _PRIMES if prime >= least and prime not in taken), least)


def told_sizes(binding: Binding) -> frozenset[int]:
    """Returns all sizes that a model's ports and caches have, whatever the user says."""
    ports = (*binding.signature.inputs, *binding.signature.outputs)
    sizes = {dim for port in ports for dim in port.dims or () if isinstance(dim, int)}
    for cache in binding.caches:
        sizes |= {len(labels) for labels in cache.labels.values()}
        sizes |= {len(LABELS[axis]) for axis in cache.spec.axes if axis in LABELS}
        sizes |= {size for tensor in cache.past for size in tensor.sizes.values() if isinstance(size, int)}
    return frozenset(sizes)


def is_too_large(elements: int, *, is_cache: bool) -> bool:
    """Whether no array of that many elements is fed."""
    return elements >= (_MOST_OF_CACHE if is_cache else _MOST)
