"""The algebra of views alone: a graph of movement, read as views of its inputs and written again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxfix.model.graph import GraphView
from onnxfix.model.model import Model
from onnxfix.surgery.algebra import Views
from onnxfix.surgery.emit import Emitter
from onnxfix.surgery.integers import Integers
from onnxfix.surgery.movement import outputs_of
from onnxfix.surgery.routes import leaf
from onnxfix.surgery.size import Size
from onnxfix.surgery.view import View
from tests.surgery.rules.cases import Case, Runner, Source, model_of, movement_of, operators, source_of


def shortest(model: Model) -> None:
    """Replaces every output that is movement of the inputs by the smallest expression of it, in place."""
    graph = GraphView(model)
    graph.infer_shapes()
    views = Views()
    emitter = Emitter(graph, views)
    known: dict[str, View] = {
        port.name: leaf(port.name, port.dims or (), views) for port in graph.inputs if port.dtype.startswith("float")
    }

    def sizes(name: str) -> Sequence[Size] | None:
        return known[name].dims if name in known else None

    for node in graph.nodes:
        inputs = [known.get(name) for name in node.inputs]
        if node.op_type == "Concat" and None in inputs:
            continue
        found = outputs_of(node, inputs, graph, views, Integers(graph, sizes)) if inputs else None
        known.update(zip(node.outputs, found or (), strict=False))
    ports = graph.outputs
    inner = {port.name: graph.fresh_name(f"{port.name}_inner") for port in ports if port.name in known}
    graph.rename(inner)
    for name in inner:
        emitter.tensor(known[name], name)
    graph.set_outputs(ports)
    graph.remove_dead([*inner.values()])
    graph.commit()
    onnx.checker.check_model(model.proto, full_check=True)


def written_again(case: Case) -> tuple[Source, Model]:
    """Returns the model of a case and its shortest form, after comparing what they yield."""
    model = model_of(case)
    source = source_of(model)
    shortest(model)
    runner = Runner(model.proto)
    for feeds, expected in source.runs:
        for name, array in runner(feeds).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)
    return source, model


def check_stays(case: Case) -> None:
    """A case in which no identity may be applied: the operators stay what they are."""
    source, model = written_again(case)
    assert movement_of(model) == movement_of(Model.from_proto(source.proto))


def check_goes(case: Case) -> None:
    """A case in which an identity must be applied: `left` is what movement there is."""
    _, model = written_again(case)
    assert movement_of(model) == operators(case.left)
