"""Cancels what a conversion adds at the boundary against what the graph does with its caches.

Every tensor near the boundary is known as a `View` of the new ports. On the way in, movement nodes that read a cache
are followed until something else reads their result; that reader gets the smallest expression of the same view. On the
way out, movement nodes that serve nothing but the old outputs are looked through, and each new output is the smallest
expression over what they read. `Shape` of a cache is asked of a part that has the same size. What is left without a
reader is removed.

What is not followed, and keeps its adapter: a cache that a nested graph (`If`, `Loop`) captures, one that an operator
other than movement reads whole, one whose whole `Shape` is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnxfix.convention.signature import Dim
from onnxfix.errors import RewriteError
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.emit import Counter as NodeCounter
from onnxfix.surgery.emit import Emitter
from onnxfix.surgery.extents import is_question, reroot
from onnxfix.surgery.movement import is_movement, outputs_of
from onnxfix.surgery.pattern import Size
from onnxfix.surgery.routes import leaf
from onnxfix.surgery.view import Join, Leaf, View

if TYPE_CHECKING:
    from onnxfix.model.graph import GraphView, Node


class Canceller:
    """Knows tensors of a graph as views of its new ports.

    Attributes:
        fired: How many nodes of the graph were taken into views, by operator.
        refused: Why an adapter stays, one sentence each.
        split: The ports that the graph took from one Split each, in its order.
    """

    def __init__(self, graph: GraphView, views: Views, emitter: Emitter) -> None:
        self.graph = graph
        self.views = views
        self.emitter = emitter
        self.fired: Counter[str] = Counter()
        self.refused: list[str] = []
        self.split: list[tuple[str, ...]] = []
        self._known: dict[str, View] = {}
        self._absorbed: dict[Node, None] = {}
        self._renamed: list[str] = []

    @property
    def absorbed(self) -> list[str]:
        """The outputs of nodes that were taken into views, and of re-rooted Shapes: dead unless something reads on."""
        return [name for node in self._absorbed for name in node.outputs if name]

    # The way in

    def follow(
        self, caches: Mapping[str, View], shown: Mapping[str, str], together: Sequence[Sequence[View]] = ()
    ) -> None:
        """Replaces a cache, and what is moved out of it, by the smallest expressions of the same content.

        Args:
            caches: The view of each old input of one cache, by the name that it has in the graph now.
            shown: The names that users know them by.
            together: Old inputs that shall come from one Split, where they can.
        """
        known, absorbed, found = self._explore(caches)
        splits = [*together, *found]
        for parts in splits:
            self.emitter.prefer_split(parts)
        needed = [view for name, view in known.items() if self._readers(name, absorbed)]
        cost = self._cost(needed, splits)
        if cost is None or cost - len(absorbed) > (self._cost(caches.values()) or 0):
            known, absorbed = dict(caches), {}
        names = [tuple(part.name for part in parts if isinstance(part, Leaf)) for parts in found]
        self.split += [
            leaves for leaves, parts in zip(names, found, strict=True) if absorbed and len(leaves) == len(parts)
        ]
        self._known.update(known)
        self._absorbed.update(absorbed)
        self.fired.update(node.op_type for node in absorbed)
        for name in known:
            self._serve(name, shown)
        for name in [*known, *self._renamed]:
            self._serve_shapes(name, shown)

    def _explore(self, caches: Mapping[str, View]) -> tuple[dict[str, View], dict[Node, None], list[list[View]]]:
        """Returns the tensors that are movement of the caches, the nodes that move them, and what Splits yield."""
        known = dict(caches)
        absorbed: dict[Node, None] = {}
        splits: list[list[View]] = []
        queue = list(caches)
        while queue:
            for node in self.graph.consumers(queue.pop(0)):
                found = None if node in absorbed else self._moved(node, known)
                if found is None:
                    continue
                absorbed[node] = None
                if node.op_type == "Split":
                    splits.append(found)
                fresh = {name: view for name, view in zip(node.outputs, found, strict=True) if name}
                known.update(fresh)
                queue += fresh
        return known, absorbed, splits

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

    def _read(self, node: Node, inputs: Sequence[View | None], known: Mapping[str, View]) -> list[View] | None:
        return outputs_of(node, inputs, self.graph, self.views, lambda name: self._sizes(name, known))

    def _sizes(self, name: str, known: Mapping[str, View]) -> Sequence[Size] | None:
        """Returns the sizes of a tensor, as tokens where they are known at run time only."""
        view = known.get(name) or self._seen(name, known)
        return None if view is None else view.dims

    def _cost(self, views: Iterable[View], splits: Iterable[Sequence[View]] = ()) -> int | None:
        """Returns how many nodes it takes to make tensors of these views; None where the opset cannot say it."""
        counter = NodeCounter(self.graph)
        emitter = Emitter(counter, self.views)
        for parts in splits:
            emitter.prefer_split(parts)
        try:
            for view in views:
                emitter.tensor(view)
        except RewriteError:
            return None
        return counter.nodes

    def _readers(self, name: str, absorbed: Mapping[Node, None]) -> list[Node]:
        """Returns the nodes that need a tensor as it is: all that read it but movement, and Shape or Size."""
        direct = [node for node in self.graph.consumers(name) if node not in absorbed and not is_question(node)]
        return [*direct, *self.graph.capturers(name)]

    def _serve(self, name: str, shown: Mapping[str, str]) -> None:
        """Gives the readers of a known tensor that are no movement a tensor of the same content."""
        view = self._known[name]
        readers = [node for node in self._readers(name, self._absorbed) if name in node.inputs]
        captured = self.graph.capturers(name)
        if self.graph.is_output(name):
            self.graph.rename({name: (inner := self.graph.fresh_name(f"{name}_inner"))})
            self._known[inner] = view
            self.emitter.tensor(view, name)
            self._renamed.append(inner)
            name = inner
        if not readers and not captured:
            return
        if name in shown and _has_join(view):
            whom = "a nested graph" if captured else ", ".join(sorted({node.op_type for node in readers}))
            self.refused.append(f"{shown[name]} is read whole by {whom}")
        made = self.emitter.tensor(view)
        if captured:
            self.graph.replace_uses(name, made)
            return
        for node in readers:
            for index, one in enumerate(node.inputs):
                if one == name:
                    self.graph.set_input(node, index, made)

    # Sizes

    def _serve_shapes(self, name: str, shown: Mapping[str, str]) -> None:
        view = self._known[name]
        for node in self.graph.consumers(name):
            if not is_question(node) or node in self._absorbed or self._serves_absorbed(node):
                continue
            if reroot(self.graph, node, view, self.emitter.existing(view)):
                self._absorbed[node] = None
                self.fired[node.op_type] += 1
            else:
                self.refused.append(f"the whole shape of {shown.get(name, name)} is needed")
                self.graph.set_input(node, 0, self.emitter.tensor(view))

    def _serves_absorbed(self, node: Node) -> bool:
        """Whether absorbed nodes, and nothing else, need what a node yields: then it goes with them."""
        if any(self.graph.is_output(name) or self.graph.capturers(name) for name in node.outputs):
            return False
        readers = [one for name in node.outputs for one in self.graph.consumers(name)]
        return bool(readers) and all(one in self._absorbed or self._serves_absorbed(one) for one in readers)

    # The way out

    def look_through(
        self, outputs: Mapping[str, View], plan: Callable[[Mapping[str, View]], dict[str, View]]
    ) -> dict[str, View]:
        """Returns the views of a cache's new outputs over what stays in the graph anyway.

        Args:
            outputs: The old outputs of one cache as leaves, by the name that they have in the graph now.
            plan: Makes the new outputs of the old ones.
        """
        dying = self._dying(outputs)
        gone = sum(map(is_movement, dying))
        best, fired = plan(outputs), []
        least = self._cost(best.values()) or 0
        # What others read, too, can be looked through as well, but it stays and may be the better source.
        for nodes, slack in ((dying, 0), (self._above(outputs), -1)):
            found, seen = self._look(nodes)
            through = plan({name: self._known.get(name) or found.get(name) or view for name, view in outputs.items()})
            cost = self._cost(through.values())
            if cost is not None and cost - gone <= least + slack:
                best, fired, least = through, seen, cost - gone
        self.fired.update(node.op_type for node in fired if node in dying and node.outputs[0] not in self.emitter.made)
        return best

    def _look(self, nodes: Sequence[Node]) -> tuple[dict[str, View], list[Node]]:
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

    def _above(self, outputs: Iterable[str]) -> list[Node]:
        """Returns the movement that the old outputs come from, producers first, whoever else reads it."""
        order: dict[Node, None] = {}
        stack = [node for name in outputs if (node := self.graph.producer(name)) is not None]
        while stack:
            node = stack[-1]
            wanted = [] if node in order or not is_movement(node) else [
                one for name in node.inputs if (one := self.graph.producer(name)) is not None and one not in order
                and is_movement(one)
            ]  # fmt: skip
            if wanted:
                stack += wanted
                continue
            stack.pop()
            if is_movement(node):
                order[node] = None
        return list(order)

    def _seen(self, name: str, found: Mapping[str, View]) -> View | None:
        for known in (self._known, self.emitter.made, found):
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
        made = self.emitter.made.get(name)
        return self.graph.dims_of(name) if made is None else made.dims

    def _dying(self, outputs: Mapping[str, View]) -> list[Node]:
        """Returns the nodes that serve nothing but the old outputs, producers first: movement, and Shapes for it."""
        dying: dict[Node, None] = {}
        queue = [node for name in outputs if (node := self.graph.producer(name)) is not None]
        while queue:
            node = queue.pop(0)
            if node in dying or node in self._absorbed or not self._serves_only(node, outputs, dying):
                continue
            dying[node] = None
            queue += [one for name in node.inputs if (one := self.graph.producer(name)) is not None]
        return list(reversed(dying))

    def _serves_only(self, node: Node, outputs: Mapping[str, View], dying: Mapping[Node, None]) -> bool:
        if not is_movement(node) and node.op_type != "Shape":
            return False
        for name in node.outputs:
            if self.graph.is_output(name) and name not in outputs:
                return False
            if self.graph.capturers(name) or any(reader not in dying for reader in self.graph.consumers(name)):
                return False
        return True


def _has_join(view: View) -> bool:
    return isinstance(view, Join) or any(_has_join(one) for one in view.sources)
