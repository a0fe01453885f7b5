"""Nodes that a simplifier must not see for what they are."""

from __future__ import annotations

import onnx

from onnxfix.model.external import graphs_of, raw_bytes
from onnxfix.model.ports import dims_of
from onnxfix.model.skeleton import SMALL

_DOMAIN = "onnxfix.veil"
_RANDOM = ("Random", "Dropout", "Bernoulli", "Multinomial")
"""What the names of operators that draw random numbers contain, in ONNX's operator sets and in others."""


class Veil:
    """Nodes that draw random numbers, or compute a large constant, as operators that nobody knows.

    onnxsim takes two random numbers of one kind for duplicates, and writes a large constant out in full where it is
    computed in two steps. Of an operator that it does not know it changes nothing but the names of what it reads.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._veiled: list[onnx.NodeProto] = []
        # A function that draws random numbers may be called by any other.
        drawing = any(_draws(node) for function in model.functions for node in function.node)
        self._random_domains = {function.domain for function in model.functions} if drawing else set()

    def draw(self, model: onnx.ModelProto) -> None:
        """Veils nodes of a model whose shapes are inferred, in place."""
        for node in [node for node in model.graph.node if self._is_random(node)] + _large_constants(model.graph):
            if node.domain == _DOMAIN:
                continue
            real = onnx.NodeProto()
            real.CopyFrom(node)
            node.op_type, node.domain = "Veiled", _DOMAIN
            del node.attribute[:]
            # Veiled nodes differ at least in this, so that no two are duplicates.
            node.attribute.add(name="number", type=onnx.AttributeProto.INT, i=len(self._veiled))
            self._veiled.append(real)
        model.opset_import.add(domain=_DOMAIN, version=1)

    def lift(self, model: onnx.ModelProto) -> None:
        """Lets the veiled nodes of a model be what they are, in place; they read what they read now."""
        for node in model.graph.node:
            if node.domain != _DOMAIN:
                continue
            read = list(node.input)
            node.CopyFrom(self._veiled[node.attribute[0].i])
            node.input[:] = read
        for index in reversed(range(len(model.opset_import))):
            if model.opset_import[index].domain == _DOMAIN:
                del model.opset_import[index]

    def _is_random(self, node: onnx.NodeProto) -> bool:
        return _draws(node) or node.domain in self._random_domains


def _draws(node: onnx.NodeProto) -> bool:
    return any(word in node.op_type for word in _RANDOM)


def _large_constants(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Returns the nodes that compute something large from constants alone, the first ones of every chain."""
    ports = {value.name for value in graph.input}
    constant = {tensor.name for tensor in graph.initializer} - ports | {""}
    described = {value.name: value for values in (graph.value_info, graph.output) for value in values}
    found = []
    for node in graph.node:
        if not constant.issuperset(node.input) or next(graphs_of(node), None) is not None:
            continue
        made = (described[name] for name in node.output if name in described)
        if node.op_type != "Constant" and any(map(_is_large, made)):
            found.append(node)
        else:
            constant.update(node.output)
    return found


def _is_large(value: onnx.ValueInfoProto) -> bool:
    dims = dims_of(value.type)
    sizes = [dim for dim in dims or () if isinstance(dim, int)]
    if dims is None or len(sizes) != len(dims):
        return False
    taken = raw_bytes(value.type.tensor_type.elem_type, sizes)
    return taken is not None and taken > SMALL
