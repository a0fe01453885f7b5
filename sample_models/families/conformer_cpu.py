"""The Conformer for one stream: WeNet's packed cache, and its keys and values natively, per layer or stacked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from exporting import DynamoRecipe, Recipe, for_dynamo
from networks.conformer import Conformer, Sizes, Subsampling
from networks.conformer_cpu import GrowingTensors, PackedEncoder, PerLayerEncoder, StackedEncoder, WindowedTensors

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
            yield for_tensors(conformer, mode, make_convention(conformer, conformer.sizes.left))
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


def for_tensors(conformer: Conformer, mode: Mode, convention: Convention) -> DynamoRecipe:
    """Exports through torch.export, with all integers as tensors."""
    sizes = conformer.sizes
    assert not isinstance(convention.encoder, StackedEncoder)
    recipe = traced(conformer, mode, convention)
    chunk, _, _, *caches = recipe.arguments
    offset, required = torch.tensor(sizes.left), torch.tensor(sizes.left)
    if mode.is_growing:
        recipe = replace(
            recipe,
            network=GrowingTensors(convention.encoder),
            arguments=(chunk, offset, *caches[:-1]),
            inputs=tuple(name for name in recipe.inputs if name != "required_cache_size"),
        )
    else:
        recipe = replace(
            recipe,
            network=WindowedTensors(convention.encoder),
            arguments=(chunk, offset, required, *caches),
        )
    frames = (Subsampling.right_context + 1, Subsampling.rate * sizes.positions + Subsampling.right_context)
    return for_dynamo(recipe, {"T": frames, "T_CACHE": (0, sizes.positions - 1)})


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
