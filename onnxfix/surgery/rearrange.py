"""Writes rearrangements: as Gather, Squeeze, Unsqueeze, Transpose and Reshape, with as few nodes as it takes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from onnxfix.errors import RewriteError
from onnxfix.surgery.pattern import is_identity
from onnxfix.surgery.size import Size, Term, quotient
from onnxfix.surgery.view import Move, Slice, View

if TYPE_CHECKING:
    from onnxfix.surgery.emit import Emitter

T = TypeVar("T")
ALLOWZERO = 14
"""The opset from which on Reshape can be told that 0 is a size (onnx/onnx: docs/Changelog.md, Reshape-14)."""


def emit_move(emitter: Emitter, view: Move, name: str) -> str:
    """Returns the name of a tensor with the content of `view`.

    Raises:
        RewriteError: A shape is needed that the model's opset cannot compute for an empty cache.
    """
    gone = [axis for axis, sizes in enumerate(view.atoms) if not sizes]
    for axis in gone:
        cut = _picked(view.of, axis)
        if cut is not None and not (cut is view.of and emitter.is_from_split(cut)):
            return _pick(emitter, view, axis, cut, name)
    order = [atom for group in view.groups for atom in group]
    is_whole = all(len(sizes) < 2 for sizes in view.atoms) and all(len(group) < 2 for group in view.groups)
    in_order = order == sorted(order)
    if is_whole and in_order:
        return _change_units(emitter, view, gone, name)
    if is_whole:
        return _transpose(emitter, view, gone, name)
    return _reshape_and_transpose(emitter, view, order, name)


def _without(items: Sequence[T], index: int) -> tuple[T, ...]:
    return (*items[:index], *items[index + 1 :])


def _picked(view: View, axis: int) -> Slice | None:
    """Returns the slice, of a chain, that takes one element of an axis and knows which."""
    while isinstance(view, Slice):
        if view.axis == axis:
            return view if view.is_static and view.dims[axis] == 1 and isinstance(view.start, int) else None
        view = view.of
    return None


def _pick(emitter: Emitter, view: Move, axis: int, cut: Slice, name: str) -> str:
    """A slice of one element whose dim goes is a Gather; slices of other axes come after it, on smaller tensors."""
    inner = view.of
    assert isinstance(inner, Slice)
    atoms = _without(view.atoms, axis)
    if not is_identity(atoms, view.groups):
        picked = emitter.views.squeeze(inner, (axis,))
        return emit_move(emitter, Move(view.dims, picked, atoms, view.groups), name)
    if inner.axis != axis:
        picked = emitter.views.squeeze(inner.of, (axis,))
        return emitter.part(picked, inner, inner.axis - (axis < inner.axis), name)
    constant = emitter.sink.add_constant(np.array(cut.start, np.int64), "onnxfix_constant")
    return emitter.node("Gather", [emitter.tensor(inner.of), constant], name, axis=axis)


def _change_units(emitter: Emitter, view: Move, gone: Sequence[int], name: str) -> str:
    """Dims of size 1 come and go: Squeeze and Unsqueeze, or one Reshape for both."""
    added = [axis for axis, group in enumerate(view.groups) if not group]
    gone, added = _surplus(view, gone, added)
    tensor = emitter.tensor(view.of)
    if gone and added and (shape := _constant_shape(view.of.dims, [[size] for size in view.dims])) is not None:
        return emitter.node("Reshape", [tensor, emitter.numbers(*shape)], name)
    if gone:
        tensor = emitter.change_axes("Squeeze", tensor, gone, "" if added else name)
    return emitter.change_axes("Unsqueeze", tensor, added, name) if added else tensor


def _surplus(view: Move, gone: Sequence[int], added: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns the dims of size 1 that go and those that come, but those that do both between the same two others."""
    goes = [(sum(map(bool, view.atoms[:axis])), axis) for axis in gone]
    comes = [(sum(map(bool, view.groups[:axis])), axis) for axis in added]
    stay = Counter(place for place, _ in goes) & Counter(place for place, _ in comes)
    return _beyond(goes, stay), _beyond(comes, stay)


