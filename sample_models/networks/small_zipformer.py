"""A small streaming encoder with the caches of icefall's Zipformer: two stacks of different width and frame rate.

Every layer computes its attention weights once, from its cache of keys, and uses them three times, each time over
another cache; two causal convolutions have one each. Before the first stack there is a convolution with a cache of its
own, and the number of frames so far says how much of a cache is filled.

Arrays, in the project's layout language:
    x: time batch channel, float32
    key, val1, val2, nonlin_attn: time batch dim, float32
    conv1, conv2: batch channel time, float32
    embed: batch channel time bin, float32
    processed_lens: batch, int64
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from networks.spoken import Cache, SpokenNetwork

Parts = Mapping[str, Tensor]
FEATURES, BINS, CHANNELS, EMBED_CONTEXT = 8, 3, 2, 3
CHUNK, FRAMES = 4, 9  # what a call brings, and the frames of features that it comes from


@dataclass(frozen=True)
class Stack:
    """The sizes of one stack."""

    layers: int
    width: int
    heads: int
    query_dim: int
    value_dim: int
    kernel: int
    left: int  # the frames that attention looks back
    downsampling: int


STACKS = (
    Stack(layers=2, width=8, heads=2, query_dim=3, value_dim=2, kernel=5, left=8, downsampling=1),
    Stack(layers=1, width=12, heads=3, query_dim=2, value_dim=3, kernel=3, left=4, downsampling=2),
)


class CausalConvolution(nn.Module):
    """A gated depthwise convolution over time; the context stands in for the frames before the chunk."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.context = kernel // 2
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, self.context + 1, groups=width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves the chunk; returns the output and the next context."""
        inner, gate = self.expand(x).chunk(2, dim=2)
        grown = torch.cat((context, (inner * gate.sigmoid()).permute(1, 2, 0)), dim=2)
        return self.project(self.depthwise(grown).permute(2, 0, 1)), grown[:, :, -self.context :]


class Layer(nn.Module):
    """One layer of a stack."""

    def __init__(self, sizes: Stack) -> None:
        super().__init__()
        self.sizes = sizes
        self.chunk = CHUNK // sizes.downsampling
        self.all = sizes.left + self.chunk
        width, inner = sizes.width, sizes.heads * sizes.value_dim
        self.query_key = nn.Linear(width, 2 * sizes.heads * sizes.query_dim)
        self.nonlin, self.nonlin_out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.val1, self.out1 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.val2, self.out2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.conv1, self.conv2 = (CausalConvolution(width, sizes.kernel) for _ in range(2))
        self.feed_forward = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, hidden: Tensor, past: Parts) -> tuple[Tensor, dict[str, Tensor]]:
        """Advances one chunk; returns the output and the next caches."""
        present = {}
        heads = self.sizes.heads, self.sizes.value_dim
        weights, present["key"] = self.weigh(x, hidden, past["key"])
        inner, gate = self.nonlin(x).chunk(2, dim=2)
        mixed, present["nonlin_attn"] = self.mix(weights[:, :1], inner.tanh(), past["nonlin_attn"], 1, self.sizes.width)
        x = x + self.nonlin_out(mixed * gate)
        mixed, present["val1"] = self.mix(weights, self.val1(x), past["val1"], *heads)
        x = x + self.out1(mixed)
        convolved, present["conv1"] = self.conv1(x, past["conv1"])
        x = x + convolved
        x = x + self.feed_forward(x)
        mixed, present["val2"] = self.mix(weights, self.val2(x), past["val2"], *heads)
        x = x + self.out2(mixed)
        convolved, present["conv2"] = self.conv2(x, past["conv2"])
        return self.norm(x + convolved), present

    def weigh(self, x: Tensor, hidden: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Weighs cache and chunk for each frame of the chunk, batch head time time; returns the next keys, too."""
        query, key = self.query_key(x).chunk(2, dim=2)
        grown = torch.cat((past, key), dim=0)
        heads = self.sizes.heads, self.sizes.query_dim
        query, key = split(query, self.chunk, *heads), split(grown, self.all, *heads)
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.sizes.query_dim)
        return scores.masked_fill(hidden, -1e4).softmax(-1), grown[-self.sizes.left :]

    def mix(self, weights: Tensor, new: Tensor, past: Tensor, heads: int, dim: int) -> tuple[Tensor, Tensor]:
        """Sums cache and chunk by their weights; returns the next cache, too."""
        grown = torch.cat((past, new), dim=0)
        mixed = torch.matmul(weights, split(grown, self.all, heads, dim))
        return mixed.permute(2, 0, 1, 3).reshape(self.chunk, -1, heads * dim), grown[-self.sizes.left :]


