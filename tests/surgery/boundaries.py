"""Models whose caches pass through one Add, under any convention: what a boundary does, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfix.convention.convention import Convention, convention_from_sentences

SIZES = {"layer": 3, "kv": 2, "batch": 2, "head": 5, "time": 7, "dim": 11}

GPT2_WAYS: dict[str, tuple[str, ...]] = {
    "one tensor": ("past -> present: layer kv batch head time dim",),
    "one tensor, kv first": ("past -> present: kv layer batch head time dim",),
    "one tensor, kv innermost": ("past -> present: layer batch head time (kv dim)",),
    "one tensor, alternating": ("past -> present: (layer kv) batch head time dim",),
    "one tensor, keys then values": ("past -> present: (kv layer) batch head time dim",),
    "one per kv": ("past_{kv} -> present_{kv}: layer batch head time dim",),
    "one per kv, time first": ("past_{kv:k,v} -> present_{kv:k,v}: time layer batch head dim",),
    "one per layer": ("past_{layer} -> present_{layer}: kv batch head time dim",),
    "one per layer, kv second": ("past_{layer} -> present_{layer}: batch kv head time dim",),
    "one per layer, interleaved": ("past_{layer} -> present_{layer}: batch head time (dim kv)",),
    "one per layer, heads merged": ("past_{layer} -> present_{layer}: kv batch time (head dim)",),
    "one per layer and kv": ("past.{layer}.{kv} -> present.{layer}.{kv}: batch head time dim",),
    "time first": ("past.{layer}.{kv} -> present.{layer}.{kv}: time batch (head dim)",),
    "time last": ("past.{layer}.{kv} -> present.{layer}.{kv}: batch (head dim) time",),
    "key transposed": (
        "past.{layer}.{kv=key} -> present.{layer}.{kv=key}: batch head dim time",
        "past.{layer}.{kv=value} -> present.{layer}.{kv=value}: batch head time dim",
    ),
}


def way(name: str) -> Convention:
    """Returns one of the fifteen ways to write a GPT-2's cache down."""
    return convention_from_sentences(GPT2_WAYS[name])


def model_of(convention: Convention, opset: int, *, symbolic: tuple[str, ...] = ("batch", "time")) -> onnx.ModelProto:
    """Returns a model that adds 1 to its caches; `symbolic` axes are dynamic where a dim holds nothing else."""
    inputs, outputs, nodes = [], [], []
    for cache in convention.caches:
        for past, present in zip(cache.past, cache.present, strict=True):
            axes = [axis for axis in past.template.axes if axis not in past.template.fixed]
            for labels in itertools.product(*(range(SIZES[axis]) for axis in axes)):
                known = {**dict(zip(axes, labels, strict=True)), **past.template.fixed}
                names = past.template.format(known), present.template.format(known)
                dims = [
                    item[0] if len(item) == 1 and item[0] in symbolic else int(np.prod([SIZES[axis] for axis in item]))
                    for item in past.layout.items
                ]
                inputs.append(helper.make_tensor_value_info(names[0], TensorProto.FLOAT, dims))
                outputs.append(helper.make_tensor_value_info(names[1], TensorProto.FLOAT, dims))
                nodes.append(helper.make_node("Add", [names[0], "one"], [names[1]]))
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    graph = helper.make_graph(nodes, "boundary", inputs, outputs, [one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def arrays_of(model: onnx.ModelProto, *, time: int = SIZES["time"], seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random caches for the inputs of `model_of`."""
    random = np.random.default_rng(seed)
    sizes = {**SIZES, "time": time}
    return {
        value.name: random.standard_normal(
            [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }
