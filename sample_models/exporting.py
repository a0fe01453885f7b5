"""Exports a network by either of PyTorch's two exporters, and leaves nothing in the file that differs from run to run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How one file is made: the network under one convention, what it is exported with, and how its ports are called.

    `arguments` is nested as the network takes it; `inputs` names its tensors in order. `dynamic_axes` maps a port and an axis to
    the name of the dim. With `dynamic_shapes`, nested like `arguments`, the dynamo exporter is used, else the TorchScript one.
    """

    name: str
    network: nn.Module
    arguments: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    dynamic_shapes: tuple[Any, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def export(recipe: Recipe) -> onnx.ModelProto:
    """Exports a recipe and strips the result."""
    with warnings.catch_warnings():
        # A traced network warns of every Python condition on a size; that these become constants is what the modes rest on.
        warnings.simplefilter("ignore")
        model = export_traced(recipe) if recipe.dynamic_shapes is None else export_dynamo(recipe)
    strip(model)
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
        input_names=list(recipe.inputs),
        output_names=list(recipe.outputs),
        dynamic_axes=recipe.dynamic_axes,
    )
    return onnx.load_model_from_string(written.getvalue())


def export_dynamo(recipe: Recipe) -> onnx.ModelProto:
    """Exports through torch.export, with the dynamo exporter."""
    program = torch.onnx.export(
        recipe.network,
        recipe.arguments,
        dynamo=True,
        opset_version=recipe.opset,
        input_names=list(recipe.inputs),
        output_names=list(recipe.outputs),
        dynamic_shapes=recipe.dynamic_shapes,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def strip(model: onnx.ModelProto) -> None:
    """Removes doc strings and stack traces: they are large, and they name folders of the machine that exported."""
    described = [
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ]
    for function in model.functions:
        described += [function, *function.node]
    for item in described:
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