def split(x: Tensor, length: int, heads: int, dim: int) -> Tensor:
    """Turns time batch (head dim) into batch head time dim."""
    return x.reshape(length, -1, heads, dim).permute(1, 2, 0, 3)


class Embedding(nn.Module):
    """Turns 9 frames of features into 4, after a convolution over time that remembers 3."""

    def __init__(self) -> None:
        super().__init__()
        self.subsample = nn.Sequential(nn.Conv2d(1, CHANNELS, 3, 2), nn.SiLU())
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, (EMBED_CONTEXT + 1, 1), groups=CHANNELS)
        self.out = nn.Linear(CHANNELS * BINS, STACKS[0].width)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds `x`, batch time feature; returns batch time channel and the next cache."""
        x = self.subsample(x.unsqueeze(1))
        grown = torch.cat((past, x), dim=2)
        x = x + self.depthwise(grown)
        return self.out(x.transpose(1, 2).reshape(-1, CHUNK, CHANNELS * BINS)), grown[:, :, -EMBED_CONTEXT:]


class Zipformer(SpokenNetwork):
    """The encoder; layers are counted over all stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedding()
        self.stacks = nn.ModuleList(nn.ModuleList(Layer(sizes) for _ in range(sizes.layers)) for sizes in STACKS)
        self.widen = nn.Linear(STACKS[0].width, STACKS[1].width)
        layers = {"layer": range(sum(sizes.layers for sizes in STACKS))}
        kinds = ("key", "nonlin_attn", "val1", "val2")
        self.caches = (
            *(Cache(kind, "time batch dim", layers) for kind in kinds),
            Cache("conv1", "batch channel time", layers),
            Cache("conv2", "batch channel time", layers),
            Cache("embed", "batch channel time bin"),
            Cache("lengths", "batch"),
        )

    def forward(self, x: Tensor, past: Parts) -> tuple[tuple[Tensor], Parts]:
        """Advances one chunk."""
        present = {}
        x, present["embed"] = self.embedding(x, past["embed"])
        lengths = past["lengths"]
        present["lengths"] = lengths + CHUNK
        x = x.transpose(0, 1)
        i = 0
        for sizes, stack in zip(STACKS, self.stacks, strict=True):
            if sizes.downsampling > 1:
                x = self.widen((x[0::2] + x[1::2]) / 2)
            # The cache is filled from its end.
            ages = torch.arange(sizes.left + CHUNK // sizes.downsampling - 1, -1, -1) - CHUNK // sizes.downsampling
            hidden = (ages >= (lengths // sizes.downsampling).unsqueeze(1))[:, None, None]
            for layer in stack:
                own = {kind: past[f"{kind}.{i}"] for kind in ("key", "nonlin_attn", "val1", "val2", "conv1", "conv2")}
                x, new = layer(x, hidden, own)
                present |= {f"{kind}.{i}": value for kind, value in new.items()}
                i += 1
        return (x.transpose(0, 1),), present


def cache_shapes(batch: int) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of all caches, part by part."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = [sizes for sizes in STACKS for _ in range(sizes.layers)]
    for i, sizes in enumerate(layers):
        inner = sizes.heads * sizes.value_dim
        shapes[f"key.{i}"] = (sizes.left, batch, sizes.heads * sizes.query_dim)
        shapes[f"nonlin_attn.{i}"] = (sizes.left, batch, sizes.width)
        shapes |= {f"val1.{i}": (sizes.left, batch, inner), f"val2.{i}": (sizes.left, batch, inner)}
        context = (batch, sizes.width, sizes.kernel // 2)
        shapes |= {f"conv1.{i}": context, f"conv2.{i}": context}
    return {**shapes, "embed": (batch, CHANNELS, EMBED_CONTEXT, BINS), "lengths": (batch,)}


def metadata() -> dict[str, str]:
    """Gives what icefall writes, with these sizes."""
    listed = {
        "num_encoder_layers": [sizes.layers for sizes in STACKS],
        "encoder_dims": [sizes.width for sizes in STACKS],
        "cnn_module_kernels": [sizes.kernel for sizes in STACKS],
        "left_context_len": [sizes.left for sizes in STACKS],
        "query_head_dims": [sizes.query_dim for sizes in STACKS],
        "value_head_dims": [sizes.value_dim for sizes in STACKS],
        "num_heads": [sizes.heads for sizes in STACKS],
    }
    joined = {key: ",".join(map(str, values)) for key, values in listed.items()}
    return {"model_type": "zipformer2", "version": "1", "T": str(FRAMES), "decode_chunk_len": str(2 * CHUNK), **joined}
