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

from onnxfix.errors import RewriteError
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.emit import Counter as NodeCounter
from onnxfix.surgery.emit import Emitter
from onnxfix.surgery.extents import is_question, reroot
from onnxfix.surgery.frontier import Frontier
from onnxfix.surgery.movement import is_movement
from onnxfix.surgery.view import Join, View

if TYPE_CHECKING:
    from onnxfix.model.graph import GraphView, Node


class Canceller:
    """Knows tensors of a graph as views of its new ports.

    Attributes:
        fired: How many nodes of the graph were taken into views, by operator.
        refused: Why an adapter stays, one sentence each.
    """

    def __init__(self, graph: GraphView, views: Views, emitter: Emitter) -> None:
        self.graph = graph
        self.views = views
        self.emitter = emitter
        self.fired: Counter[str] = Counter()
        self.refused: list[str] = []
        self.frontier = Frontier(graph, views, emitter.made)
        self._renamed: list[str] = []

    @property
    def absorbed(self) -> list[str]:
        """The outputs of nodes that were taken into views, and of re-rooted Shapes: dead unless something reads on."""
        return [name for node in self.frontier.absorbed for name in node.outputs if name]

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
        known, absorbed, found = self.frontier.explore(caches)
        splits = [*together, *found]
        for parts in splits:
            self.emitter.prefer_split(parts)
        needed = [view for name, view in known.items() if self._readers(name, absorbed)]
        cost = self._cost(needed, splits)
        if cost is None or cost - len(absorbed) > (self._cost(caches.values()) or 0):
            known, absorbed = dict(caches), {}
        self.frontier.known.update(known)
        self.frontier.absorbed.update(absorbed)
        self.fired.update(node.op_type for node in absorbed)
        for name in known:
            self._serve(name, shown)
        # What is made for one of them may be cut at bounds that are computed from the size of another.
        is_served = True
        while is_served:
            is_served = False
            for name in [*known, *self._renamed]:
                is_served |= self._serve_shapes(name, shown)

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
        view = self.frontier.known[name]
        readers = [node for node in self._readers(name, self.frontier.absorbed) if name in node.inputs]
        captured = self.graph.capturers(name)
        if self.graph.is_output(name):
            self.graph.rename({name: (inner := self.graph.fresh_name(f"{name}_inner"))})
            self.frontier.known[inner] = view
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

    def _serve_shapes(self, name: str, shown: Mapping[str, str]) -> bool:
        """Lets those that ask for the size of a known tensor ask others; says whether there were any."""
        view = self.frontier.known[name]
        served = False
        for node in self.graph.consumers(name):
            if not is_question(node) or node in self.frontier.absorbed or self._serves_absorbed(node):
                continue
            served = True
            if reroot(self.graph, node, view, self.emitter.existing(view)):
                self.frontier.absorbed[node] = None
                self.fired[node.op_type] += 1
            else:
                self.refused.append(f"the whole shape of {shown.get(name, name)} is needed")
                self.graph.set_input(node, 0, self.emitter.tensor(view))
        return served

    def _serves_absorbed(self, node: Node) -> bool:
        """Whether absorbed nodes, and nothing else, need what a node yields: then it goes with them."""
        if any(self.graph.is_output(name) or self.graph.capturers(name) for name in node.outputs):
            return False
        readers = [one for name in node.outputs for one in self.graph.consumers(name)]
        return bool(readers) and all(one in self.frontier.absorbed or self._serves_absorbed(one) for one in readers)

    # The way out

    def look_through(
        self, outputs: Mapping[str, View], plan: Callable[[Mapping[str, View]], dict[str, View]]
    ) -> dict[str, View]:
        """Returns the views of a cache's new outputs over what stays in the graph anyway.

        Args:
            outputs: The old outputs of one cache as leaves, by the name that they have in the graph now.
            plan: Makes the new outputs of the old ones.
        """
        dying = self.frontier.dying(outputs)
        gone = sum(map(is_movement, dying))
        best, fired = plan(outputs), []
        least = self._cost(best.values()) or 0
        # What others read, too, can be looked through as well, but it stays and may be the better source.
        near, far = self.frontier.above(outputs, frozenset(dying)), self.frontier.above(outputs)
        tried: list[set[Node]] = []
        for nodes, slack in ((dying, 0), (far, -1), (near, -1)):
            if set(nodes) in tried or least + gone == 0:  # it takes no node at all
                continue
            tried.append(set(nodes))
            found, seen = self.frontier.look(nodes)
            through = plan(
                {name: self.frontier.known.get(name) or found.get(name) or view for name, view in outputs.items()}
            )
            cost = self._cost(through.values())
            if cost is not None and cost - gone <= least + slack:
                best, fired, least = through, seen, cost - gone
        self.fired.update(node.op_type for node in fired if node in dying and node.outputs[0] not in self.emitter.made)
        return best


def _has_join(view: View) -> bool:
    return isinstance(view, Join) or any(_has_join(one) for one in view.sources)