def _beyond(places: Sequence[tuple[int, int]], stay: Mapping[int, int]) -> list[int]:
    """Returns the dims but the last `stay[place]` at each place."""
    at = Counter(place for place, _ in places)
    rank: Counter[int] = Counter()
    surplus = []
    for place, axis in places:
        rank[place] += 1
        if rank[place] <= at[place] - stay[place]:
            surplus.append(axis)
    return surplus


def _transpose(emitter: Emitter, view: Move, gone: Sequence[int], name: str) -> str:
    """Unit dims that stay in number take part in the transposition."""
    added = [axis for axis, group in enumerate(view.groups) if not group]
    kept = min(len(gone), len(added))
    tensor = emitter.tensor(view.of)
    if gone[kept:]:
        tensor = emitter.change_axes("Squeeze", tensor, gone[kept:])
    whole: list[int] = []
    units: list[int] = []
    for position, axis in enumerate(axis for axis in range(len(view.atoms)) if axis not in gone[kept:]):
        (whole if view.atoms[axis] else units).append(position)
    spare = iter(units)
    groups = [group for axis, group in enumerate(view.groups) if axis not in added[kept:]]
    perm = [whole[group[0]] if group else next(spare) for group in groups]
    rest = added[kept:]
    tensor = emitter.node("Transpose", [tensor], "" if rest else name, perm=perm)
    return emitter.change_axes("Unsqueeze", tensor, rest, name) if rest else tensor


def _reshape_and_transpose(emitter: Emitter, view: Move, order: Sequence[int], name: str) -> str:
    """The general case: divide dims into atoms, transpose them, merge them; or the same without run-time shapes."""
    sizes = [size for row in view.atoms for size in row]
    merged = [[sizes[atom] for atom in group] for group in view.groups]
    in_order = list(order) == sorted(order)
    shapes = (
        [(view.of.dims, merged)]
        if in_order
        else [(view.of.dims, [[one] for one in sizes]), ([sizes[one] for one in order], merged)]
    )
    if emitter.sink.opset < ALLOWZERO and any(_constant_shape(before, after) is None for before, after in shapes):
        return _transpose_and_reshape(emitter, view, sizes, order, name)
    tensor = emitter.tensor(view.of)
    if in_order:
        return _reshape(emitter, tensor, view.of.dims, merged, name)
    is_last = all(len(group) == 1 for group in view.groups)
    tensor = _reshape(emitter, tensor, view.of.dims, [[size] for size in sizes])
    tensor = emitter.node("Transpose", [tensor], name if is_last else "", perm=list(order))
    return tensor if is_last else _reshape(emitter, tensor, [sizes[atom] for atom in order], merged, name)


def _transpose_and_reshape(emitter: Emitter, view: Move, sizes: Sequence[Size], order: Sequence[int], name: str) -> str:
    """Brings dims of unknown size to the front, where Reshape copies them in place whether they are 0 or not."""
    dim_of = [axis for axis, row in enumerate(view.atoms) for _ in row]
    group_of = {atom: axis for axis, group in enumerate(view.groups) for atom in group}
    lead = [atom for atom, size in enumerate(sizes) if isinstance(size, str)]
    if any(len(view.atoms[dim_of[atom]]) > 1 or len(view.groups[group_of[atom]]) > 1 for atom in lead):
        return _reshape_in_place(emitter, view, sizes, order, name)
    front = [dim_of[atom] for atom in lead]
    rest = [axis for axis in range(len(view.atoms)) if axis not in front]
    tensor = _permute(emitter, emitter.tensor(view.of), [*front, *rest])
    inner = [atom for atom in range(len(sizes)) if atom not in lead]
    tensor = _fold(emitter, tensor, len(lead), [view.of.dims[axis] for axis in rest], [[sizes[atom]] for atom in inner])
    moved = [atom for atom in order if atom not in lead]
    tensor = _permute(emitter, tensor, [*range(len(lead)), *(len(lead) + inner.index(atom) for atom in moved)])
    back = [axis for axis in range(len(view.groups)) if axis not in {group_of[atom] for atom in lead}]
    tensor = _fold(
        emitter,
        tensor,
        len(lead),
        [sizes[atom] for atom in moved],
        [[sizes[atom] for atom in view.groups[axis]] for axis in back],
    )
    place = {
        **{group_of[atom]: index for index, atom in enumerate(lead)},
        **{axis: len(lead) + index for index, axis in enumerate(back)},
    }
    final = [place[axis] for axis in range(len(view.groups))]
    return (
        emitter.node("Identity", [tensor], name)
        if name and final == sorted(final)
        else _permute(emitter, tensor, final, name)
    )


