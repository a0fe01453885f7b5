"""The Conformer for one stream: WeNet's packed cache, and its keys and values natively, per layer or stacked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from exporting import DYNAMO_OPSET, DynamoRecipe, Recipe
from networks.conformer import Conformer, Sizes, Subsampling
from networks.conformer_cpu import GrowingTensors, PackedEncoder, PerLayerEncoder, StackedEncoder, WindowedTensors
from torch import nn

OPSET = 13  # WeNet's


@dataclass(frozen=True)
class Mode:
    """How much of the cache is kept: 16/4 or 16/-1 in WeNet's words. A growing cache needs neither size nor mask."""

    suffix: str
    cache_length: int
    left_chunks: int
    required_cache_size: int

    @property
    def is_growing(self) -> bool:
        """Whether nothing is ever dropped."""
        return self.required_cache_size < 0


def modes(sizes: Sizes) -> tuple[Mode, Mode]:
    """Gives the two modes of the samples: 16/4 and 16/-1."""
    return Mode("", sizes.left, sizes.left_chunks, sizes.left), Mode("_grow", 0, -1, -1)


@dataclass(frozen=True)
class Convention:
    """A convention's network, and the names and tensors of its attention cache."""

    name: str
    encoder: PackedEncoder | PerLayerEncoder | StackedEncoder
    past: tuple[str, ...]
    caches: tuple[Any, ...]  # the arguments: tensors, or tuples of tensors

    @property
    def present(self) -> tuple[str, ...]:
        """The names of the next cache."""
        return tuple(f"r_{name}" for name in self.past)


def packed(conformer: Conformer, length: int) -> Convention:
    """`att_cache: layer head time (kv dim)`."""
    sizes = conformer.sizes
    cache = torch.zeros(sizes.layers, sizes.heads, length, 2 * sizes.dim)
    return Convention("conformer_packed", PackedEncoder(conformer), ("att_cache",), (cache,))


def per_layer(conformer: Conformer, length: int) -> Convention:
    """`{kv}_cache_{layer}: batch head time dim`, by layer."""
    sizes = conformer.sizes
    shape = (1, sizes.heads, length, sizes.dim)
    past = tuple(f"{kv}_cache_{layer}" for layer in range(sizes.layers) for kv in ("key", "value"))
    caches = tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(sizes.layers))
    return Convention("conformer_kv", PerLayerEncoder(conformer), past, (caches,))


def stacked(conformer: Conformer, length: int) -> Convention:
    """`{kv}_cache: layer head time dim`."""
    sizes = conformer.sizes
    shape = (sizes.layers, sizes.heads, length, sizes.dim)
    caches = (torch.zeros(shape), torch.zeros(shape))
    return Convention("conformer_kv_stacked", StackedEncoder(conformer), ("key_cache", "value_cache"), caches)


def recipes(conformer: Conformer) -> Iterator[Recipe]:
    """Gives the recipes of all CPU conventions, in both modes and by both exporters; stacked by one in one."""
    for mode in modes(conformer.sizes):
        for make_convention in (packed, per_layer):
            yield traced(conformer, mode, make_convention(conformer, mode.cache_length))
            # A length of 0 or 1 would become a constant.
            yield dynamo(conformer, mode, make_convention(conformer, conformer.sizes.left))
    windowed, _ = modes(conformer.sizes)
    yield traced(conformer, windowed, stacked(conformer, windowed.cache_length))


def traced(conformer: Conformer, mode: Mode, convention: Convention) -> Recipe:
    """Exports as WeNet does: in 16/-1 mode, the required size of the cache is traced away."""
    chunk, convolution, mask = inputs(conformer.sizes)
    return Recipe(
        name=convention.name + mode.suffix,
        network=convention.encoder,
        arguments=(
            chunk,
            mode.cache_length,
            mode.required_cache_size,
            *convention.caches,
            convolution,
            None if mode.is_growing else mask,
        ),
        inputs=(
            "chunk",
            "offset",
            "required_cache_size",
            *convention.past,
            "cnn_cache",
            *(() if mode.is_growing else ("att_mask",)),
        ),
        outputs=("output", *convention.present, "r_cnn_cache"),
        opset=OPSET,
        dynamic_axes=dynamic_axes(mode, convention),
        metadata=metadata(conformer.sizes, mode.left_chunks),
    )


def dynamo(conformer: Conformer, mode: Mode, convention: Convention) -> DynamoRecipe:
    """Exports through torch.export, with all integers as tensors."""
    sizes = conformer.sizes
    chunk, convolution, mask = inputs(sizes)
    assert not isinstance(convention.encoder, StackedEncoder)
    network: nn.Module
    offset, names = torch.tensor(sizes.left), (*convention.past, "cnn_cache")
    arguments: tuple[Any, ...]
    if mode.is_growing:
        network, arguments = GrowingTensors(convention.encoder), (chunk, offset, *convention.caches, convolution)
        names = ("chunk", "offset", *names)
    else:
        network = WindowedTensors(convention.encoder)
        arguments = (chunk, offset, torch.tensor(sizes.left), *convention.caches, convolution, mask)
        names = ("chunk", "offset", "required_cache_size", *names, "att_mask")
    return DynamoRecipe(
        name=f"{convention.name}{mode.suffix}_dynamo",
        network=network,
        arguments=arguments,
        inputs=names,
        outputs=("output", *convention.present, "r_cnn_cache"),
        opset=DYNAMO_OPSET,
        dynamic_axes=dynamic_axes(mode, convention),
        metadata=metadata(sizes, mode.left_chunks),
        limits={
            "T": (Subsampling.right_context + 1, Subsampling.rate * sizes.positions + Subsampling.right_context),
            "T_CACHE": (0, sizes.positions - 1),
        },
    )


def inputs(sizes: Sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gives what a network is exported with: a chunk, the cache of the convolutions, and a mask."""
    chunk = torch.randn(1, sizes.window, sizes.features)
    convolution = torch.zeros(sizes.layers, 1, sizes.channels, sizes.context)
    return chunk, convolution, torch.ones(1, 1, sizes.left + sizes.chunk, dtype=torch.bool)


def dynamic_axes(mode: Mode, convention: Convention) -> dict[str, dict[int, str]]:
    """Names the dims as WeNet does: the lengths of past and present cache have one name, though they may differ."""
    axes = {"chunk": {1: "T"}, "output": {1: "T"}}
    axes |= {name: {2: "T_CACHE"} for name in (*convention.past, *convention.present)}
    return axes if mode.is_growing else {**axes, "att_mask": {2: "T_ADD_T_CACHE"}}


def metadata(sizes: Sizes, left_chunks: int) -> dict[str, str]:
    """Gives what WeNet's CPU exporter writes into `metadata_props`, in its order (wenet/bin/export_onnx_cpu.py)."""
    return {
        "output_dir": "onnx",
        "batch": "1",
        "chunk_size": str(sizes.chunk),
        "left_chunks": str(left_chunks),
        "reverse_weight": "0.5",
        "output_size": str(sizes.channels),
        "num_blocks": str(sizes.layers),
        "cnn_module_kernel": str(sizes.kernel),
        "head": str(sizes.heads),
        "feature_size": str(sizes.features),
        "vocab_size": str(sizes.vocabulary),
        "decoding_window": str(sizes.window),
        "encoder": "conformer",
        "decoder": "bitransformer",
        "subsampling_rate": str(Subsampling.rate),
        "right_context": str(Subsampling.right_context),
        "sos_symbol": str(sizes.vocabulary - 1),
        "eos_symbol": str(sizes.vocabulary - 1),
        "is_bidirectional_decoder": "1",
    }
