"""Exports a network by either of PyTorch's two exporters, and strips what differs from one machine to the next."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import nn
from torch.export import Dim
from torch.utils._pytree import tree_map

DYNAMO_OPSET = 18  # the lowest that the dynamo exporter writes
ANY_BATCH = (1, 512)  # the limits of a batch axis


@dataclass(frozen=True)
class Recipe:
    """How one file is made: the network under one convention, what it is exported with, and how its ports are called.

    `arguments` is nested as the network takes it; `inputs` and `outputs` name its tensors in order, `dynamic_axes` the
    dims that are not fixed, by port and axis. With `short_names`, values inside the graph are numbered.
    """

    name: str
    network: nn.Module
    arguments: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    short_names: bool = False


@dataclass(frozen=True)
class DynamoRecipe(Recipe):
    """The same for the dynamo exporter. `limits` has the dims that are free; the others it derives and names itself."""

    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def for_dynamo(recipe: Recipe, limits: Mapping[str, tuple[int, int]]) -> DynamoRecipe:
    """Gives the recipe of the same network and convention for the dynamo exporter."""
    return DynamoRecipe(
        name=f"{recipe.name}_dynamo",
        network=recipe.network,
        arguments=recipe.arguments,
        inputs=recipe.inputs,
        outputs=recipe.outputs,
        opset=DYNAMO_OPSET,
        dynamic_axes=recipe.dynamic_axes,
        metadata=recipe.metadata,
        short_names=recipe.short_names,
        limits=limits,
    )


def export(recipe: Recipe) -> onnx.ModelProto:
    """Exports a recipe, strips the result and adds the metadata."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Tracing warns of every Python condition on a size. That these become constants is what WeNet's modes rest on.
        warnings.simplefilter("ignore")
        model = export_dynamo(recipe) if isinstance(recipe, DynamoRecipe) else export_traced(recipe)
    strip(model)
    if recipe.short_names:
        shorten(model.graph)
    for key, value in recipe.metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


def export_traced(recipe: Recipe) -> onnx.ModelProto:
    """Exports by tracing, with the TorchScript exporter."""
    written = io.BytesIO()
    torch.onnx.export(
        recipe.network,
        recipe.arguments,
        written,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=recipe.opset,
        input_names=recipe.inputs,
        output_names=recipe.outputs,
        dynamic_axes=recipe.dynamic_axes,
    )
    return onnx.load_model_from_string(written.getvalue())


def export_dynamo(recipe: DynamoRecipe) -> onnx.ModelProto:
    """Exports through torch.export, with the dynamo exporter."""
    program = torch.onnx.export(
        recipe.network,
        recipe.arguments,
        dynamo=True,
        opset_version=recipe.opset,
        input_names=recipe.inputs,
        output_names=recipe.outputs,
        dynamic_shapes=dynamic_shapes(recipe),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def dynamic_shapes(recipe: DynamoRecipe) -> tuple[Any, ...]:
    """Says which dims of the arguments are dynamic, in the words of torch.export and nested like the arguments."""
    dims = {name: Dim(name, min=low, max=high) for name, (low, high) in recipe.limits.items()}
    names = iter(recipe.inputs)

    def of_leaf(leaf: object) -> dict[int, Any] | None:
        if not isinstance(leaf, torch.Tensor):
            return None
        return {axis: dims.get(name, Dim.AUTO) for axis, name in recipe.dynamic_axes.get(next(names), {}).items()}

    shapes: tuple[Any, ...] = tree_map(of_leaf, recipe.arguments)
    return shapes


def strip(model: onnx.ModelProto) -> None:
    """Removes doc strings and stack traces: they are large, and they name folders of the machine that exported."""
    graph = model.graph
    items = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        items += [function, *function.node]
    for item in items:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def shorten(graph: onnx.GraphProto) -> None:
    """Numbers the values inside a graph, and drops the names of nodes: paths of modules are half of a small file."""
    ports = {port.name for port in (*graph.input, *graph.output)}
    inner = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    numbers = {name: f"v{i}" for i, name in enumerate(dict.fromkeys(inner)) if name and name not in ports}
    assert not ports & set(numbers.values())
    for item in (*graph.initializer, *graph.value_info):
        item.name = numbers.get(item.name, item.name)
    for node in graph.node:
        node.ClearField("name")
        node.input[:] = [numbers.get(name, name) for name in node.input]
        node.output[:] = [numbers.get(name, name) for name in node.output]
