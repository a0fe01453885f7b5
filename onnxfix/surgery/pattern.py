"""How dims are divided into atoms and put together again: the arithmetic of reshapes and transpositions.

A pattern is two rows of tuples. The first has, for each dim of a tensor, the sizes of the atoms that the dim is divided
into (none for a dim of size 1); the second has, for each dim of the result, the atoms that it is made of, counted
through from the first dim's slowest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from onnxfix.surgery.size import Size, product, quotient

Pattern: TypeAlias = tuple[tuple[tuple[Size, ...], ...], tuple[tuple[int, ...], ...]]


def refine(one: Sequence[Size], other: Sequence[Size]) -> list[tuple[Size, int, int]] | None:
    """Divides two factorizations of the same size into common factors.

    >>> refine((4, 6), (8, 3))
    [(4, 0, 0), (2, 1, 0), (3, 1, 1)]

    Returns:
        Factors from slow to fast, each with the position of the entry of `one` and of `other` that it is a part of;
        None where there are no common factors.
    """
    if tuple(one) == tuple(other):
        return [(size, index, index) for index, size in enumerate(one) if size != 1]
    factors: list[tuple[Size, int, int]] = []
    left = [(index, size) for index, size in enumerate(one) if size != 1]
    right = [(index, size) for index, size in enumerate(other) if size != 1]
    while left and right:
        (i, a), (j, b) = left[0], right[0]
        if a == b:
            factors.append((a, i, j))
            left, right = left[1:], right[1:]
        elif 0 in (a, b):
            return None
        elif (rest := quotient(a, b)) is not None:
            factors.append((b, i, j))
            left, right = [(i, rest), *left[1:]], right[1:]
        elif (rest := quotient(b, a)) is not None:
            factors.append((a, i, j))
            left, right = left[1:], [(j, rest), *right[1:]]
        else:
            return None
    return None if left or right else factors


def dim_of_atom(atoms: Sequence[Sequence[Size]], atom: int) -> int:
    """Returns the dim that an atom is a part of."""
    for place, sizes in enumerate(atoms):
        if atom < len(sizes):
            return place
        atom -= len(sizes)
    raise IndexError(atom)


def moved_dims(atoms: Sequence[Sequence[Size]], groups: Sequence[Sequence[int]]) -> tuple[Size, ...]:
    """Returns the dims of the result."""
    flat = [size for sizes in atoms for size in sizes]
    return tuple(product(flat[index] for index in group) for group in groups)


def is_identity(atoms: Sequence[Sequence[Size]], groups: Sequence[Sequence[int]]) -> bool:
    """Whether a rearrangement in normal form leaves everything where it is."""
    if len(atoms) != len(groups) or any(len(sizes) > 1 for sizes in atoms):
        return False
    counter = iter(range(len(atoms)))
    return all(tuple(next(counter) for _ in sizes) == tuple(group) for sizes, group in zip(atoms, groups, strict=True))


def is_in_order(groups: Iterable[Sequence[int]]) -> bool:
    """Whether a rearrangement leaves its atoms in their order: then it is no more than a reshape."""
    order = [atom for group in groups for atom in group]
    return order == sorted(order)


def normal(dims: Sequence[Size], atoms: Sequence[Sequence[Size]], groups: Sequence[Sequence[int]]) -> Pattern:
    """Drops atoms of size 1 and merges atoms that stay neighbours, so that equal rearrangements are written equally."""
    flat = [size for row in atoms for size in row]
    kept = [[atom for atom in group if flat[atom] != 1] for group in groups]
    follows = {before: after for group in kept for before, after in itertools.pairwise(group)}
    fresh: list[tuple[Size, ...]] = []
    name: dict[int, int] = {}
    atom = -1
    for dim, row in zip(dims, atoms, strict=True):
        runs: list[list[Size]] = []
        last = -1
        for size in row:
            atom += 1
            if size == 1:
                continue
            if runs and follows.get(last) == atom:
                runs[-1].append(size)
            else:
                name[atom] = len(name)
                runs.append([size])
            last = atom
        fresh.append((dim,) if len(runs) == 1 else tuple([product(run) for run in runs]))
    return tuple(fresh), tuple([tuple([name[atom] for atom in group if atom in name]) for group in kept])


def compose(inner: Pattern, atoms: Sequence[Sequence[Size]], groups: Sequence[Sequence[int]]) -> Pattern | None:
    """Returns the one rearrangement that two in a row are; None where their atoms have no common factors."""
    flat = [size for sizes in inner[0] for size in sizes]
    pieces: dict[int, list[tuple[Size, int]]] = {index: [] for index in range(len(flat))}
    outer: list[list[int]] = [[] for sizes in atoms for _ in sizes]
    count = 0
    offset = 0
    for group, sizes in zip(inner[1], atoms, strict=True):
        factors = refine([flat[index] for index in group], sizes)
        if factors is None:
            return None
        for size, source, target in factors:
            pieces[group[source]].append((size, count))
            outer[offset + target].append(count)
            count += 1
        offset += len(sizes)
    fresh: list[tuple[Size, ...]] = []
    rename: dict[int, int] = {}
    atom = 0
    for sizes in inner[0]:
        row: list[Size] = []
        for _ in sizes:
            for size, old in pieces[atom]:
                rename[old] = len(rename)
                row.append(size)
            atom += 1
        fresh.append(tuple(row))
    return tuple(fresh), tuple(tuple(rename[old] for index in group for old in outer[index]) for group in groups)
