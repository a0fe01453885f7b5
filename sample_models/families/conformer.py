"""The Conformer for one stream on a CPU: WeNet's packed cache, and its keys and values natively, per layer or stacked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agreement import Arrays, Group
from exporting import Recipe
from networks.conformer import Conformer, Sizes, Subsampling
from networks.conformer_ports import PackedEncoder, PerLayerEncoder, StackedEncoder

TICKS = 8
OPSET = 13  # WeNet's


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


@dataclass(frozen=True)
class Mode:
    """16/4 or 16/-1 in WeNet's words: how much of the cache is kept. A growing cache needs neither size nor mask."""

    suffix: str
    cache_length: int
    left_chunks: int
    required_cache_size: int
    has_mask: bool


def modes(sizes: Sizes) -> tuple[Mode, Mode]:
    """Gives the two modes of the samples."""
    return Mode("", sizes.left, sizes.left_chunks, sizes.left, True), Mode("_grow", 0, -1, -1, False)


def recipes(conformer: Conformer) -> Iterator[Recipe]:
    """Gives the recipes of all CPU conventions in both modes."""
    for mode in modes(conformer.sizes):
        yield packed(conformer, mode)
        yield per_layer(conformer, mode)
        if mode.has_mask:
            yield stacked(conformer, mode)


def assemble(
    name: str,
    conformer: Conformer,
    mode: Mode,
    network: torch.nn.Module,
    caches: Any,
    past: list[str],
    present: list[str],
) -> Recipe:
    """Puts the caches of a convention between the ports that all CPU conventions share, and names the dims as WeNet does."""
    sizes = conformer.sizes
    chunk = torch.randn(1, sizes.window, sizes.features)
    convolution = torch.zeros(sizes.layers, 1, sizes.channels, sizes.context)
    mask = torch.ones(1, 1, sizes.left + sizes.chunk, dtype=torch.bool) if mode.has_mask else None
    outputs = ("output", *present, "r_cnn_cache")
    axes = {name: {2: "T_CACHE"} for name in (*past, *present)}
    if mode.has_mask:
        axes["att_mask"] = {2: "T_ADD_T_CACHE"}
    return Recipe(
        name=name + mode.suffix,
        network=network,
        arguments=(chunk, mode.cache_length, mode.required_cache_size, *caches, convolution, mask),
        inputs=("chunk", "offset", "required_cache_size", *past, "cnn_cache", *(["att_mask"] if mode.has_mask else [])),
        outputs=outputs,
        opset=OPSET,
        dynamic_axes={"chunk": {1: "T"}, "output": {1: "T"}, **axes},
        metadata=metadata(sizes, mode.left_chunks),
    )


def packed(conformer: Conformer, mode: Mode) -> Recipe:
    """`att_cache: layer head time (kv dim)`."""
    sizes = conformer.sizes
    cache = torch.zeros(sizes.layers, sizes.heads, mode.cache_length, 2 * sizes.dim)
    network = PackedEncoder(conformer)
    return assemble("conformer_packed", conformer, mode, network, [cache], ["att_cache"], ["r_att_cache"])


def per_layer(conformer: Conformer, mode: Mode) -> Recipe:
    """`{kv}_cache_{layer}: batch head time dim`, by layer."""
    sizes = conformer.sizes
    cache = torch.zeros(1, sizes.heads, mode.cache_length, sizes.dim)
    caches = tuple((cache, cache.clone()) for _ in range(sizes.layers))
    past = [f"{kv}_cache_{layer}" for layer in range(sizes.layers) for kv in ("key", "value")]
    present = [f"r_{name}" for name in past]
    return assemble("conformer_kv", conformer, mode, PerLayerEncoder(conformer), [caches], past, present)


def stacked(conformer: Conformer, mode: Mode) -> Recipe:
    """`{kv}_cache: layer head time dim`."""
    sizes = conformer.sizes
    cache = torch.zeros(sizes.layers, sizes.heads, mode.cache_length, sizes.dim)
    caches, past = [cache, cache.clone()], ["key_cache", "value_cache"]
    present = [f"r_{name}" for name in past]
    return assemble("conformer_kv_stacked", conformer, mode, StackedEncoder(conformer), caches, past, present)


