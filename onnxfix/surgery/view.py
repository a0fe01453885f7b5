"""What a tensor is, as slices, concatenations, rearrangements and casts of other tensors.

A `View` says of a tensor which elements of which existing tensors (leaves) it holds, and in which order. Views are made
by `surgery.algebra.Views` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from onnxfix.surgery.size import Size

Bound: TypeAlias = int | str
"""Where a slice begins or ends: a number, or the name of a 1-D tensor with one element."""
END = 2**63 - 1


@dataclass(eq=False, frozen=True)
class View:
    """A tensor as movement of others; made by `Views` only.

    Attributes:
        dims: The size of each dim.
    """

    dims: tuple[Size, ...]

    @property
    def sources(self) -> tuple[View, ...]:
        """The views that this one is made of."""
        return ()


@dataclass(eq=False, frozen=True)
class Leaf(View):
    """A tensor that exists, under its name."""

    name: str


@dataclass(eq=False, frozen=True)
class Slice(View):
    """A part of `of` along one axis, as ONNX's Slice takes it.

    Attributes:
        is_static: Whether the bounds are numbers that were resolved against a known size.
    """

    of: View
    axis: int
    start: Bound
    stop: Bound
    step: int
    is_static: bool

    @property
    def sources(self) -> tuple[View, ...]:
        """The view that this one is made of."""
        return (self.of,)


@dataclass(eq=False, frozen=True)
class Join(View):
    """Parts concatenated along one axis."""

    parts: tuple[View, ...]
    axis: int

    @property
    def sources(self) -> tuple[View, ...]:
        """The parts."""
        return self.parts


@dataclass(eq=False, frozen=True)
class Move(View):
    """`of`, reshaped to atoms, transposed, and reshaped again; unit dims come and go.

    Attributes:
        atoms: For each dim of `of`, the sizes that it is divided into; none for a dim of size 1.
        groups: For each dim of the result, the atoms (counted through) that it is made of; none for a unit dim.
    """

    of: View
    atoms: tuple[tuple[Size, ...], ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def sources(self) -> tuple[View, ...]:
        """The view that this one is made of."""
        return (self.of,)


@dataclass(eq=False, frozen=True)
class Cast(View):
    """`of` in another element type.

    Attributes:
        to: The element type, as ONNX numbers them.
    """

    of: View
    to: int

    @property
    def sources(self) -> tuple[View, ...]:
        """The view that this one is made of."""
        return (self.of,)


def is_plain(kind: type[Slice] | type[Move], new: View, old: View) -> bool:
    """Whether a view is one more movement of another, so that nothing was saved by moving it."""
    bare = new.of if isinstance(new, Cast) else new
    return isinstance(bare, kind) and bare.of is (old.of if isinstance(old, Cast) else old)
