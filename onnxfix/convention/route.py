"""The way from one set of tensors to another that holds the same cache: split, rearrange, stack.

A route is both a specification and a product: `Route.run` carries it out on numpy arrays, and `surgery.rewrite` emits
the same steps as ONNX nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from onnxfix.convention.layout import Layout, show_item
from onnxfix.convention.signature import Dim
from onnxfix.convention.template import label_text
from onnxfix.errors import PlanError

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

T = TypeVar("T")
Labels: TypeAlias = tuple[tuple[str, int], ...]
"""Which part of the cache a tensor holds: axis and label, sorted by axis."""


@dataclass(frozen=True)
class Block:
    """A tensor of a cache.

    Attributes:
        name: The port's name.
        labels: Which part of the cache it holds.
        layout: Its dims.
        dims: The size of each dim.
    """

    name: str
    labels: Labels
    layout: Layout
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Split:
    """Every tensor of `before` whose labels hold `where` becomes one per label of `axis`, without that axis."""

    where: Labels
    axis: str
    labels: tuple[int, ...]
    before: Layout

    @property
    def after(self) -> Layout:
        """The layout of each part."""
        return self.before.without(self.axis)

    def inverse(self) -> Stack:
        """Returns the step that undoes this one."""
        return Stack(self.where, self.axis, self.labels, self.before)

    def explain(self) -> str:
        """Returns the step in words."""
        return f"split {self.axis} ({_count(self.axis, self.labels)}) off `{self.before}`{_only(self.where)}"


@dataclass(frozen=True)
class Stack:
    """The tensors that differ only in their label of `axis` become one, whose layout is `after`."""

    where: Labels
    axis: str
    labels: tuple[int, ...]
    after: Layout

    @property
    def before(self) -> Layout:
        """The layout of each part."""
        return self.after.without(self.axis)

    @property
    def front(self) -> Layout:
        """The layout right after the parts are put together, with the new axis in front."""
        return Layout(((self.axis,), *self.before.items))

    def inverse(self) -> Split:
        """Returns the step that undoes this one."""
        return Split(self.where, self.axis, self.labels, self.after)

    def explain(self) -> str:
        """Returns the step in words."""
        return f"stack {self.axis} ({_count(self.axis, self.labels)}) into `{self.after}`{_only(self.where)}"


@dataclass(frozen=True)
class Rearrange:
    """Every tensor whose labels hold `where` is transposed and reshaped from one layout to another.

    Axes that only one layout has are of size 1.
    """

    where: Labels
    before: Layout
    after: Layout

    def inverse(self) -> Rearrange:
        """Returns the step that undoes this one."""
        return Rearrange(self.where, self.after, self.before)

    def explain(self) -> str:
        """Returns the step in words."""
        return f"rearrange `{self.before}` to `{self.after}`{_only(self.where)}"


Step: TypeAlias = Split | Stack | Rearrange


def _count(axis: str, labels: tuple[int, ...]) -> str:
    words = [label_text(axis, label) for label in labels]
    return ", ".join(words) if not words[0].isdecimal() or len(words) < 3 else f"{words[0]} to {words[-1]}"


def _only(where: Labels) -> str:
    return " of " + ", ".join(f"{axis} {label_text(axis, label)}" for axis, label in where) if where else ""


@dataclass(frozen=True)
class Route:
    """From `source` to `target`, both whole descriptions of one cache.

    Attributes:
        source, target: The tensors.
        steps: What to do, in order.
        sizes: The sizes of axes that steps need and arrays cannot tell.
    """

    source: tuple[Block, ...]
    target: tuple[Block, ...]
    steps: tuple[Step, ...]
    sizes: Mapping[str, int]

    @property
    def is_rename(self) -> bool:
        """Whether every tensor goes through unchanged but for its name."""
        return not self.steps

    @property
    def renames(self) -> dict[str, str]:
        """Source name to target name, for a route that only renames."""
        names = {block.labels: block.name for block in self.target}
        return {block.name: names[block.labels] for block in self.source}

    def inverse(self) -> Route:
        """Returns the way back."""
        steps = tuple(step.inverse() for step in reversed(self.steps))
        return replace(self, source=self.target, target=self.source, steps=steps)

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the target's arrays for the source's, exactly: values are moved, never computed.

        Args:
            arrays: The source's tensors by name; others are ignored.

        Raises:
            PlanError: An array is missing or does not fit its layout.
        """
        held: dict[Labels, Array] = {}
        for block in self.source:
            if block.name not in arrays:
                raise PlanError("there is no array of this name", where=block.name)
            held[block.labels] = array = arrays[block.name]
            if array.ndim != block.layout.rank:
                message = f"the layout `{block.layout}` has {block.layout.rank} dimensions, the array has {array.ndim}"
                raise PlanError(message, where=block.name)
        for step in self.steps:
            held = self._apply(step, held)
        return {block.name: held[block.labels] for block in self.target}

    def _apply(self, step: Step, held: Mapping[Labels, Array]) -> dict[Labels, Array]:
        import numpy as np

        if isinstance(step, Split):
            return walk_split(step, held, lambda array, position: self._pick(array, step, position))
        if isinstance(step, Stack):
            return walk_stack(step, held, lambda parts: self._rearrange(np.stack(parts), step.front, step.after))
        return {
            labels: self._rearrange(array, step.before, step.after) if holds(labels, step.where) else array
            for labels, array in held.items()
        }

    def _pick(self, array: Array, step: Split, position: int) -> Array:
        """Takes one label of an axis: the dim of its group is taken apart and, without it, put together again."""
        index, slot = step.before.place(step.axis)
        item = Layout((step.before.items[index],))
        sizes = item.bind(array.shape[index : index + 1], {**self.sizes, step.axis: len(step.labels)})
        parts = _shape(Layout(tuple((axis,) for axis in item.axes)), sizes)
        before, after = array.shape[:index], array.shape[index + 1 :]
        picked: Array = array.reshape(before + parts + after).take(position, axis=index + slot)
        rest = (math.prod(parts) // len(step.labels),) if len(parts) > 1 else ()
        return picked.reshape(before + rest + after)

    def _rearrange(self, array: Array, before: Layout, after: Layout) -> Array:
        before, after = fuse(before, after, self.sizes.keys())
        sizes = before.bind(array.shape, {**self.sizes, **{axis: 1 for axis in before.axes if axis not in after.axes}})
        sizes |= {axis: 1 for axis in after.axes if axis not in before.axes}
        common = [axis for axis in before.axes if axis in after.axes]
        order = [axis for axis in after.axes if axis in before.axes]
        unfolded = array.reshape(_shape(Layout(tuple((axis,) for axis in common)), sizes))
        return unfolded.transpose([common.index(axis) for axis in order]).reshape(_shape(after, sizes))

    def explain(self) -> list[str]:
        """Returns the steps in words, one a line."""
        return [step.explain() for step in self.steps]


def _shape(layout: Layout, sizes: Mapping[str, Dim]) -> tuple[int, ...]:
    shape = []
    for item in layout.items:
        size = 1
        for axis in item:
            one = sizes[axis]
            if not isinstance(one, int):
                raise PlanError(f"the size of `{axis}` in `{layout}` is not known", hint=f"--size {axis}=N")
            size *= one
        shape.append(size)
    return tuple(shape)


def fuse(before: Layout, after: Layout, known: Collection[str]) -> tuple[Layout, Layout]:
    """Returns two layouts with axes joined to one that lie side by side in the same groups of both.

    Such axes travel together, so nobody needs to know how large each is. The joint axis is called as the group is
    written.

    >>> one, other = fuse(Layout((("batch", "head"), ("time",))), Layout((("time",), ("batch", "head"))), ())
    >>> one.items, other.items
    ((('(batch head)',), ('time',)), (('time',), ('(batch head)',)))

    Args:
        before: One layout.
        after: The other.
        known: Axes whose sizes are known; where all are, nothing needs to be joined.
    """
    followers = {one: two for item in after.items for one, two in pairwise(item)}
    joint: dict[str, tuple[str, ...]] = {}
    for item in before.items:
        runs: list[list[str]] = []
        for axis in item:
            if runs and followers.get(runs[-1][-1]) == axis:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        for run in runs:
            if any(axis not in known for axis in run):
                joint |= {run[0]: (show_item(tuple(run)),), **dict.fromkeys(run[1:], ())}
    return _joined(before, joint), _joined(after, joint)


def _joined(layout: Layout, joint: Mapping[str, tuple[str, ...]]) -> Layout:
    return Layout(tuple(tuple(name for axis in item for name in joint.get(axis, (axis,))) for item in layout.items))


def holds(labels: Labels, where: Labels) -> bool:
    """Whether `labels` name all that `where` names."""
    return set(where) <= set(labels)


def walk_split(step: Split, held: Mapping[Labels, T], pick: Callable[[T, int], T]) -> dict[Labels, T]:
    """Applies a split to tensors of any kind, given how one label (by position) is picked from one tensor."""
    after: dict[Labels, T] = {}
    for labels, tensor in held.items():
        if not holds(labels, step.where):
            after[labels] = tensor
            continue
        for position, label in enumerate(step.labels):
            after[tuple(sorted((*labels, (step.axis, label))))] = pick(tensor, position)
    return after


def walk_stack(step: Stack, held: Mapping[Labels, T], stack: Callable[[list[T]], T]) -> dict[Labels, T]:
    """Applies a stack to tensors of any kind, given how parts in the order of their labels become one tensor."""
    after: dict[Labels, T] = {}
    groups: dict[Labels, dict[int, T]] = {}
    for labels, tensor in held.items():
        if holds(labels, step.where):
            rest = tuple(entry for entry in labels if entry[0] != step.axis)
            groups.setdefault(rest, {})[dict(labels)[step.axis]] = tensor
        else:
            after[labels] = tensor
    for rest, parts in groups.items():
        after[rest] = stack([parts[label] for label in step.labels])
    return after
