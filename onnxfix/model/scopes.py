"""Names in nested graphs: which ones are read from outside, and how these are renamed.

A nested graph (`If`, `Loop`, `Scan`) sees every value of the graphs around it, unless it defines the same name itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableSequence

import onnx

from onnxfix.model.external import graphs_of


def defined_names(graph: onnx.GraphProto) -> set[str]:
    """Returns the names that a graph defines itself: inputs, initializers, outputs of nodes."""
    names = {value.name for value in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.output)
    names.discard("")
    return names


def free_names(graph: onnx.GraphProto) -> dict[str, None]:
    """Returns the names that a nested graph reads from the graphs around it, in the order of reading."""
    read: dict[str, None] = {}
    for node in graph.node:
        read.update(dict.fromkeys(node.input))
        read.update(captured_names(node))
    read.update(dict.fromkeys(value.name for value in graph.output))
    defined = defined_names(graph)
    return {name: None for name in read if name and name not in defined}


def captured_names(node: onnx.NodeProto) -> dict[str, None]:
    """Returns the names that a node's nested graphs read from outside, in the order of reading."""
    names: dict[str, None] = {}
    for graph in graphs_of(node):
        names.update(free_names(graph))
    return names


def all_names(model: onnx.ModelProto) -> set[str]:
    """Returns every name of a value or node, at any depth, functions included."""
    names = names_in_functions(model)
    _collect(model.graph, names)
    return names


def names_inside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Returns every name of a value or node in the nested graphs of nodes, at any depth."""
    names: set[str] = set()
    for node in nodes:
        for graph in graphs_of(node):
            _collect(graph, names)
    return names


def names_in_functions(model: onnx.ModelProto) -> set[str]:
    """Returns every name of a value or node in a model's functions, at any depth."""
    names: set[str] = set()
    for function in model.functions:
        names.update(function.input, function.output)
        _collect_nodes(function.node, names)
    return names


def _collect(graph: onnx.GraphProto, names: set[str]) -> None:
    for values in (graph.input, graph.output, graph.value_info):
        names.update(value.name for value in values)
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    _collect_nodes(graph.node, names)


def _collect_nodes(nodes: Iterable[onnx.NodeProto], names: set[str]) -> None:
    for node in nodes:
        names.add(node.name)
        names.update(node.input, node.output)
        for graph in graphs_of(node):
            _collect(graph, names)


def inner_names(node: onnx.NodeProto) -> set[str]:
    """Returns the names that a node's nested graphs define, at any depth."""
    names: set[str] = set()
    for graph in graphs_of(node):
        names |= defined_names(graph)
        for inner in graph.node:
            names |= inner_names(inner)
    return names


def rename_captures(node: onnx.NodeProto, renames: Mapping[str, str]) -> None:
    """Renames, all at once, what a node's nested graphs read from outside.

    Args:
        node: The node, changed in place.
        renames: Old names and new ones, which no nested graph defines.
    """
    for graph in graphs_of(node):
        read = free_names(graph)
        _rename(graph, {old: new for old, new in renames.items() if old in read})


def rename_inner(node: onnx.NodeProto, renames: Mapping[str, str]) -> None:
    """Renames what a node's nested graphs define, at any depth.

    Args:
        node: The node, changed in place.
        renames: Old names and new ones, which are new to the whole model.
    """
    for graph in graphs_of(node):
        defined = defined_names(graph)
        for inner in graph.node:
            rename_inner(inner, renames)
        _rename(graph, {old: new for old, new in renames.items() if old in defined})


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Renames values that a graph defines or reads, there and in the graphs nested in it."""
    if not names:
        return
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        rename_captures(node, names)
        _rename_in(node.input, names)
        _rename_in(node.output, names)


def _rename_in(texts: MutableSequence[str], names: Mapping[str, str]) -> None:
    for index, name in enumerate(texts):
        if name in names:
            texts[index] = names[name]


def capture_renames(before: onnx.NodeProto, after: onnx.NodeProto) -> dict[str, str] | None:
    """Compares two versions of a node's nested graphs, of which only names may differ.

    Returns:
        What the graphs read from outside, before and after; None where they differ in more than names.
    """
    renames: dict[str, str] = {}
    pairs = list(zip(graphs_of(before), graphs_of(after), strict=False))
    if len(pairs) != sum(1 for _ in graphs_of(before)) or len(pairs) != sum(1 for _ in graphs_of(after)):
        return None
    for old, new in pairs:
        found = _graph_renames(old, new)
        if found is None or any(renames.get(name, other) != other for name, other in found.items()):
            return None
        renames.update(found)
    return renames


def _graph_renames(before: onnx.GraphProto, after: onnx.GraphProto) -> dict[str, str] | None:
    if len(before.node) != len(after.node) or len(before.output) != len(after.output):
        return None
    free = free_names(before)
    renames: dict[str, str] = {}

    def note(old: str, new: str) -> bool:
        return old not in free or renames.setdefault(old, new) == new

    for old, new in zip(before.node, after.node, strict=True):
        inner = capture_renames(old, new)
        if inner is None or old.op_type != new.op_type or len(old.input) != len(new.input):
            return None
        if not all(note(*pair) for pair in [*zip(old.input, new.input, strict=True), *inner.items()]):
            return None
    outputs = zip(before.output, after.output, strict=True)
    return renames if all(note(old.name, new.name) for old, new in outputs) else None
