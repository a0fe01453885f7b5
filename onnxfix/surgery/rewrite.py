"""Carries a plan out on a graph: new ports, and no more nodes between them and the old caches than are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from onnxfix.convention.plan import CachePlan, Plan
from onnxfix.convention.route import Route
from onnxfix.errors import RewriteError
from onnxfix.model.garbage import collection_paused
from onnxfix.model.graph import GraphView
from onnxfix.model.model import Model
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.cancel import Canceller
from onnxfix.surgery.copies import Copies, copied_by_adapters, copied_by_graph, total
from onnxfix.surgery.emit import Counter, Emitter
from onnxfix.surgery.forms import Forms
from onnxfix.surgery.routes import leaf, leaves_of, route_views
from onnxfix.surgery.splits import split_axes, together
from onnxfix.surgery.view import Leaf, View


@dataclass(frozen=True)
class SurgeryReport:
    """What was done to a graph.

    Attributes:
        nodes_before: The nodes of the main graph before.
        nodes_adapters: How many there would be with adapters at the boundary and nothing cancelled.
        nodes_after: The nodes of the main graph now.
        fired: Nodes of the graph that were cancelled or re-rooted, by operator.
        refused: Why an adapter stays, one sentence each.
        splits: The axes that the graph had taken apart by Split rather than by Slices: what remembers this can have
            them so again on the way back.
        copies: How much of the caches is copied in each step.
    """

    nodes_before: int
    nodes_adapters: int
    nodes_after: int
    fired: Mapping[str, int]
    refused: tuple[str, ...]
    splits: tuple[str, ...]
    copies: Copies


@collection_paused()
def rewrite(
    model: Model, plan: Plan, *, cancel: bool = True, splits: Sequence[str] = (), graph: GraphView | None = None
) -> SurgeryReport:
    """Changes the boundary of a model as planned.

    Args:
        model: The model; its proto is changed in place.
        plan: What to change. It was made for the ports that the model has.
        cancel: Whether to cancel adapters against the graph.
        splits: Axes to take apart by Split rather than by Slices.
        graph: The model's graph with its types inferred, where somebody has it already.

    Raises:
        RewriteError: An operator is missing in the model's opset. The model is as it was then.
    """
    if graph is None:
        graph = GraphView(model)
        graph.infer_shapes()
    try:
        report = _Surgery(graph, plan).run(cancel, splits)
    except RewriteError as error:
        if not cancel:
            raise
        # Nothing was committed. What cannot be cancelled, or is no shorter for it, keeps its adapters.
        report = replace(_Surgery(GraphView(model), plan).run(False, ()), refused=(error.message,))
    for key, value in plan.metadata.items():
        model.set_metadata(key, value)
    return report


class _Surgery:
    def __init__(self, graph: GraphView, plan: Plan) -> None:
        self.graph = graph
        self.plan = plan
        self.views = Views()
        self.before = len(graph.nodes)
        self.changed = [cache for cache in plan.caches if not all(route.is_rename for route in cache.routes)]
        self.past = [cache.past for cache in plan.caches if not cache.past.is_rename]
        self.present = [cache.present for cache in plan.caches if cache.present and not cache.present.is_rename]
        # Old port name -> the name that the value has inside the graph from now on.
        self.inner: dict[str, str] = {}
        # Other ports that get another form: new name -> the name of the value of the old form.
        self.formed: dict[str, str] = {}

    def rename(self) -> None:
        """Gives ports their new names and those that change an inner one, all at once: names may trade places."""
        names = dict(self.plan.renames)
        for cache in self.plan.caches:
            for route in cache.routes:
                names |= route.renames if route.is_rename else {}
        for route in (*self.past, *self.present):
            for block in route.source:
                self.inner[block.name] = self.graph.fresh_name(f"{block.name}_inner")
        old_names = {new: old for old, new in names.items()}
        for name in (*self.plan.casts, *(name for name in self.plan.unit_axes if name not in self.plan.casts)):
            inner = self.graph.fresh_name(f"{name}_inner")
            self.inner[old_names.get(name, name)] = self.formed[name] = inner
        added = {block.name for route in (*self.past, *self.present) for block in route.target}
        names |= self._making_way({*added, *names.values()} - {*names, *self.inner})
        self.graph.rename({**names, **self.inner})

    def _making_way(self, names: set[str]) -> dict[str, str]:
        """Returns other names for values inside the graph that bear the name of a new port."""
        return {name: self.graph.fresh_name(f"{name}_inner") for name in sorted(names) if self.graph.has_value(name)}

    def run(self, cancel: bool, splits: Sequence[str]) -> SurgeryReport:
        """Edits the graph and commits.

        Raises:
            RewriteError: It cannot be done, or cancelling makes the graph longer. Nothing was committed.
        """
        axes = {axis for route in self.past for axis in split_axes(self.graph, route)}
        before = [self._copied(cache, after=False) for cache in self.changed]
        self.rename()
        types = {name: port.dtype for name in self.formed.values() if (port := self.graph.type_of(name)) is not None}
        self.graph.set_inputs(self.plan.inputs)
        emitter = Emitter(self.graph, self.views)
        canceller = Canceller(self.graph, self.views, emitter)
        past = [self._past_views(route) for route in self.past]
        adapters = self._count_adapters(past, types)
        shown = {inner: old for old, inner in self.inner.items()}
        for route, caches in zip(self.past, past, strict=True):
            if cancel:
                old = {block.name: caches[self.inner[block.name]] for block in route.source}
                canceller.follow(caches, shown, together(route, old, splits))
                continue
            for name, view in caches.items():
                self.graph.replace_uses(name, emitter.tensor(view))
        outputs: dict[str, View] = {}
        for route in self.present:
            leaves = self._present_leaves(route)
            plan = partial(self._present_views, route)
            outputs |= canceller.look_through(leaves, plan) if cancel else plan(leaves)
        self._make_outputs(outputs, emitter)
        forms = Forms(self.plan, self.formed)
        if cancel:
            forms.add_cancelled(self.graph, emitter, types)
        else:
            forms.add(emitter, types)
        self.graph.set_outputs(self.plan.outputs)
        self.graph.remove_dead([*self.inner.values(), *canceller.absorbed])
        if cancel and len(self.graph.nodes) > adapters:
            raise RewriteError("cancelling the adapters would take more nodes than they do")
        copies = self._copies(before)
        self.graph.commit()
        fired = dict(sorted(canceller.fired.items()))
        return SurgeryReport(
            self.before,
            adapters,
            len(self.graph.nodes),
            fired,
            tuple(canceller.refused),
            tuple(sorted(axes)),
            copies,
        )

    def _copied(self, cache: CachePlan, *, after: bool) -> Fraction:
        """Returns how many times the graph copies a cache in each step."""
        routes = [(cache.past, cache.present), (cache.past.inverse(), cache.present and cache.present.inverse())]
        past, present = routes[after]
        views = self.views if after else Views()
        return copied_by_graph(self.graph, views, past.source, present.source if present else ())

    def _copies(self, before: Sequence[Fraction]) -> Copies:
        """Returns the bytes that are copied in each step, given how many times the graph copied each cache before."""
        dtypes = {port.name: port.dtype for port in self.plan.inputs}
        adapters = [
            times + copied_by_adapters(cache.past.inverse(), self.views) + self._copied_behind(cache)
            for times, cache in zip(before, self.changed, strict=True)
        ]
        after = [self._copied(cache, after=True) for cache in self.changed]
        routes = [cache.past for cache in self.changed]
        return Copies(*(total(zip(routes, times, strict=True), dtypes) for times in (before, adapters, after)))

    def _copied_behind(self, cache: CachePlan) -> Fraction:
        return Fraction() if cache.present is None else copied_by_adapters(cache.present, Views(), cache.past)

    def _past_views(self, route: Route) -> dict[str, View]:
        """Returns the old inputs of a cache as views of the new ones, by the inner names of the old."""
        made = route_views(route.inverse(), leaves_of(route.target, self.views), self.views)
        return {self.inner[name]: view for name, view in made.items()}

    def _present_leaves(self, route: Route) -> dict[str, View]:
        """Returns the old outputs of a cache as leaves, by their inner names; dims as declared, for lack of better."""
        return {name: leaf(name, block.dims, self.views) for block in route.source for name in [self.inner[block.name]]}

    def _present_views(self, route: Route, leaves: Mapping[str, View]) -> dict[str, View]:
        """Returns the new outputs of a cache, given the old ones by their inner names."""
        return route_views(route, {block.name: leaves[self.inner[block.name]] for block in route.source}, self.views)

    def _count_adapters(self, past: Iterable[Mapping[str, View]], types: Mapping[str, str]) -> int:
        counter = Counter(self.graph)
        emitter = Emitter(counter, self.views)
        for caches in past:
            for view in caches.values():
                emitter.tensor(view)
        for route in self.present:
            for name, view in self._present_views(route, self._present_leaves(route)).items():
                emitter.tensor(view, name)
        Forms(self.plan, self.formed).add(emitter, types)
        return self.before + counter.nodes

    def _make_outputs(self, outputs: Mapping[str, View], emitter: Emitter) -> None:
        """Gives every new output its name: to the node that makes it, to the value that it is, or to an Identity."""
        renamed: dict[str, str] = {}
        ports = {port.name for port in (*self.plan.inputs, *self.graph.outputs)} - set(self.inner.values())
        for name, view in outputs.items():
            if (
                isinstance(view, Leaf)
                and view.name not in ports
                and view.name not in renamed
                and self.graph.producer(view.name)
            ):
                renamed[view.name] = name
            else:
                emitter.tensor(view, name)
        self.graph.rename(renamed)