@dataclass(frozen=True)
class Tick:
    """One chunk, batch time feature, its offset, and which of cache and chunk may be seen (empty where a cache grows)."""

    chunk: np.ndarray
    offset: int
    required_cache_size: int
    mask: np.ndarray


class CpuSpeaker:
    """Feeds the ports that all CPU conventions share; the logical attention cache is layer batch head kv time dim."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        raise NotImplementedError

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        raise NotImplementedError

    def ask(self, tick: Tick, state: Arrays) -> Arrays:
        """Gives the feeds of one tick."""
        return {
            "chunk": tick.chunk,
            "offset": np.array(tick.offset),
            "required_cache_size": np.array(tick.required_cache_size),
            **self.past(state["attention"]),
            "cnn_cache": state["convolution"],
            "att_mask": tick.mask,
        }

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives the output and both caches."""
        state = {"attention": self.present(fetches), "convolution": fetches["r_cnn_cache"]}
        return {"output": fetches["output"]}, state


class PackedSpeaker(CpuSpeaker):
    """`att_cache: layer head time (kv dim)`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {"att_cache": np.concatenate((attention[:, 0, :, 0], attention[:, 0, :, 1]), axis=-1)}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        return np.stack(np.split(fetches["r_att_cache"], 2, axis=-1), axis=2)[:, None]


class PerLayerSpeaker(CpuSpeaker):
    """`{kv}_cache_{layer}: batch head time dim`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {
            f"{kv}_cache_{layer}": attention[layer, :, :, i]
            for layer in range(len(attention))
            for i, kv in enumerate(("key", "value"))
        }

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        layers = range(sum(name.startswith("r_key_cache_") for name in fetches))
        pairs = [[fetches[f"r_{kv}_cache_{layer}"] for kv in ("key", "value")] for layer in layers]
        return np.stack([np.stack(pair, axis=2) for pair in pairs])


class StackedSpeaker(CpuSpeaker):
    """`{kv}_cache: layer head time dim`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {"key_cache": attention[:, 0, :, 0], "value_cache": attention[:, 0, :, 1]}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        return np.stack((fetches["r_key_cache"], fetches["r_value_cache"]), axis=2)[:, None]


SPEAKERS = {
    "conformer_packed": PackedSpeaker(),
    "conformer_kv": PerLayerSpeaker(),
    "conformer_kv_stacked": StackedSpeaker(),
}


def groups(sizes: Sizes) -> Iterator[Group[Tick]]:
    """Gives what must agree: all conventions in 16/4 mode from a random, partly hidden cache; and all in 16/-1 mode."""
    random = np.random.default_rng(7)
    for mode in modes(sizes):
        state = {
            "attention": random.standard_normal(
                (sizes.layers, 1, sizes.heads, 2, mode.cache_length, sizes.dim), np.float32
            ),
            "convolution": random.standard_normal((sizes.layers, 1, sizes.channels, sizes.context), np.float32),
        }
        speakers = {name + mode.suffix: SPEAKERS[name] for name in SPEAKERS if mode.has_mask or "stacked" not in name}
        ticks = [make_tick(random, sizes, mode, i) for i in range(TICKS)]
        yield Group(f"Conformer, 16/{mode.left_chunks}", speakers, ticks, state, {})


def make_tick(random: np.random.Generator, sizes: Sizes, mode: Mode, index: int) -> Tick:
    """Makes the chunk of one tick; of a cache of fixed length, all but the newest chunk is hidden at the first tick."""
    mask = np.ones((1, 1, sizes.left + sizes.chunk), dtype=bool)
    mask[:, :, : max(sizes.left - (index + 1) * sizes.chunk, 0)] = False
    chunk = random.standard_normal((1, sizes.window, sizes.features), np.float32)
    return Tick(chunk, mode.cache_length + index * sizes.chunk, mode.required_cache_size, mask)
