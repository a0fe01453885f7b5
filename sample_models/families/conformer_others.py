"""The Conformer for a batch of streams, as WeNet's GPU exporter writes it, and in pictures, as its BPU exporter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from exporting import ANY_BATCH, Recipe, for_dynamo
from networks.conformer import Conformer, Sizes
from networks.conformer_bpu import BpuEncoder
from networks.conformer_gpu import GpuEncoder, GpuPerLayerEncoder

GPU_OPSET = 14  # WeNet's
BPU_OPSET = 11  # WeNet's
BATCH = 3


def recipes(conformer: Conformer) -> Iterator[Recipe]:
    """Gives the recipes of the GPU conventions and of the BPU convention."""
    sizes = conformer.sizes
    packed = torch.zeros(BATCH, sizes.layers, sizes.heads, sizes.left, 2 * sizes.dim)
    shape = (BATCH, sizes.heads, sizes.left, sizes.dim)
    per_layer = tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(sizes.layers))
    names = [f"{kv}_cache_{layer}" for layer in range(sizes.layers) for kv in ("key", "value")]
    for recipe in (
        gpu(sizes, "conformer_gpu", GpuEncoder(conformer), packed, ["att_cache"]),
        gpu(sizes, "conformer_gpu_kv", GpuPerLayerEncoder(conformer), per_layer, names),
    ):
        yield recipe
        yield for_dynamo(recipe, {"B": ANY_BATCH})
    yield bpu(conformer)


def gpu(sizes: Sizes, name: str, network: torch.nn.Module, caches: Any, past: list[str]) -> Recipe:
    """Exports for a batch of any size; nothing else is dynamic."""
    arguments = (
        torch.randn(BATCH, sizes.window, sizes.features),
        torch.full((BATCH,), sizes.window, dtype=torch.int32),
        torch.full((BATCH, 1), sizes.left),
        caches,
        torch.zeros(BATCH, sizes.layers, sizes.channels, sizes.context),
        torch.ones(BATCH, 1, sizes.left),
    )
    inputs = ("chunk_xs", "chunk_lens", "offset", *past, "cnn_cache", "cache_mask")
    frames = ("log_probs", "log_probs_idx", "chunk_out", "chunk_out_lens", "r_offset")
    outputs = (*frames, *(f"r_{name}" for name in past), "r_cnn_cache", "r_cache_mask")
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}
    return Recipe(name, network, arguments, inputs, outputs, GPU_OPSET, axes)


def bpu(conformer: Conformer) -> Recipe:
    """Exports with all sizes fixed, and with the metadata from which the tools of the processor read them."""
    sizes = conformer.sizes
    arguments = {
        "chunk": torch.randn(1, 1, sizes.window, sizes.features),
        "att_cache": torch.zeros(1, sizes.layers * sizes.heads, 2 * sizes.dim, sizes.left),
        "cnn_cache": torch.zeros(1, sizes.channels, sizes.layers, sizes.context),
        "att_mask": torch.ones(1, sizes.heads, sizes.chunk, sizes.left + sizes.chunk),
    }
    outputs = ("output", "r_att_cache", "r_cnn_cache")
    metadata = {
        "chunk_size": str(sizes.chunk),
        "num_decoding_left_chunks": str(sizes.left_chunks),
        "decoding_window": str(sizes.window),
        "feature_size": str(sizes.features),
        "input_name": ";".join(arguments),
        "output_name": ";".join(outputs),
        "input_type": ";".join(["featuremap"] * 4),
        "norm_type": ";".join(["no_preprocess"] * 4),
        "input_layout_train": ";".join(["NCHW"] * 4),
        "input_layout_rt": ";".join(["NCHW"] * 4),
        "input_shape": ";".join("x".join(map(str, value.shape)) for value in arguments.values()),
    }
    network = BpuEncoder(conformer)
    return Recipe(
        "conformer_bpu", network, tuple(arguments.values()), tuple(arguments), outputs, BPU_OPSET, metadata=metadata
    )
