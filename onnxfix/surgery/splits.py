"""Which axes of a cache a graph takes apart by Split rather than by Slices.

Exporters write either: WeNet Split before its pull request 2481, and Slices since. What remembers it can have Splits
again on the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxfix.convention.route import Split, Stack
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.frontier import Frontier
from onnxfix.surgery.routes import leaves_of
from onnxfix.surgery.view import Bound, Leaf, Move, Slice, View

if TYPE_CHECKING:
    from onnxfix.convention.route import Labels, Route
    from onnxfix.model.graph import GraphView


def split_axes(graph: GraphView, route: Route) -> set[str]:
    """Returns the axes that a graph takes apart by Split, of the old inputs of one cache."""
    frontier = Frontier(graph, Views(), {})
    found = frontier.explore(leaves_of(route.source, frontier.views))
    counts = {step.axis: len(step.labels) for step in route.steps if isinstance(step, Split | Stack)}
    items = {block.name: block.layout.items for block in route.source}
    axes = set()
    for parts in found.splits:
        if (division := _division(parts)) is not None:
            name, dim, divisor = division
            axes.add(_axis(items[name][dim], counts, divisor, len(parts)))
    return axes - {""}


def _division(parts: Sequence[View]) -> tuple[str, int, int] | None:
    """Returns the port and the dim that a Split divides evenly, and how many such parts the whole port has."""
    cuts = [part.of if isinstance(part, Move) else part for part in parts]
    chains = [_cuts(cut) for cut in cuts]
    port, first = chains[0]
    if any(one is not port for one, _ in chains) or not isinstance(port, Leaf):
        return None
    dims = [dim for dim in first if len({cuts.get(dim) for _, cuts in chains}) > 1]
    if len(dims) != 1:
        return None
    whole, sizes = port.dims[dims[0]], {cut.dims[dims[0]] for cut in cuts}
    size = sizes.pop()
    if sizes or not isinstance(whole, int) or not isinstance(size, int) or not size or whole % size:
        return None
    return port.name, dims[0], whole // size


def _cuts(view: View) -> tuple[View, dict[int, tuple[Bound, Bound]]]:
    """Returns what a chain of slices is cut from, and the bounds by dim."""
    cuts = {}
    while isinstance(view, Slice):
        cuts[view.axis] = (view.start, view.stop)
        view = view.of
    return view, cuts


def _axis(item: Sequence[str], counts: Mapping[str, int], divisor: int, count: int) -> str:
    """Returns the axis of a dim that makes `count` out of every part of it; empty if there is none.

    Slow axes come first: the dim falls into `divisor` parts when that axis and all slower ones are taken apart.
    """
    product = 1
    for axis in item:
        product *= counts.get(axis, 0)
        if product == divisor and counts[axis] == count:
            return axis
    return ""


def together(route: Route, views: Mapping[str, View], axes: Iterable[str]) -> list[list[View]]:
    """Returns the old inputs that differ only in one of some axes.

    Args:
        route: From the old inputs of a cache to the new ones.
        views: Each old input, by its name.
        axes: The axes.
    """
    groups: dict[tuple[str, Labels], list[View]] = {}
    for axis in axes:
        for block in sorted(route.source, key=lambda block: block.labels):
            if axis in dict(block.labels):
                rest = tuple(entry for entry in block.labels if entry[0] != axis)
                groups.setdefault((axis, rest), []).append(views[block.name])
    return list(groups.values())
