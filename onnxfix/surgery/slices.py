"""Slices of movement: the identities by which a slice goes inwards, and what is sliced away is not moved.

The numbers are those of `surgery.algebra`, whose `Views` calls these functions and is called back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfix.surgery.pattern import dim_of_atom
from onnxfix.surgery.size import Size, product
from onnxfix.surgery.view import END, Bound, Join, Move, Slice, View, is_plain

if TYPE_CHECKING:
    from onnxfix.surgery.algebra import Views


def static_slice(views: Views, of: View, axis: int, start: int, stop: int, step: int) -> View:
    """Applies identities 1 to 4; bounds are resolved, and `stop` is one past the last element taken."""
    if isinstance(of, Slice):
        if of.axis == axis and of.is_static and isinstance(of.start, int):
            first = of.start + start * of.step
            last = of.start + (stop - 1) * of.step + 1 if stop > start else first
            return views.slice(of.of, axis, first, last, of.step * step)
        if of.axis != axis:
            inner = views.slice(of.of, axis, start, stop, step)
            is_no_shorter = isinstance(inner, Slice) and inner.of is of.of
            if not is_no_shorter or not of.is_static or of.axis > axis:
                return views.slice(inner, of.axis, of.start, of.stop, of.step)
    if isinstance(of, Join):
        found = _slice_join(views, of, axis, start, stop, step)
        if found is not None:
            return found
    if isinstance(of, Move):
        found = _slice_move(views, of, axis, start, stop, step)
        if found is not None:
            return found
    length = len(range(start, stop, step))
    return views.cut(of, axis, start, stop, step, length, True)


def loose_slice(views: Views, of: View, axis: int, start: Bound, stop: Bound, step: int) -> View:
    """Applies identities 1 and 4, as far as they hold where a bound or the axis's size is known at run time only."""
    if isinstance(of, Slice) and of.axis > axis and not of.is_static:
        return views.slice(views.slice(of.of, axis, start, stop, step), of.axis, of.start, of.stop, of.step)
    if isinstance(of, Move) and len(of.groups[axis]) == 1:
        place = dim_of_atom(of.atoms, of.groups[axis][0])
        if len(of.atoms[place]) == 1:
            inner = views.slice(of.of, place, start, stop, step)
            return _resized(views, of, inner, place, 0, inner.dims[place])
    token = f"slice({of.dims[axis]},{start},{stop},{step})"
    return views.cut(of, axis, start, stop, step, token, False)


def _slice_join(views: Views, of: Join, axis: int, start: int, stop: int, step: int) -> View | None:
    if axis != of.axis:
        parts = [views.slice(part, axis, start, stop, step) for part in of.parts]
        plain = sum(is_plain(Slice, new, old) for new, old in zip(parts, of.parts, strict=True))
        return views.join(parts, of.axis) if plain <= 1 else None
    pieces = []
    begin = 0
    for part in of.parts:
        size = part.dims[axis]
        if not isinstance(size, int):
            return None
        low, high = max(start, begin), min(stop, begin + size)
        if low < high:
            low += (start - low) % step
            if low < high:
                pieces.append(views.slice(part, axis, low - begin, high - begin, step))
        begin += size
    return views.join(pieces, axis) if pieces else None


def _slice_move(views: Views, of: Move, axis: int, start: int, stop: int, step: int) -> View | None:
    """Identity 4: finds the axis of the inner tensor that the slice falls on."""
    group = of.groups[axis]
    if not group or stop <= start:
        return None
    flat = [size for sizes in of.atoms for size in sizes]
    slow, fast = flat[group[0]], product(flat[index] for index in group[1:])
    if not isinstance(slow, int) or not isinstance(fast, int):
        return None
    if len(group) > 1 and start // fast == (stop - 1) // fast and stop - start < fast:
        whole = start // fast * fast
        one = views.slice(of, axis, whole, whole + fast)
        if isinstance(one, Slice) and one.of is of:
            return None
        return views.slice(one, axis, start - whole, stop - whole, step)
    if len(group) == 2 and step == fast and start < fast and stop > (slow - 1) * fast:
        return _slice_atom(views, of, group[1], start, start + 1, 1)
    if (fast > 1 and step != 1) or start % fast or stop % fast:
        return None
    return _slice_atom(views, of, group[0], start // fast, stop // fast, step)


def _slice_atom(views: Views, of: Move, atom: int, start: int, stop: int, step: int) -> View | None:
    """Slices one atom of a rearrangement, which must be the slow or the fast end of an inner dim."""
    place = dim_of_atom(of.atoms, atom)
    sizes = of.atoms[place]
    position = atom - sum(len(one) for one in of.atoms[:place])
    fast = product(sizes[position + 1 :])
    length = len(range(start, stop, step))
    if position == 0 and isinstance(fast, int) and (fast == 1 or step == 1):
        inner = views.slice(of.of, place, start * fast, (stop - 1) * fast + fast, step)
    elif position == len(sizes) - 1 and length == 1 and all(isinstance(one, int) for one in sizes):
        assert isinstance(sizes[-1], int)
        inner = views.slice(of.of, place, start, END, sizes[-1])
    else:
        return None
    return _resized(views, of, inner, place, position, length)


def _resized(views: Views, of: Move, inner: View, place: int, position: int, size: Size) -> View:
    """Returns the rearrangement `of` of a sliced tensor, in which one atom has another size."""
    sizes = of.atoms[place]
    atoms = (*of.atoms[:place], (*sizes[:position], size, *sizes[position + 1 :]), *of.atoms[place + 1 :])
    return views.move(inner, atoms, of.groups)
