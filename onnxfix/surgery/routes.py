"""A route as views: the steps of a plan, in the algebra of data movement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from onnxfix.convention.layout import Layout
from onnxfix.convention.route import Block, Labels, Rearrange, Route, Split, Stack, fuse, holds, walk_split, walk_stack
from onnxfix.errors import RewriteError
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.size import Size, Term, share
from onnxfix.surgery.view import View


def route_views(route: Route, leaves: Mapping[str, View], views: Views) -> dict[str, View]:
    """Returns the view of each target of a route, given the views of its sources by name."""
    walker = _Walker(route.sizes, views)
    held: dict[Labels, View] = {block.labels: leaves[block.name] for block in route.source}
    for step in route.steps:
        if isinstance(step, Split):
            held = walk_split(step, held, partial(walker.pick, step))
        elif isinstance(step, Stack):
            held = walk_stack(step, held, partial(walker.stack, step))
        else:
            held = {
                labels: walker.rearrange(view, step) if holds(labels, step.where) else view
                for labels, view in held.items()
            }
    return {block.name: held[block.labels] for block in route.target}


def leaves_of(blocks: Sequence[Block], views: Views) -> dict[str, View]:
    """Returns the blocks' tensors as leaves, by name; a dim without a known size gets a token of its own."""
    return {block.name: leaf(block.name, block.dims, views) for block in blocks}


def leaf(name: str, dims: Sequence[int | str | None], views: Views) -> View:
    """Returns a tensor as a leaf."""
    return views.leaf(name, [dim if isinstance(dim, int) else extent(name, axis) for axis, dim in enumerate(dims)])


def extent(name: str, axis: int) -> str:
    """Returns the token for the size that a tensor has along one axis at run time."""
    return f"{name}@{axis}"


def extent_of(token: str) -> tuple[str, int] | None:
    """Returns tensor and axis of a token that `extent` made; None for any other."""
    if isinstance(token, Term):
        return None
    name, at, axis = token.rpartition("@")
    return (name, int(axis)) if at and axis.isdecimal() and not set("*/(),") & set(axis) else None


class _Walker:
    def __init__(self, sizes: Mapping[str, int], views: Views) -> None:
        self.sizes = sizes
        self.views = views

    def pick(self, step: Split, view: View, position: int) -> View:
        index, slot = step.before.place(step.axis)
        unfolded = self.rearrange_layout(
            view, step.before, _unfolded(step.before, index), {step.axis: len(step.labels)}
        )
        picked = self.views.pick(unfolded, index + slot, position)
        rest = step.after
        if len(step.before.items[index]) < 3:
            return picked
        return self.rearrange_layout(picked, _unfolded(rest, index), rest, {})

    def stack(self, step: Stack, parts: Sequence[View]) -> View:
        joined = self.views.join([self.views.unsqueeze(part, (0,)) for part in parts], 0)
        front = Layout(((step.axis,), *step.before.items))
        return self.rearrange_layout(joined, front, step.after, {step.axis: len(step.labels)})

    def rearrange(self, view: View, step: Rearrange) -> View:
        return self.rearrange_layout(view, step.before, step.after, {})

    def rearrange_layout(self, view: View, before: Layout, after: Layout, more: Mapping[str, int]) -> View:
        """Axes that only `before` has are of size 1; so are those that only `after` has."""
        items, groups, units = _pattern(before, after, frozenset({**self.sizes, **more}))
        known = {**self.sizes, **more, **dict.fromkeys(units, 1)}
        atoms = tuple([_atoms(item, dim, known) for item, dim in zip(items, view.dims, strict=True)])
        return self.views.move(view, atoms, groups)


@lru_cache(maxsize=1024)
def _pattern(
    before: Layout, after: Layout, known: frozenset[str]
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Returns the axes of each dim, the atoms of each dim afterwards, and the axes that are gone then."""
    before, after = fuse(before, after, known)
    number = {axis: index for index, axis in enumerate(before.axes)}
    groups = tuple(tuple(number[axis] for axis in item if axis in number) for item in after.items)
    return before.items, groups, tuple(axis for axis in before.axes if axis not in after.axes)


def _unfolded(layout: Layout, index: int) -> Layout:
    """Returns the layout with one group taken apart."""
    parts = tuple((axis,) for axis in layout.items[index])
    return Layout(layout.items[:index] + parts + layout.items[index + 1 :])


def _atoms(item: tuple[str, ...], dim: Size, known: Mapping[str, int]) -> tuple[Size, ...]:
    """Returns the size of each axis of one dim; at most one may be unknown."""
    if len(item) == 1:
        return (1 if known.get(item[0]) == 1 else dim,)
    unknown = [axis for axis in item if axis not in known]
    product = math.prod(known[axis] for axis in item if axis in known)
    if isinstance(dim, int) and not unknown:
        return tuple(known[axis] for axis in item)
    if len(unknown) > 1:
        names = " and ".join(f"`{axis}`" for axis in unknown)
        raise RewriteError(f"the sizes of {names} are not known", hint=f"say one: --size {unknown[0]}=N")
    rest = share(dim, product)
    if rest is None:
        raise RewriteError(f"{dim} cannot be divided by {product}")
    return tuple(known.get(axis, rest) for axis in item)
