"""Concatenations of movement: the identities by which what all parts have in common is done once, to the whole.

The numbers are those of `surgery.algebra`, whose `Views` calls these functions and is called back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxfix.surgery.pattern import dim_of_atom
from onnxfix.surgery.size import Size, product
from onnxfix.surgery.view import END, Cast, Join, Leaf, Move, Slice, View

if TYPE_CHECKING:
    from onnxfix.surgery.algebra import Views


def merged_neighbours(views: Views, parts: Sequence[View], axis: int) -> list[View]:
    """Returns the parts with slices that lie side by side in one tensor taken as one: identity 7."""
    merged: list[View] = []
    for part in parts:
        last = merged[-1] if merged else None
        if (
            isinstance(part, Slice) and isinstance(last, Slice) and part.axis == last.axis == axis
            and part.of is last.of and part.is_static and last.is_static
            and part.step == last.step == 1 and last.stop == part.start
        ):  # fmt: skip
            merged[-1] = views.slice(part.of, axis, last.start, part.stop)
        else:
            merged.append(part)
    return merged


def shorter_join(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Returns a concatenation in another form that is shorter; None where there is none."""
    for identity in (_hoist_cast, _weave, _hoist_moves, _hoist_window, _swap):
        if (found := identity(views, parts, axis)) is not None:
            return found
    return None


def _hoist_cast(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Identity 11, from right to left: all parts are cast alike from one tensor, so from one element type."""
    casts = [part for part in parts if isinstance(part, Cast)]
    sources = {leaf for cast in casts for leaf in _leaves(cast)}
    if len(casts) < len(parts) or len(sources) > 1 or len({cast.to for cast in casts}) > 1:
        return None
    if any(_has_cast(cast.of) for cast in casts):
        return None
    return views.cast(views.join([cast.of for cast in casts], axis), casts[0].to)


def _hoist_moves(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Identity 6, from right to left: all parts are rearranged alike, and the axis is a whole inner one."""
    first = parts[0]
    if not isinstance(first, Move) or not first.groups[axis]:
        return None
    atom = first.groups[axis][0]
    place = dim_of_atom(first.atoms, atom)
    if len(first.atoms[place]) != 1:
        return None
    inner: list[View] = []
    for part in parts:
        if not isinstance(part, Move) or part.groups != first.groups or len(part.of.dims) != len(first.of.dims):
            return None
        if not _is_alike(part.atoms, first.atoms, place):
            return None
        if _fast_sizes(part, axis) != _fast_sizes(first, axis):
            return None
        inner.append(part.of)
    joined = views.join(inner, place)
    atoms = (*first.atoms[:place], (joined.dims[place],), *first.atoms[place + 1 :])
    return views.move(joined, atoms, first.groups)


def _weave(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Identity 9."""
    first = parts[0]
    if not isinstance(first, Move) or first.groups[axis] or not isinstance(first.of, Slice):
        return None
    cut, count = first.of, len(parts)
    for start, part in enumerate(parts):
        if not isinstance(part, Move) or (part.atoms, part.groups) != (first.atoms, first.groups):
            return None
        one = part.of
        if not isinstance(one, Slice) or not one.is_static or (one.of, one.axis) != (cut.of, cut.axis):
            return None
        if (one.start, one.step, one.dims) != (start, count, cut.dims):
            return None
    if cut.of.dims[cut.axis] != product((count, cut.dims[cut.axis])):
        return None
    fresh = sum(len(row) for row in first.atoms[: cut.axis + 1])
    atoms = (*first.atoms[: cut.axis], (*first.atoms[cut.axis], count), *first.atoms[cut.axis + 1 :])
    groups = [tuple(atom + (atom >= fresh) for atom in group) for group in first.groups]
    groups[axis] = (fresh,)
    return views.move(cut.of, atoms, tuple(groups))


def _hoist_window(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Identity 8."""
    first = parts[0]
    if not isinstance(first, Slice) or first.axis == axis or first.dims[axis] == 1:
        return None
    for part in parts:
        if not isinstance(part, Slice) or not isinstance(part.of, Leaf):
            return None
        if (part.axis, part.start, part.stop, part.step) != (first.axis, first.start, first.stop, first.step):
            return None
        if not _keeps_most(part) or not _may_be_equal(part.of.dims[part.axis], first.of.dims[first.axis]):
            return None
    whole = views.join([part.of for part in parts if isinstance(part, Slice)], axis)
    return views.slice(whole, first.axis, first.start, first.stop, first.step)


def _swap(views: Views, parts: Sequence[View], axis: int) -> View | None:
    """Identity 10."""
    rows = [part for part in parts if isinstance(part, Join) and part.axis != axis]
    if len(rows) != len(parts) or len({row.axis for row in rows}) > 1:
        return None
    place = rows[0].axis
    columns = list(zip(*(row.parts for row in rows), strict=False))
    for row in rows:
        if len(row.parts) != len(columns) or any(
            not isinstance(part.dims[place], int) or part.dims[place] != first.dims[place]
            for part, first in zip(row.parts, rows[0].parts, strict=True)
        ):
            return None
    joined = [views.join(column, axis) for column in columns]
    is_shorter = all(isinstance(one, Slice) for one in joined)
    return views.join(joined, place) if is_shorter else None


def _is_alike(one: Sequence[Sequence[Size]], other: Sequence[Sequence[Size]], joined: int) -> bool:
    """Whether two tensors that are concatenated along dim `joined` are divided alike.

    Their other dims are equal, or ONNX could not concatenate them: two tokens there name the same size.
    """
    if len(one[joined]) != 1:
        return False
    for place, (ours, theirs) in enumerate(zip(one, other, strict=True)):
        if place == joined:
            continue
        if len(ours) != len(theirs):
            return False
        if any(a != b and (isinstance(a, int) or isinstance(b, int)) for a, b in zip(ours, theirs, strict=True)):
            return False
    return True


def _fast_sizes(view: Move, axis: int) -> list[Size]:
    """Returns the sizes of all atoms of one dim but the slow one."""
    flat = [size for row in view.atoms for size in row]
    return [flat[atom] for atom in view.groups[axis][1:]]


def _keeps_most(window: Slice) -> bool:
    """Whether a window leaves out little, as far as can be seen: else whole tensors would be copied for small parts."""
    whole, kept = window.of.dims[window.axis], window.dims[window.axis]
    if isinstance(whole, int) and isinstance(kept, int):
        return 2 * kept >= whole
    if isinstance(window.start, int) and window.start < 0:
        return False
    return not isinstance(window.stop, int) or window.stop < 0 or window.stop >= END // 2


def _may_be_equal(one: Size, other: Size) -> bool:
    """Whether two sizes are equal, or both known at run time only.

    What is cut off in front is the same of both tensors, and what is left is concatenated, so it is of one size.
    """
    return one == other or (isinstance(one, str) and isinstance(other, str))


def _has_cast(view: View) -> bool:
    return isinstance(view, Cast) or any(_has_cast(one) for one in view.sources)


def _leaves(view: View) -> set[View]:
    return {view} if isinstance(view, Leaf) else {leaf for one in view.sources for leaf in _leaves(one)}
