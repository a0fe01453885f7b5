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

Views are interned: two views of one `Views` are equal exactly if they are the same object. Identities 1 to 4 are in
`surgery.slices`, 7 to 11 and the way back of 6 in `surgery.joins`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from onnxfix.surgery.joins import merged_neighbours, shorter_join
from onnxfix.surgery.pattern import compose, is_identity, is_in_order, moved_dims, normal, refine
from onnxfix.surgery.size import Size, product
from onnxfix.surgery.slices import loose_slice, static_slice
from onnxfix.surgery.view import END, Bound, Cast, Join, Leaf, Move, Slice, View, is_plain


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
                return static_slice(self, of, axis, taken.start, stop, step)
            if start == 0 and stop >= END // 2 and step == 1:
                return of
        return loose_slice(self, of, axis, start, stop, step)

    def pick(self, of: View, axis: int, index: int) -> View:
        """Returns `of[index]` along one axis, without that axis."""
        if isinstance(of, Cast):
            return self.cast(self.pick(of.of, axis, index), of.to)
        cut = self.slice(of, axis, index, index + 1)
        if cut.dims[axis] != 1:
            cut = self.cut(of, axis, index, index + 1, 1, 1, False)
        return self.squeeze(cut, (axis,))

    def join(self, parts: Sequence[View], axis: int) -> View:
        """Returns the parts concatenated along one axis."""
        return self._once(("join of", tuple(map(id, parts)), axis), self._find_join, parts, axis)

    def _find_join(self, parts: Sequence[View], axis: int) -> View:
        flat: list[View] = []
        for part in parts:
            flat += part.parts if isinstance(part, Join) and part.axis == axis else (part,)
        flat = merged_neighbours(self, flat, axis)
        if len(flat) == 1:
            return flat[0]
        return shorter_join(self, flat, axis) or self.plain_join(flat, axis)

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

    # What no identity makes shorter ----------------------------------------------------------------------------------

    def cut(self, of: View, axis: int, start: Bound, stop: Bound, step: int, size: Size, is_static: bool) -> View:
        """Returns a slice as it is; `size` is what is left of the axis."""
        dims = (*of.dims[:axis], size, *of.dims[axis + 1 :])
        key = ("slice", id(of), axis, start, stop, step, size)
        return self._known.setdefault(key, Slice(dims, of, axis, start, stop, step, is_static))

    def plain_join(self, parts: Sequence[View], axis: int) -> View:
        """Returns a concatenation as it is."""
        sizes = [part.dims[axis] for part in parts]
        known = [size for size in sizes if isinstance(size, int)]
        total: Size = sum(known) if len(known) == len(sizes) else f"sum({','.join(map(str, sizes))})"
        dims = (*parts[0].dims[:axis], total, *parts[0].dims[axis + 1 :])
        key = ("join", tuple(map(id, parts)), axis)
        return self._known.setdefault(key, Join(dims, tuple(parts), axis))

    # Rearrangements of concatenations ---------------------------------------------------------------------------------

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
            plain += is_plain(Move, moved, part)
            parts.append(moved)
        # To transpose the whole copies it once more; to add dims to the parts copies nothing.
        is_free = not is_in_order(groups) and not any(isinstance(one, Move) and is_copied(one) for one in parts)
        return self._join_moved(parts, target) if plain <= 1 or is_free else None

    def _join_moved(self, parts: list[View], axis: int) -> View:
        merged = merged_neighbours(self, parts, axis)
        return merged[0] if len(merged) == 1 else self.join(merged, axis)


def is_copied(view: Move) -> bool:
    """Whether a rearrangement moves elements in memory, by a Transpose; without, only the dims are other ones."""
    return not is_in_order(view.groups)
