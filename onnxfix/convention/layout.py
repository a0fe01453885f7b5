"""The layout language: which named axes a tensor has, in which order, and which of them share one dimension.

A layout is axis names in order; a group in parentheses is one dimension that holds several axes in C order (the first
is the slow one); `1` is a dimension of size 1 without a name. A layout without any item is a scalar's.

>>> layout = parse_layout("layer head time (kv dim)")
>>> layout.items
(('layer',), ('head',), ('time',), ('kv', 'dim'))
>>> layout.axes
('layer', 'head', 'time', 'kv', 'dim')
>>> str(layout.without("layer").without("kv"))
'head time dim'
>>> layout.bind((12, 4, "T", 128), {"kv": 2})
{'layer': 12, 'head': 4, 'time': 'T', 'kv': 2, 'dim': 64}
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnxfix.convention.signature import Dim
from onnxfix.errors import LayoutError, PlanError

AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_AXES = 32
"""Of a layout, counting `1`: numpy's arrays have 64 dims at most, and two layouts may meet in one."""
_TOKEN = re.compile(
    r"(?P<blank>[ \t]+)|(?P<axis>[A-Za-z_][A-Za-z0-9_]*)|(?P<unit>1(?![^\s()]))|(?P<open>\()|(?P<close>\))"
    r"|(?P<other>[^\s()]+|\s)"
)


@dataclass(frozen=True)
class Layout:
    """A tensor's dimensions, each a group of named axes.

    Attributes:
        items: One tuple of axis names per dimension, slow axis first; an empty tuple is a dimension of size 1.
    """

    items: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return " ".join(item[0] if len(item) == 1 else f"({' '.join(item)})" if item else "1" for item in self.items)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The names of all axes, from slow to fast."""
        return tuple(axis for item in self.items for axis in item)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.items)

    def place(self, axis: str) -> tuple[int, int]:
        """Returns which dimension holds `axis`, and its position inside the group."""
        for index, item in enumerate(self.items):
            if axis in item:
                return index, item.index(axis)
        raise KeyError(axis)

    def without(self, axis: str) -> Layout:
        """Returns the layout after one label of `axis` was picked; a dimension that held only `axis` is gone."""
        index, slot = self.place(axis)
        item = self.items[index]
        rest = (item[:slot] + item[slot + 1 :],) if len(item) > 1 else ()
        return Layout(self.items[:index] + rest + self.items[index + 1 :])

    def bind(self, dims: Sequence[Dim], known: Mapping[str, int] | None = None) -> dict[str, Dim]:
        """Returns the size of each axis for a tensor of the given dims.

        Args:
            dims: The tensor's dims, one per item of the layout.
            known: Sizes that are known beforehand. In a group at most one axis may be unknown.

        Returns:
            One entry per axis: an int, the name of a symbolic size, or None where nothing is known (a group with two
            unknown axes, an undeclared dim).

        Raises:
            PlanError: The rank differs, a size contradicts `known`, a group does not divide, a unit dim is not 1.
        """
        if len(dims) != self.rank:
            raise PlanError(
                f"the layout `{self}` has {self.rank} dimensions, the tensor has {len(dims)}: {show_dims(dims)}"
            )
        sizes: dict[str, Dim] = {}
        for item, dim in zip(self.items, dims, strict=True):
            self._bind_item(item, dim, known or {}, sizes)
        return sizes

    def _bind_item(self, item: tuple[str, ...], dim: Dim, known: Mapping[str, int], sizes: dict[str, Dim]) -> None:
        unknown = [axis for axis in item if axis not in known]
        product = math.prod(known[axis] for axis in item if axis in known)
        sizes.update({axis: known.get(axis) for axis in item})
        if not isinstance(dim, int):
            if len(unknown) == 1:
                sizes[unknown[0]] = dim if len(item) == 1 else None
            return
        if not item and dim != 1:
            raise PlanError(f"the layout `{self}` has a unit dimension where the tensor has {dim}")
        if not unknown:
            if item and product != dim:
                raise PlanError(f"`{show_item(item)}` of `{self}` should have size {product}, the tensor has {dim}")
            return
        if len(unknown) > 1:
            return
        if product == 0 or dim % product:
            raise PlanError(
                f"a dimension of {dim} does not divide into `{show_item(item)}`, as {product} is not a factor"
            )
        sizes[unknown[0]] = dim // product


def show_item(item: tuple[str, ...]) -> str:
    """Returns one dimension of a layout as it is written."""
    return str(Layout((item,)))


def show_dims(dims: Sequence[Dim] | None) -> str:
    """Returns dims as people write them: `[12, 4, T_CACHE, ?]`."""
    if dims is None:
        return "[?]"
    return f"[{', '.join('?' if dim is None else str(dim) for dim in dims)}]"


def parse_layout(text: str, *, whole: str | None = None, offset: int = 0, taken: Collection[str] = ()) -> Layout:
    """Parses a layout.

    Args:
        text: The layout.
        whole: The text that `text` was cut out of, for the caret in errors.
        offset: Where `text` begins in `whole`.
        taken: Axes that stand elsewhere already.

    Raises:
        LayoutError: An unknown character, a parenthesis that does not close or nests, an axis named twice, a group of
            fewer than two axes, more than 32 axes.
    """
    whole = text if whole is None else whole
    items: list[tuple[str, ...]] = []
    seen: set[str] = set()
    group: list[str] | None = None
    opened = count = 0
    for token in _TOKEN.finditer(text):
        span = (offset + token.start(), offset + token.end())
        word = token[0]
        count += token.lastgroup in ("axis", "unit")
        if count > MOST_AXES:
            raise LayoutError(f"a layout has at most {MOST_AXES} axes", text=whole, span=span)
        if token.lastgroup == "axis":
            if word in seen or word in taken:
                message = "stands twice" if word in seen else "is already spread over the names"
                raise LayoutError(f"the axis `{word}` {message}", text=whole, span=span)
            seen.add(word)
            items.append((word,)) if group is None else group.append(word)
        elif token.lastgroup == "unit":
            if group is not None:
                raise LayoutError("`1` has no place inside a group", text=whole, span=span)
            items.append(())
        elif token.lastgroup == "open":
            if group is not None:
                raise LayoutError("groups do not nest", text=whole, span=span)
            group, opened = [], span[0]
        elif token.lastgroup == "close":
            items.append(_close(group, whole, (opened, span[1]), span))
            group = None
        elif token.lastgroup == "other":
            message = "an axis name, `1`, `(` or `)` is expected here"
            raise LayoutError(message, text=whole, span=span, hint="a layout looks like: layer head time (kv dim)")
    if group is not None:
        raise LayoutError("this group is not closed", text=whole, span=(opened, opened + 1))
    return Layout(tuple(items))


def _close(group: list[str] | None, whole: str, group_span: tuple[int, int], span: tuple[int, int]) -> tuple[str, ...]:
    if group is None:
        raise LayoutError("no group is open here", text=whole, span=span)
    if len(group) < 2:
        raise LayoutError("a group holds at least two axes", text=whole, span=group_span)
    return tuple(group)
