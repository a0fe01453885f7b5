"""Which tensors of a graph are movement of its caches, and which movement serves nothing but its results.

Both are found node by node: from the inputs on, as long as a node moves data and does nothing else; from the outputs
back, as long as nobody else reads what is moved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onnxfix.convention.signature import Dim
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.integers import Found, Integers
from onnxfix.surgery.movement import is_movement, outputs_of
from onnxfix.surgery.routes import leaf
from onnxfix.surgery.size import Size
from onnxfix.surgery.view import View

if TYPE_CHECKING:
    from onnxfix.model.graph import GraphView, Node


class Explored(NamedTuple):
    """What is moved out of a cache.

    Attributes:
        known: The view of each tensor that is movement of the cache, the cache's own among them.
        nodes: The nodes that move it, producers first.
        splits: The views that each Split yields.
    """

    known: dict[str, View]
    nodes: dict[Node, None]
    splits: list[list[View]]


class Frontier:
    """Reads movement around the caches of a graph.

    Attributes:
        known: Tensors of the graph that are views of its caches, so far.
        absorbed: The nodes that yield them and are not needed any more.
        made: Tensors that were added, as views.
    """

    def __init__(self, graph: GraphView, views: Views, made: Mapping[str, View]) -> None:
        self.graph = graph
        self.views = views
        self.made = made
        self.known: dict[str, View] = {}
        self.absorbed: dict[Node, None] = {}
        self._constants: dict[str, Found] = {}

    # The way in

    def explore(self, caches: Mapping[str, View]) -> Explored:
        """Follows movement from caches on.

        Args:
            caches: The view of each tensor to begin with, by its name.
        """
        known = dict(caches)
        nodes: dict[Node, None] = {}
        splits: list[list[View]] = []
        queue = list(caches)
        while queue:
            for node in self.graph.consumers(queue.pop(0)):
                found = None if node in nodes else self._moved(node, known)
                if found is None:
                    continue
                nodes[node] = None
                if node.op_type == "Split":
                    splits.append(found)
                fresh = {name: view for name, view in zip(node.outputs, found, strict=True) if name}
                known.update(fresh)
                queue += fresh
        return Explored(known, nodes, splits)

    def _moved(self, node: Node, known: Mapping[str, View]) -> list[View] | None:
        """Returns the views of a movement node's outputs; None for other nodes, and where an input is not known."""
        if not is_movement(node):
            return None
        whole = node.op_type == "Concat"
        inputs = [known.get(name) if whole or index == 0 else None for index, name in enumerate(node.inputs)]
        if inputs[0] is None or (whole and None in inputs):
            return None
        if not whole and any(name in known for name in node.inputs[1:]):
            return None
        return self._read(node, inputs, known)

    # The way out

    def dying(self, outputs: Collection[str]) -> list[Node]:
        """Returns the nodes that serve nothing but some outputs, producers first: movement, and Shapes for it."""
        dying: dict[Node, None] = {}
        queue = [node for name in outputs if (node := self.graph.producer(name)) is not None]
        while queue:
            node = queue.pop(0)
            if node in dying or node in self.absorbed or not self._serves_only(node, outputs, dying):
                continue
            dying[node] = None
            queue += [one for name in node.inputs if (one := self.graph.producer(name)) is not None]
        return list(reversed(dying))

    def _serves_only(self, node: Node, outputs: Collection[str], dying: Mapping[Node, None]) -> bool:
        if not is_movement(node) and node.op_type != "Shape":
            return False
        for name in node.outputs:
            if self.graph.is_output(name) and name not in outputs:
                return False
            if self.graph.capturers(name) or any(reader not in dying for reader in self.graph.consumers(name)):
                return False
        return True

    def above(self, outputs: Iterable[str], joins: Collection[Node] | None = None) -> list[Node]:
        """Returns the movement that some outputs come from, producers first, whoever else reads it.

        Args:
            outputs: The outputs.
            joins: The nodes at which to go on where tensors are put together or taken apart; None for all.
        """

        def is_above(node: Node) -> bool:
            return is_movement(node) and (joins is None or node in joins or node.op_type not in ("Concat", "Split"))

        order: dict[Node, None] = {}
        stack = [node for name in outputs if (node := self.graph.producer(name)) is not None]
        while stack:
            node = stack[-1]
            wanted = [] if node in order or not is_above(node) else [
                one for name in node.inputs if (one := self.graph.producer(name)) is not None and one not in order
                and is_above(one)
            ]  # fmt: skip
            if wanted:
                stack += wanted
                continue
            stack.pop()
            if is_above(node):
                order[node] = None
        return list(order)

    def look(self, nodes: Sequence[Node]) -> tuple[dict[str, View], list[Node]]:
        """Returns the views of what movement nodes yield, producers first, and the nodes that could be read so."""
        found: dict[str, View] = {}
        seen = []
        for node in nodes:
            whole = node.op_type == "Concat"
            inputs = [self._seen(name, found) if whole or not index else None for index, name in enumerate(node.inputs)]
            made = None if inputs[0] is None else self._read(node, inputs, found)
            if made is not None:
                seen.append(node)
                found.update(zip(node.outputs, made, strict=True))
        return found, seen

    # Both

    def _read(self, node: Node, inputs: Sequence[View | None], known: Mapping[str, View]) -> list[View] | None:
        integers = Integers(self.graph, lambda name: self._sizes(name, known), self._constants)
        return outputs_of(node, inputs, self.graph, self.views, integers)

    def _sizes(self, name: str, known: Mapping[str, View]) -> Sequence[Size] | None:
        """Returns the sizes of a tensor, as tokens where they are known at run time only."""
        view = known.get(name) or self._seen(name, known)
        return None if view is None else view.dims

    def _seen(self, name: str, found: Mapping[str, View]) -> View | None:
        for known in (self.known, self.made, found):
            if name in known:
                return known[name]
        dims = self._dims(name)
        return None if dims is None else leaf(name, dims, self.views)

    def _dims(self, name: str) -> tuple[Dim, ...] | None:
        """Returns the dims of a tensor; of a concatenation also from its parts, since inference gives up too early."""
        dims = self.graph.dims_of(name)
        node = self.graph.producer(name)
        if node is None or node.op_type != "Concat":
            return dims
        rows = [row for row in (dims, *map(self._declared, node.inputs)) if row is not None]
        if not rows:
            return None
        axis = node.integer("axis", 0) % len(rows[0])
        merged = [
            next((row[place] for row in rows if isinstance(row[place], int)), None) for place in range(len(rows[0]))
        ]
        merged[axis] = None if dims is None else dims[axis]
        return tuple(merged)

    def _declared(self, name: str) -> tuple[Dim, ...] | None:
        """Returns the dims of a tensor that was emitted, or as the graph has them."""
        made = self.made.get(name)
        return self.graph.dims_of(name) if made is None else made.dims
