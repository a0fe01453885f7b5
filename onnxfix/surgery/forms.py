"""Ports that are no cache in another form: a Cast, a Squeeze, an Unsqueeze, and nothing where they undo each other.

Squeeze and Unsqueeze with the same axes are each other's inverse. A Cast undoes another one if the type between them
holds every value of the type around them, as 64 bits hold 32. Casts and changes of axes trade places freely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxfix.convention.edits import is_wider
from onnxfix.convention.meeting import UnitAxes
from onnxfix.convention.plan import Plan
from onnxfix.model.graph import GraphView, Node
from onnxfix.model.ports import dtype_name, elem_type_of
from onnxfix.surgery.emit import Emitter


@dataclass(frozen=True)
class _Step:
    """One node between two forms of a port.

    Attributes:
        operator: The operator.
        before, after: The element types, of a Cast; empty where it is not known.
        axes: The axes, of any other.
    """

    operator: str
    before: str = ""
    after: str = ""
    axes: tuple[int, ...] = ()

    def emit(self, emitter: Emitter, value: str, name: str) -> str:
        """Adds the node and returns what it produces: a value of this name, any where it is empty."""
        if self.operator == "Cast":
            return emitter.node("Cast", [value], name, to=elem_type_of(self.after))
        return emitter.change_axes(self.operator, value, self.axes, name)

    def is_undone_by(self, other: _Step | None) -> bool:
        """Whether nothing has happened after both."""
        if other is None:
            return False
        if self.operator == "Cast":
            return other.operator == "Cast" and other.after == self.before and is_wider(self.after, self.before)
        return {self.operator, other.operator} == {"Squeeze", "Unsqueeze"} and self.axes == other.axes


class Forms:
    """The forms of a plan's other ports, on one graph.

    Args:
        plan: The plan.
        inner: For the new name of each port that gets another form, the name of the value that has the old form.
    """

    def __init__(self, plan: Plan, inner: Mapping[str, str]) -> None:
        self._plan = plan
        self._inner = inner
        self._inputs = {port.name for port in plan.inputs}

    def add(self, emitter: Emitter, types: Mapping[str, str]) -> None:
        """Adds the nodes behind inputs and before outputs.

        Args:
            emitter: Where the nodes go.
            types: The element types of the values of the old form, by name.
        """
        for name, inner in self._inner.items():
            self._emit(self._steps(name, types), self._ends(name, inner), emitter)

    def add_cancelled(self, graph: GraphView, emitter: Emitter, types: Mapping[str, str]) -> None:
        """Adds the nodes but for those that undo what the graph does, which goes as well."""
        for name, inner in self._inner.items():
            steps = self._steps(name, types)
            if name in self._inputs:
                _cancel_behind(graph, self._emit(_as_read(graph, inner, steps), (name, inner), emitter))
                continue
            value, steps = _as_made(graph, inner, steps)
            if steps or not _can_be_renamed(graph, value):
                self._emit(steps, (value, name), emitter)
            else:
                graph.rename({value: name})

    def _ends(self, name: str, inner: str) -> tuple[str, str]:
        return (name, inner) if name in self._inputs else (inner, name)

    def _steps(self, name: str, types: Mapping[str, str]) -> list[_Step]:
        """Returns the way from an input to its old form, or from an output's old form to the output.

        The Cast is next to the old form: one that loses values stays for good, and the axes still meet on the way back.
        """
        axes = self._plan.unit_axes.get(name, UnitAxes())
        old = types.get(self._inner[name], "")
        kinds = (old, self._plan.casts.get(name, old))
        if name in self._inputs:
            axes, kinds = axes.inverse(), kinds[::-1]
        casts = [_Step("Cast", *kinds)] if kinds[0] != kinds[1] else []
        steps = [_Step("Squeeze", axes=axes.lost)] if axes.lost else []
        steps += [_Step("Unsqueeze", axes=axes.gained)] if axes.gained else []
        return steps + casts if name in self._inputs else casts + steps

    def _emit(self, steps: Sequence[_Step], ends: tuple[str, str], emitter: Emitter) -> list[tuple[_Step, str, str]]:
        """Adds the nodes from one value to the other; returns for each step what it reads and what it makes."""
        value, end = ends
        made = []
        for number, step in enumerate(steps, 1):
            before, value = value, step.emit(emitter, value, end if number == len(steps) else "")
            made.append((step, before, value))
        if not steps:
            emitter.node("Identity", [value], end)
        return made


def _next_steps(steps: Sequence[_Step], *, last: bool) -> list[_Step]:
    """Returns the steps that may come first, or last: the Cast, and the first or last change of axes."""
    casts = [step for step in steps if step.operator == "Cast"]
    others = [step for step in steps if step.operator != "Cast"]
    return casts + (others[-1:] if last else others[:1])


def _as_read(graph: GraphView, inner: str, steps: Sequence[_Step]) -> list[_Step]:
    """Returns the steps to an input's old form in the order in which what reads it undoes them, last one first."""
    left, undone = list(steps), list[_Step]()
    values = [inner]
    while left:
        readers = [node for value in values for node in graph.consumers(value)]
        found = [(node.outputs[0], _step_of(graph, node)) for node in readers]
        hits = [step for step in _next_steps(left, last=True) if any(step.is_undone_by(one) for _, one in found)]
        if not hits:
            break
        hit = hits[0]
        values = [output for output, one in found if hit.is_undone_by(one)]
        left.remove(hit)
        undone.insert(0, hit)
    return left + undone


def _cancel_behind(graph: GraphView, made: Sequence[tuple[_Step, str, str]]) -> None:
    """Lets whoever undoes the last steps behind an input read what was there before them."""
    for step, before, after in reversed(made):
        for node in graph.consumers(after):
            if step.is_undone_by(_step_of(graph, node)):
                graph.replace_uses(node.outputs[0], before)
                graph.remove_dead([node.outputs[0]])


def _as_made(graph: GraphView, inner: str, steps: Sequence[_Step]) -> tuple[str, list[_Step]]:
    """Returns the value from which an output's new form is made, with fewer steps than from the old one."""
    value, left = inner, list(steps)
    while (producer := graph.producer(value)) is not None and (made := _step_of(graph, producer)) is not None:
        hit = next((step for step in _next_steps(left, last=False) if made.is_undone_by(step)), None)
        if hit is None:
            break
        left.remove(hit)
        value = producer.inputs[0]
    return value, left


def _can_be_renamed(graph: GraphView, value: str) -> bool:
    """Whether a value may become an output as it is: it is no port yet."""
    return graph.producer(value) is not None and not graph.is_output(value)


def _step_of(graph: GraphView, node: Node) -> _Step | None:
    """Returns what a node of the graph does, if it can be one of these steps."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Cast", "Squeeze", "Unsqueeze"):
        return None
    port = graph.type_of(node.inputs[0])
    if node.op_type == "Cast":
        return _Step("Cast", port.dtype if port else "", dtype_name(node.integer("to", 0)))
    axes = node.integers("axes")
    if len(node.inputs) > 1:
        known = graph.constant(node.inputs[1])
        axes = None if known is None else tuple(int(axis) for axis in known.reshape(-1))
    if axes is None:
        return None
    if min(axes, default=0) < 0:
        if port is None or port.rank is None:
            return None
        rank = port.rank + (len(axes) if node.op_type == "Unsqueeze" else 0)
        axes = tuple(axis % rank for axis in axes)
    return _Step(node.op_type, axes=tuple(sorted(axes)))
