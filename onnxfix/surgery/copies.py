"""How many bytes of cache a graph copies in each step.

What a tensor near the boundary holds is known as a share of its cache, whatever the sizes that only run time knows. The
nodes that copy (Slice, Split, Gather, Concat, Transpose) count with the shares that they write: on the way in all those
that take a cache apart, up to what computes with it; on the way out those that serve nothing but the new cache.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.model.ports import item_size
from onnxfix.surgery.algebra import Views, is_copied
from onnxfix.surgery.frontier import Frontier
from onnxfix.surgery.movement import is_movement
from onnxfix.surgery.routes import leaves_of, route_views
from onnxfix.surgery.view import Join, Leaf, Move, Slice, View

if TYPE_CHECKING:
    from onnxfix.convention.route import Block, Route
    from onnxfix.model.graph import GraphView, Node

_FREE = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"}
"""Movement that changes only what dims are called, and Cast, which writes what it converts."""

Bytes: TypeAlias = Mapping[tuple[str, ...], int]
"""Numbers of bytes by the axes that they are to be multiplied with, whose sizes only run time knows."""
Shares: TypeAlias = Mapping[str, Fraction]
"""What a tensor holds, as a share of its cache, by the tensor's name."""


@dataclass(frozen=True)
class Copies:
    """Bytes of cache copied per step.

    Attributes:
        before: By the graph as it was.
        adapters: With adapters at its boundary and nothing cancelled.
        after: By the graph as it is now.
    """

    before: Bytes
    adapters: Bytes
    after: Bytes


def total(routes: Iterable[tuple[Route, Fraction]], dtypes: Mapping[str, str]) -> Bytes:
    """Returns the bytes of some multiples of caches.

    Args:
        routes: Each cache, and how many times it is copied.
        dtypes: The element type of each new port.
    """
    terms: Counter[tuple[str, ...]] = Counter()
    for route, times in routes:
        for block in route.target:
            known, axes = _extent(block, route.sizes)
            terms[axes] += round(known * item_size(dtypes[block.name]) * times)
    return {axes: count for axes, count in sorted(terms.items()) if count}


def copied_by_graph(graph: GraphView, views: Views, past: Sequence[Block], present: Sequence[Block]) -> Fraction:
    """Returns how many times a graph copies a cache in each step.

    Args:
        graph: The graph.
        views: Where views are made; others of the same names have the same dims.
        past: The inputs that hold the cache; none for a cache that is only written.
        present: The outputs that hold it; none for a cache that is only read.
    """
    frontier = Frontier(graph, views, {})
    found = frontier.explore(leaves_of(past, frontier.views))
    shares = _Shares(_even(past))
    inwards = sum(
        (shares.of(found.known[name]) for node in found.nodes if _copies(node) for name in node.outputs if name),
        Fraction(),
    )
    dying = frontier.dying([block.name for block in present])
    return inwards + _copied_on_the_way_out(graph, dying, _even(present))


def copied_by_adapters(route: Route, views: Views, twin: Route | None = None) -> Fraction:
    """Returns how many times the nodes that a route takes copy a cache.

    Args:
        route: The route.
        views: Where views are made; others of the route's sources have the same dims.
        twin: One whose sources hold the same, to tell sizes that this one's do not declare.
    """
    shares = _Shares(_even(route.source))
    distinct: dict[int, View] = {}
    source = route.source if twin is None else _completed(route.source, twin.source)
    stack = list(route_views(route, leaves_of(source, views), views).values())
    while stack:
        view = stack.pop()
        if id(view) not in distinct:
            distinct[id(view)] = view
            stack += view.sources
    return sum((shares.of(view) for view in distinct.values() if _is_written(view)), Fraction())


def _completed(blocks: Sequence[Block], others: Sequence[Block]) -> list[Block]:
    """Returns blocks with sizes from those that hold the same part of a cache in the same layout."""
    known = {(block.labels, block.layout): block.dims for block in others}
    completed = []
    for block in blocks:
        dims = known.get((block.labels, block.layout), block.dims)
        sizes = [own if isinstance(own, int) else dim for own, dim in zip(block.dims, dims, strict=True)]
        completed.append(replace(block, dims=tuple(sizes)))
    return completed


def _is_written(view: View) -> bool:
    return isinstance(view, Slice | Join) or (isinstance(view, Move) and is_copied(view))


def _copies(node: Node) -> bool:
    return is_movement(node) and node.op_type not in _FREE


def _even(blocks: Sequence[Block]) -> Shares:
    return {block.name: Fraction(1, len(blocks)) for block in blocks}


def _extent(block: Block, sizes: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
    """Returns the known part of the number of a block's elements, and the axes that make up the rest."""
    known, axes = 1, []
    for item, dim in zip(block.layout.items, block.dims, strict=True):
        if isinstance(dim, int):
            known *= dim
            continue
        known *= math.prod(sizes[axis] for axis in item if axis in sizes)
        axes += [axis for axis in item if axis not in sizes]
    return known, tuple(sorted(axes))


class _Shares:
    """Tells which share of a cache a view of its ports holds."""

    def __init__(self, leaves: Shares) -> None:
        self._leaves = leaves
        self._known: dict[int, Fraction] = {}

    def of(self, view: View) -> Fraction:
        """Returns the share; a window of unknown length counts as all there is."""
        if id(view) not in self._known:
            self._known[id(view)] = self._find(view)
        return self._known[id(view)]

    def _find(self, view: View) -> Fraction:
        if isinstance(view, Leaf):
            return self._leaves[view.name]
        whole = sum((self.of(one) for one in view.sources), Fraction())
        if isinstance(view, Slice):
            kept, size = view.dims[view.axis], view.of.dims[view.axis]
            if isinstance(kept, int) and isinstance(size, int) and size:
                return whole * kept / size
        return whole


def _copied_on_the_way_out(graph: GraphView, dying: Sequence[Node], outputs: Shares) -> Fraction:
    shares = dict(outputs)
    copied = Fraction()
    for node in reversed(dying):
        written = sum((shares.get(name, Fraction()) for name in node.outputs), Fraction())
        copied += written if _copies(node) else 0
        for name, share in zip(node.inputs, _divided(graph, node, written), strict=False):
            shares[name] = min(Fraction(1), shares.get(name, Fraction()) + share)
    return copied


def _divided(graph: GraphView, node: Node, share: Fraction) -> list[Fraction]:
    """Returns the shares that the inputs of a movement node hold, given what it yields."""
    if node.op_type != "Concat":
        return [share]
    sizes = []
    for name in node.inputs:
        dims = graph.dims_of(name)
        sizes.append(None if dims is None else dims[node.integer("axis", 0)])
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes) or not sum(known):
        return [share / len(sizes)] * len(sizes)
    return [share * size / sum(known) for size in known]