def _reshape_in_place(emitter: Emitter, view: Move, sizes: Sequence[Size], order: Sequence[int], name: str) -> str:
    """Divides dims, transposes and merges, with dims of size 1 put in and taken out: all others keep their place.

    Reshape copies a size from the same place where its shape says 0, be it written there or found out at run time. A
    dim that is divided gets units behind it for its parts; one that is merged leaves some. What is found out takes the
    first place of its dim, where 0 is copied from what is 0 too.
    """
    rows = [[sizes[atom] for atom in row] for row in _counted(view.atoms)]
    merged = [[sizes[atom] for atom in group] for group in view.groups if group]
    if any(isinstance(size, str) for row in (*rows, *merged) for size in row[1:]):
        message = f"a reshape from {_show(view.of.dims)} to {_show(view.dims)} needs opset {ALLOWZERO}"
        raise RewriteError(f"{message}, the model has {emitter.sink.opset}", hint="freeze a dim: --set-dim NAME=SIZE")
    tensor = emitter.tensor(view.of)
    if gone := [axis for axis, row in enumerate(view.atoms) if not row]:
        tensor = emitter.change_axes("Squeeze", tensor, gone)
    tensor = _divide(emitter, tensor, [dim for axis, dim in enumerate(view.of.dims) if axis not in gone], rows)
    added = [axis for axis, group in enumerate(view.groups) if not group]
    last = "" if added else name
    tensor = _permute(emitter, tensor, order, last if all(len(group) == 1 for group in merged) else "")
    tensor = _merge(emitter, tensor, merged, last)
    if added:
        tensor = emitter.change_axes("Unsqueeze", tensor, added, name)
    return emitter.node("Identity", [tensor], name) if name not in ("", tensor) else tensor


def _counted(rows: Sequence[Sequence[Size]]) -> list[list[int]]:
    """Returns the numbers of the atoms of each dim that has some."""
    count = itertools.count()
    return [[next(count) for _ in row] for row in rows if row]


def _divide(emitter: Emitter, tensor: str, dims: Sequence[Size], rows: Sequence[Sequence[Size]]) -> str:
    """Divides dims into their parts."""
    if all(len(row) == 1 for row in rows):
        return tensor
    whole = emitter.node("Shape", [tensor])
    tensor = emitter.change_axes("Unsqueeze", tensor, _units(rows))
    pieces = [piece for dim, row in zip(dims, rows, strict=True) for piece in _pieces(emitter, whole, dims, row)]
    return emitter.node("Reshape", [tensor, emitter.node("Concat", pieces, axis=0)])


def _pieces(emitter: Emitter, whole: str, dims: Sequence[Size], row: Sequence[Size]) -> list[str]:
    """Returns the shape of one dim's parts; what stays as it is is copied."""
    if len(row) == 1:
        return [emitter.numbers(row[0] if isinstance(row[0], int) else 0)]
    return [_run_time_size(emitter, whole, dims, [size]) for size in row]


def _merge(emitter: Emitter, tensor: str, groups: Sequence[Sequence[Size]], name: str) -> str:
    """Merges dims; the result has one for each group, and the name if anything was merged."""
    if all(len(group) == 1 for group in groups):
        return tensor
    before = [size for group in groups for size in group]
    whole = emitter.node("Shape", [tensor])
    pieces = []
    for group in groups:
        pieces += _pieces(emitter, whole, before, group) if len(group) == 1 else [
            _run_time_size(emitter, whole, before, group), *[emitter.numbers(1)] * (len(group) - 1)
        ]  # fmt: skip
    tensor = emitter.node("Reshape", [tensor, emitter.node("Concat", pieces, axis=0)])
    return emitter.change_axes("Squeeze", tensor, _units(groups), name)


