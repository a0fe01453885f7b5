"""The algebra of data movement: views are built here, and become short as they are built.

The constructors of `Views` apply identities, so that equal movement has one form:

1.  A slice of a slice is one slice; slices of different axes have a fixed order, those with known bounds inside.
2.  A slice of a concatenation on the same axis is the parts that it covers.
3.  A slice of a concatenation on another axis is the concatenation of slices, where that saves something.
4.  A slice of a rearrangement is a rearrangement of a slice, where the slice falls on whole axes.
5.  A rearrangement of a rearrangement is one rearrangement.
6.  A rearrangement of a concatenation is a concatenation of rearrangements, where that saves something, and the other
    way round where all parts are rearranged alike.
7.  Concatenated neighbouring slices of one tensor are one slice.
8.  Parts that are cut alike along another axis (a window over time) are concatenated first and cut once, where the
    concatenation extends an axis that the parts have.

9.  Every n-th element from 0, from 1, ... to n - 1 of one axis, stacked, is that axis divided into two.

10. A concatenation of concatenations along another axis is taken the other way round, where each column becomes
    shorter by that.

11. Movement of a cast is a cast of movement: elements are converted one by one, so where they lie makes no difference.

Views are interned: two views of one `Views` are equal exactly if they are the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from onnxfix.surgery.pattern import (
    Size,
    compose,
    dim_of_atom,
    is_identity,
    is_in_order,
    moved_dims,
    normal,
    product,
    refine,
)
from onnxfix.surgery.view import END, Bound, Cast, Join, Leaf, Move, Slice, View


@dataclass
class Views:
    """Builds views, applies the identities, and keeps one object per view."""

    _known: dict[tuple[object, ...], View] = field(default_factory=dict)

    # Constructors ----------------------------------------------------------------------------------------------------

    def leaf(self, name: str, dims: Sequence[Size]) -> View:
        """Returns the view of an existing tensor."""
        return self._known.setdefault(("leaf", name), Leaf(tuple(dims), name))

    def slice(self, of: View, axis: int, start: Bound, stop: Bound, step: int = 1) -> View:
        """Returns `of[start:stop:step]` along one axis; numbers may be negative or out of range, as in ONNX."""
        return self._once(("slice of", id(of), axis, start, stop, step), self._find_slice, of, axis, start, stop, step)

    def _find_slice(self, of: View, axis: int, start: Bound, stop: Bound, step: int) -> View:
        if isinstance(of, Cast):
            return self.cast(self.slice(of.of, axis, start, stop, step), of.to)
        size = of.dims[axis]
        if isinstance(start, int) and isinstance(stop, int):
            if isinstance(size, int):
                taken = range(*slice(start, stop, step).indices(size))
                if len(taken) == size:
                    return of
                stop = taken[-1] + 1 if taken else taken.start
                return self._static_slice(of, axis, taken.start, stop, step)
            if start == 0 and stop >= END // 2 and step == 1:
                return of
        return self._loose_slice(of, axis, start, stop, step)

    def pick(self, of: View, axis: int, index: int) -> View:
        """Returns `of[index]` along one axis, without that axis."""
        if isinstance(of, Cast):
            return self.cast(self.pick(of.of, axis, index), of.to)
        cut = self.slice(of, axis, index, index + 1)
        if cut.dims[axis] != 1:
            cut = self._slice(of, axis, index, index + 1, 1, 1, False)
        return self.squeeze(cut, (axis,))

    def join(self, parts: Sequence[View], axis: int) -> View:
        """Returns the parts concatenated along one axis."""
        return self._once(("join of", tuple(map(id, parts)), axis), self._find_join, parts, axis)

    def _find_join(self, parts: Sequence[View], axis: int) -> View:
        flat: list[View] = []
        for part in parts:
            flat += part.parts if isinstance(part, Join) and part.axis == axis else (part,)
        flat = self._merge_neighbours(flat, axis)
        if len(flat) == 1:
            return flat[0]
        for identity in (self._hoist_cast, self._weave, self._hoist_moves, self._hoist_window, self._swap):
            if (found := identity(flat, axis)) is not None:
                return found
        return self._join(flat, axis)

    def transpose(self, of: View, order: Sequence[int]) -> View:
        """Returns `of` with its dims in another order."""
        atoms = tuple((size,) for size in of.dims)
        return self.move(of, atoms, tuple((index,) for index in order))

    def squeeze(self, of: View, axes: Iterable[int]) -> View:
        """Returns `of` without some dims of size 1."""
        gone = set(axes)
        atoms = tuple((size,) for size in of.dims)
        return self.move(of, atoms, tuple((index,) for index in range(len(of.dims)) if index not in gone))

    def unsqueeze(self, of: View, axes: Iterable[int]) -> View:
        """Returns `of` with dims of size 1 at `axes`, which count in the result."""
        added = set(axes)
        inner = iter(range(len(of.dims)))
        groups = tuple(() if index in added else (next(inner),) for index in range(len(of.dims) + len(added)))
        return self.move(of, tuple((size,) for size in of.dims), groups)

    def reshape(self, of: View, shape: Sequence[Size]) -> View | None:
        """Returns `of` in another shape; None where the dims cannot be matched to each other."""
        factors = refine(of.dims, shape)
        if factors is None:
            return None
        atoms: list[list[Size]] = [[] for _ in of.dims]
        groups: list[list[int]] = [[] for _ in shape]
        for index, (size, source, target) in enumerate(factors):
            atoms[source].append(size)
            groups[target].append(index)
        return self.move(of, tuple(map(tuple, atoms)), tuple(map(tuple, groups)))

    def move(self, of: View, atoms: tuple[tuple[Size, ...], ...], groups: tuple[tuple[int, ...], ...]) -> View:
        """Returns `of` rearranged; see `Move`."""
        return self._once(("move of", id(of), atoms, groups), self._find_move, of, atoms, groups)

    def _find_move(self, of: View, atoms: tuple[tuple[Size, ...], ...], groups: tuple[tuple[int, ...], ...]) -> View:
        if isinstance(of, Cast):
            return self.cast(self.move(of.of, atoms, groups), of.to)
        # A whole dim is as large as it is in `of`: parts of a concatenation have tokens of their own for equal sizes.
        atoms = tuple(
            (dim,) if len(row) == 1 and isinstance(row[0], str) else row
            for row, dim in zip(atoms, of.dims, strict=True)
        )
        if isinstance(of, Move) and (composed := compose((of.atoms, of.groups), atoms, groups)) is not None:
            return self.move(of.of, *composed)
        atoms, groups = normal(of.dims, atoms, groups)
        if is_identity(atoms, groups):
            return of
        if isinstance(of, Join) and (spread := self._spread_move(of, atoms, groups)) is not None:
            return spread
        dims = moved_dims(atoms, groups)
        return self._known.setdefault(("move", id(of), atoms, groups), Move(dims, of, atoms, groups))

    def cast(self, of: View, to: int) -> View:
        """Returns `of` in another element type, as ONNX numbers them."""
        return self._known.setdefault(("cast", id(of), to), Cast(of.dims, of, to))

    def _once(self, asked: tuple[object, ...], find: Callable[..., View], *what: object) -> View:
        """Returns what was found when the same was asked before: a route is walked more than once."""
        found = self._known.get(asked)
        if found is None:
            found = self._known[asked] = find(*what)
        return found

    # Slices ----------------------------------------------------------------------------------------------------------

    def _static_slice(self, of: View, axis: int, start: int, stop: int, step: int) -> View:
        """Applies identities 1 to 4; bounds are resolved, and `stop` is one past the last element taken."""
        if isinstance(of, Slice):
            if of.axis == axis and of.is_static and isinstance(of.start, int):
                first = of.start + start * of.step
                last = of.start + (stop - 1) * of.step + 1 if stop > start else first
                return self.slice(of.of, axis, first, last, of.step * step)
            if of.axis != axis:
                inner = self.slice(of.of, axis, start, stop, step)
                is_plain = isinstance(inner, Slice) and inner.of is of.of
                if not is_plain or not of.is_static or of.axis > axis:
                    return self.slice(inner, of.axis, of.start, of.stop, of.step)
        if isinstance(of, Join):
            found = self._slice_join(of, axis, start, stop, step)
            if found is not None:
                return found
        if isinstance(of, Move):
            found = self._slice_move(of, axis, start, stop, step)
            if found is not None:
                return found
        length = len(range(start, stop, step))
        return self._slice(of, axis, start, stop, step, length, True)

    def _loose_slice(self, of: View, axis: int, start: Bound, stop: Bound, step: int) -> View:
        if isinstance(of, Slice) and of.axis > axis and not of.is_static:
            return self.slice(self.slice(of.of, axis, start, stop, step), of.axis, of.start, of.stop, of.step)
        if isinstance(of, Move) and len(of.groups[axis]) == 1:
            place = dim_of_atom(of.atoms, of.groups[axis][0])
            if len(of.atoms[place]) == 1:
                inner = self.slice(of.of, place, start, stop, step)
                return self._remove(of, inner, place, 0, inner.dims[place])
        token = f"slice({of.dims[axis]},{start},{stop},{step})"
        return self._slice(of, axis, start, stop, step, token, False)

    def _slice(self, of: View, axis: int, start: Bound, stop: Bound, step: int, size: Size, static: bool) -> View:
        dims = (*of.dims[:axis], size, *of.dims[axis + 1 :])
        key = ("slice", id(of), axis, start, stop, step, size)
        return self._known.setdefault(key, Slice(dims, of, axis, start, stop, step, static))

    def _slice_join(self, of: Join, axis: int, start: int, stop: int, step: int) -> View | None:
        if axis != of.axis:
            parts = [self.slice(part, axis, start, stop, step) for part in of.parts]
            plain = sum(_is_plain(Slice, new, old) for new, old in zip(parts, of.parts, strict=True))
            return self.join(parts, of.axis) if plain <= 1 else None
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
                    pieces.append(self.slice(part, axis, low - begin, high - begin, step))
            begin += size
        return self.join(pieces, axis) if pieces else None

    def _slice_move(self, of: Move, axis: int, start: int, stop: int, step: int) -> View | None:
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
            one = self.slice(of, axis, whole, whole + fast)
            if isinstance(one, Slice) and one.of is of:
                return None
            return self.slice(one, axis, start - whole, stop - whole, step)
        if len(group) == 2 and step == fast and start < fast and stop > (slow - 1) * fast:
            return self._slice_atom(of, group[1], start, start + 1, 1)
        if (fast > 1 and step != 1) or start % fast or stop % fast:
            return None
        return self._slice_atom(of, group[0], start // fast, stop // fast, step)

    def _slice_atom(self, of: Move, atom: int, start: int, stop: int, step: int) -> View | None:
        """Slices one atom of a rearrangement, which must be the slow or the fast end of an inner dim."""
        place = dim_of_atom(of.atoms, atom)
        sizes = of.atoms[place]
        position = atom - sum(len(one) for one in of.atoms[:place])
        fast = product(sizes[position + 1 :])
        length = len(range(start, stop, step))
        if position == 0 and isinstance(fast, int) and (fast == 1 or step == 1):
            inner = self.slice(of.of, place, start * fast, (stop - 1) * fast + fast, step)
        elif position == len(sizes) - 1 and length == 1 and all(isinstance(one, int) for one in sizes):
            assert isinstance(sizes[-1], int)
            inner = self.slice(of.of, place, start, END, sizes[-1])
        else:
            return None
        return self._remove(of, inner, place, position, length)

    def _remove(self, of: Move, inner: View, place: int, position: int, size: Size) -> View:
        """Returns the rearrangement `of` of a sliced tensor, in which one atom has another size."""
        sizes = of.atoms[place]
        atoms = (*of.atoms[:place], (*sizes[:position], size, *sizes[position + 1 :]), *of.atoms[place + 1 :])
        return self.move(inner, atoms, of.groups)

    # Concatenations --------------------------------------------------------------------------------------------------

    def _join(self, parts: Sequence[View], axis: int) -> View:
        sizes = [part.dims[axis] for part in parts]
        known = [size for size in sizes if isinstance(size, int)]
        total: Size = sum(known) if len(known) == len(sizes) else f"sum({','.join(map(str, sizes))})"
        dims = (*parts[0].dims[:axis], total, *parts[0].dims[axis + 1 :])
        key = ("join", tuple(map(id, parts)), axis)
        return self._known.setdefault(key, Join(dims, tuple(parts), axis))

    def _merge_neighbours(self, parts: Sequence[View], axis: int) -> list[View]:
        """Identity 7."""
        merged: list[View] = []
        for part in parts:
            last = merged[-1] if merged else None
            if (
                isinstance(part, Slice) and isinstance(last, Slice) and part.axis == last.axis == axis
                and part.of is last.of and part.is_static and last.is_static
                and part.step == last.step == 1 and last.stop == part.start
            ):  # fmt: skip
                merged[-1] = self.slice(part.of, axis, last.start, part.stop)
            else:
                merged.append(part)
        return merged

    def _hoist_cast(self, parts: Sequence[View], axis: int) -> View | None:
        """Identity 11, from right to left: all parts are cast alike from one tensor, so from one element type."""
        casts = [part for part in parts if isinstance(part, Cast)]
        sources = {leaf for cast in casts for leaf in _leaves(cast)}
        if len(casts) < len(parts) or len(sources) > 1 or len({cast.to for cast in casts}) > 1:
            return None
        if any(_has_cast(cast.of) for cast in casts):
            return None
        return self.cast(self.join([cast.of for cast in casts], axis), casts[0].to)

    def _hoist_moves(self, parts: Sequence[View], axis: int) -> View | None:
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
        joined = self.join(inner, place)
        atoms = (*first.atoms[:place], (joined.dims[place],), *first.atoms[place + 1 :])
        return self.move(joined, atoms, first.groups)

    def _weave(self, parts: Sequence[View], axis: int) -> View | None:
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
        return self.move(cut.of, atoms, tuple(groups))

    def _hoist_window(self, parts: Sequence[View], axis: int) -> View | None:
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
        whole = self.join([part.of for part in parts if isinstance(part, Slice)], axis)
        return self.slice(whole, first.axis, first.start, first.stop, first.step)

    def _swap(self, parts: Sequence[View], axis: int) -> View | None:
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
        joined = [self.join(column, axis) for column in columns]
        is_shorter = all(isinstance(one, Slice) for one in joined)
        return self.join(joined, place) if is_shorter else None

    # Rearrangements --------------------------------------------------------------------------------------------------

    def _spread_move(
        self, of: Join, atoms: tuple[tuple[Size, ...], ...], groups: tuple[tuple[int, ...], ...]
    ) -> View | None:
        """Identity 6, from left to right: the slow atom of the joined dim is the slow atom of a dim of the result."""
        sizes = atoms[of.axis]
        if not sizes:
            return None
        first = sum(len(one) for one in atoms[: of.axis])
        fast = product(sizes[1:])
        target = next(index for index, group in enumerate(groups) if first in group)
        if groups[target][0] != first:
            return None
        parts = []
        plain = 0
        for part in of.parts:
            size = part.dims[of.axis]
            if len(sizes) > 1:
                if not isinstance(size, int) or not isinstance(fast, int) or size % fast:
                    return None
                size = size // fast
            own = (*atoms[: of.axis], (size, *sizes[1:]), *atoms[of.axis + 1 :])
            moved = self.move(part, own, groups)
            plain += _is_plain(Move, moved, part)
            parts.append(moved)
        # To transpose the whole copies it once more; to add dims to the parts copies nothing.
        is_free = not is_in_order(groups) and not any(isinstance(one, Move) and is_copied(one) for one in parts)
        return self._join_moved(parts, target) if plain <= 1 or is_free else None

    def _join_moved(self, parts: list[View], axis: int) -> View:
        merged = self._merge_neighbours(parts, axis)
        return merged[0] if len(merged) == 1 else self.join(merged, axis)


def is_copied(view: Move) -> bool:
    """Whether a rearrangement moves elements in memory, by a Transpose; without, only the dims are other ones."""
    return not is_in_order(view.groups)


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


def _is_plain(kind: type[Slice] | type[Move], new: View, old: View) -> bool:
    """Whether a view is one more movement of another, so that nothing was saved by moving it."""
    bare = new.of if isinstance(new, Cast) else new
    return isinstance(bare, kind) and bare.of is (old.of if isinstance(old, Cast) else old)


def _has_cast(view: View) -> bool:
    return isinstance(view, Cast) or any(_has_cast(one) for one in view.sources)


def _leaves(view: View) -> set[View]:
    return {view} if isinstance(view, Leaf) else {leaf for one in view.sources for leaf in _leaves(one)}
