"""Simplification by onnxsim, of which no more is taken than what was asked for.

onnxsim works on a skeleton without weights: weights that it cannot see it would take for equal, and merge. Only its
passes that fold constants and remove dead and duplicate nodes run; those that fuse make dynamic graphs larger. The
result is read as a list of edits (which nodes to drop, which inputs to rewire, which constants to add), and these are
made on the model itself. So all that onnxsim loses on its way (docs, metadata, dims of ports) is still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from onnxfix.convention.signature import Dim
from onnxfix.errors import RewriteError, SimplifyError
from onnxfix.model.external import graphs_of
from onnxfix.model.garbage import collection_paused
from onnxfix.model.graph import GraphView
from onnxfix.model.model import Model
from onnxfix.model.ports import dims_of
from onnxfix.model.shapes import infer_shapes
from onnxfix.model.skeleton import is_weight, is_weight_node
from onnxfix.surgery.merge import Merge
from onnxfix.surgery.simplifier import first_line, run_onnxsim
from onnxfix.surgery.veil import Veil

_ROUNDS = 8


@dataclass(frozen=True)
class SimplifyReport:
    """What simplification did.

    Attributes:
        nodes_before: Nodes of the model, nested ones included.
        nodes_after: Nodes afterwards.
        is_taken: Whether the model was changed.
        reason: Why it could not be simplified; empty where it was, and where there is nothing to simplify.
        graph: The model's graph with its types inferred, for who goes on with it; None where that is not known.
    """

    nodes_before: int
    nodes_after: int
    is_taken: bool
    reason: str = ""
    graph: GraphView | None = field(default=None, repr=False, compare=False)


@collection_paused()
def simplify(model: Model) -> SimplifyReport:
    """Folds constants, and removes dead and duplicate nodes, in place.

    Ports, metadata, docs, functions and external data stay as they are, as do nodes that remain. What cannot be
    simplified is left alone, and the report says why. Simplifying the result again changes nothing.
    """
    before = sum(1 for _ in _nodes(model.proto.graph))
    try:
        is_taken, graph = _simplify(model)
    except (SimplifyError, RewriteError) as error:
        return SimplifyReport(before, before, False, error.message)
    return SimplifyReport(before, sum(1 for _ in _nodes(model.proto.graph)), is_taken, graph=graph)


def _simplify(model: Model) -> tuple[bool, GraphView | None]:
    """Changes the model; returns whether there was anything to change, and its graph where the types are known.

    Raises:
        SimplifyError: onnxsim cannot do it. The model is as it was.
        RewriteError: onnxsim's result lacks a value. The model is as it was.
    """
    if model.proto.training_info:
        raise SimplifyError("the model has training graphs, which may refer to any of its values")
    skeleton = model.skeleton().proto
    del skeleton.metadata_props[:]
    _raise_ir_version(skeleton)
    simplified, inferred = _until_stable(skeleton)
    graph = GraphView(model)
    is_taken = simplified is not skeleton
    if is_taken:
        Merge(graph, skeleton.graph, simplified.graph).run()
    if inferred is None:
        return is_taken, None
    graph.take_types(inferred.graph)
    return is_taken, graph


def _raise_ir_version(skeleton: onnx.ModelProto) -> None:
    """Lets a skeleton of the oldest format have initializers that are no inputs, as onnxsim needs to add some."""
    if skeleton.ir_version >= 4:
        return
    skeleton.ir_version = 4
    valued = {tensor.name for tensor in skeleton.graph.initializer}
    ports = [port for port in skeleton.graph.input if port.name not in valued]
    del skeleton.graph.input[:]
    skeleton.graph.input.extend(ports)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for nested in graphs_of(node):
            yield from _nodes(nested)


def _computing(model: onnx.ModelProto) -> int:
    """Counts the nodes without constants, which may be nodes or initializers."""
    return sum(node.op_type != "Constant" for node in _nodes(model.graph))


def _until_stable(skeleton: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto | None]:
    """Runs onnxsim until it finds nothing more.

    Returns:
        What it made, or the argument itself where it found nothing at all; and the same with its types inferred, but
        for nodes that were veiled. None where there might be more to find.

    Raises:
        SimplifyError: onnxsim failed, changed the outputs, or wrote out a large constant.
    """
    outputs = [value.name for value in skeleton.graph.output]
    veil = Veil(skeleton)
    current, told = skeleton, None
    for _ in range(_ROUNDS):
        inferred = _inferred(current)
        before, told = told, _dims(inferred.graph)
        if before is not None and not _is_news(told, before):
            return current, inferred
        veil.draw(inferred)
        simplified = run_onnxsim(inferred)
        veil.lift(simplified)
        if _computing(simplified) >= _computing(current):
            return current, inferred
        if [value.name for value in simplified.graph.output] != outputs:
            raise SimplifyError("onnxsim changed the outputs")
        if any(map(is_weight, simplified.graph.initializer)) or any(map(is_weight_node, simplified.graph.node)):
            raise SimplifyError("onnxsim wrote out a large constant")
        current = simplified
        # The next round infers afresh, from what the model itself declares.
        del current.graph.value_info[:]
        current.graph.value_info.extend(skeleton.graph.value_info)
    return current, None


def _dims(graph: onnx.GraphProto) -> dict[str, tuple[Dim, ...] | None]:
    return {v.name: dims_of(v.type) for values in (graph.value_info, graph.output, graph.input) for v in values}


def _is_news(told: Mapping[str, Sequence[Dim] | None], before: Mapping[str, Sequence[Dim] | None]) -> bool:
    """Says whether a size is a number now that was none when onnxsim was told of it.

    By itself onnxsim goes on until it finds nothing more: only what it did not know may let it find anything.
    """
    for name, dims in told.items():
        old = before.get(name)
        if old is None or dims is None:
            if name not in before or old != dims:
                return True
        elif any(isinstance(new, int) and not isinstance(one, int) for one, new in zip(old, dims, strict=True)):
            return True
    return False


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return infer_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise SimplifyError(f"shapes cannot be inferred: {first_line(error)}") from error