def _units(rows: Sequence[Sequence[Size]]) -> list[int]:
    """Returns the places behind the first part of each dim."""
    starts = list(itertools.accumulate((len(row) for row in rows), initial=0))
    return [start + place for start, row in zip(starts, rows, strict=False) for place in range(1, len(row))]


def _permute(emitter: Emitter, tensor: str, perm: Sequence[int], name: str = "") -> str:
    return tensor if list(perm) == sorted(perm) else emitter.node("Transpose", [tensor], name, perm=list(perm))


def _fold(emitter: Emitter, tensor: str, lead: int, before: Sequence[Size], after: Sequence[Sequence[Size]]) -> str:
    """Reshapes the known dims behind `lead` unknown ones."""
    known = [math.prod(size for size in group if isinstance(size, int)) for group in after]
    return tensor if list(before) == known else emitter.node("Reshape", [tensor, emitter.numbers(*[0] * lead, *known)])


def _reshape(
    emitter: Emitter, tensor: str, before: Sequence[Size], after: Sequence[Sequence[Size]], name: str = ""
) -> str:
    """Adds a Reshape from dims to dims that are each a product of sizes."""
    if [[size] for size in before] == [list(group) for group in after] and not name:
        return tensor
    shape = _constant_shape(before, after)
    if shape is not None:
        return emitter.node("Reshape", [tensor, emitter.numbers(*shape)], name)
    whole = emitter.node("Shape", [tensor])
    dims = [_run_time_size(emitter, whole, before, group) for group in after]
    return emitter.node("Reshape", [tensor, emitter.node("Concat", dims, axis=0)], name, allowzero=1)


def _run_time_size(emitter: Emitter, shape: str, before: Sequence[Size], group: Sequence[Size]) -> str:
    """Returns a 1-D tensor with a product of sizes, computed from the shape of the tensor before."""
    known = math.prod(size for size in group if isinstance(size, int))
    factors = [_factor(emitter, shape, before, size) for size in group if isinstance(size, str)]
    return _multiplied(emitter, known, factors)


def _multiplied(emitter: Emitter, number: int, factors: Sequence[str]) -> str:
    tensors = [*([emitter.numbers(number)] if number != 1 or not factors else []), *factors]
    result = tensors[0]
    for tensor in tensors[1:]:
        result = emitter.node("Mul", [result, tensor])
    return result


def _factor(emitter: Emitter, shape: str, before: Sequence[Size], size: str) -> str:
    """Returns one size: a dim of the tensor before, a known share of one, or computed from several."""
    if size in before:
        return emitter.node("Gather", [shape, emitter.numbers(before.index(size))], axis=0)
    for dim in before:
        count = quotient(dim, size)
        if isinstance(dim, str) and isinstance(count, int):
            return emitter.node("Div", [_factor(emitter, shape, before, dim), emitter.numbers(count)])
    if isinstance(size, Term):
        factors = [_factor(emitter, shape, before, factor) for factor in size.factors]
        whole = _multiplied(emitter, size.number, factors)
        return whole if size.divisor == 1 else emitter.node("Div", [whole, emitter.numbers(size.divisor)])
    raise RewriteError(
        f"the size `{size}` cannot be told from {_show(before)}", hint="freeze a dim: --set-dim NAME=SIZE"
    )


def _constant_shape(before: Sequence[Size], after: Sequence[Sequence[Size]]) -> list[int] | None:
    """Returns Reshape's constant shape, with 0 for a dim that is copied in place; None where one is needed at run time.

    -1 stands in only where every other size is known and not 0: a cache may be empty.
    """
    shape: list[int] = []
    for index, group in enumerate(after):
        known = [size for size in group if isinstance(size, int)]
        if len(known) == len(group):
            shape.append(math.prod(known))
            if shape[-1] == 0 and (index >= len(before) or before[index] != 0):
                return None
        elif len(group) == 1 and index < len(before) and before[index] == group[0]:
            shape.append(0)
        else:
            shape.append(-1)
    return None if shape.count(-1) > 1 or (-1 in shape and 0 in shape) else shape


def _show(dims: Sequence[Size]) -> str:
    return f"[{', '.join('?' if isinstance(dim, str) else str(dim) for dim in dims)}]"
