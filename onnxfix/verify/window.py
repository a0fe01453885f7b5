"""How long caches remember: so many ticks it takes until an error in one of them must have shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxfix.convention.binding import Binding
from onnxfix.verify.options import LEAST_TICKS, MOST_TICKS
from onnxfix.verify.sizes import axis_sizes

if TYPE_CHECKING:
    from onnxfix.verify.stream import Tick


def ticks_to_forget(binding: Binding, ticks: Sequence[Tick]) -> int:
    """Returns how many ticks it takes until the caches hold nothing of what they were filled with first.

    Twice as long as the model's output tells, as a cache may move at half its rate; and as long as all windows of
    different lengths together, as what one forgets may live on in the next. A cache that grows forgets nothing.

    Args:
        binding: The model's convention.
        ticks: The first ticks of a stream.
    """
    lengths = _windows(binding, ticks)
    step = max(1, ticks[1].put_out - ticks[0].put_out) if len(ticks) > 1 else 1
    needed = max(2 * -(-max(lengths, default=0) // step), -(-sum(lengths) // step)) + 2
    return max(LEAST_TICKS, min(MOST_TICKS, needed))


def _windows(binding: Binding, ticks: Sequence[Tick]) -> set[int]:
    """Returns the lengths of the caches that stay as long as they are."""
    last = ticks[-1]
    lengths = set()
    for cache in binding.caches:
        for past, present in zip(cache.past, cache.present, strict=False):
            before = axis_sizes(past, last.state[past.port.name]).get("time")
            after = axis_sizes(present, last.fetched[present.port.name]).get("time")
            if before is not None and before == after:
                lengths.add(before)
    return lengths
