"""A streaming Conformer: convolutional subsampling, relative positions, causal convolution.

The network knows nothing of conventions: every layer takes its keys, its values and its convolution context, and
gives back the new ones, untrimmed. How they look at the boundary of a model is up to `conformer_cpu`, `conformer_gpu`
and `conformer_bpu`.

Arrays, in the project's layout language:
    x: batch time channel, float32
    key, value: batch head time dim, float32
    context (of a convolution): batch channel time, float32; its time is the kernel less one
    mask: batch 1 time (over cache and chunk), true or non-zero where a frame may be attended to
    pos_emb: batch time channel, float32; its batch may be 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sizes:
    """The sizes of one Conformer; all axes of its caches differ, so that no wrong transpose can hide."""

    features: int = 18
    channels: int = 20
    heads: int = 4
    layers: int = 3
    kernel: int = 8
    hidden: int = 24
    subsampling_channels: int = 8
    positions: int = 512
    vocabulary: int = 31
    chunk: int = 16
    left_chunks: int = 4

    @property
    def dim(self) -> int:
        """The width of one head."""
        return self.channels // self.heads

    @property
    def context(self) -> int:
        """The frames a convolution looks back."""
        return self.kernel - 1

    @property
    def left(self) -> int:
        """The frames that attention looks back in 16/4 mode."""
        return self.chunk * self.left_chunks

    @property
    def window(self) -> int:
        """The feature frames that become one chunk."""
        return (self.chunk - 1) * Subsampling.rate + Subsampling.right_context + 1


class Normalization(nn.Module):
    """Subtracts the mean of every feature and scales it to unit variance."""

    mean: Tensor
    inverse_deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", 0.3 * torch.randn(features))
        self.register_buffer("inverse_deviation", 0.5 + torch.rand(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes `x`: batch time feature."""
        return (x - self.mean) * self.inverse_deviation


class Subsampling(nn.Module):
    """Turns four feature frames into one, by two convolutions of stride two."""

    rate = 4
    right_context = 6

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels = sizes.subsampling_channels
        self.conv = nn.Sequential(
            nn.Conv2d(1, channels, 3, 2), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2), nn.ReLU()
        )
        self.out = nn.Linear(channels * (((sizes.features - 1) // 2 - 1) // 2), sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Subsamples `x`, batch time feature, to batch time channel."""
        convolved: Tensor = self.conv(x.unsqueeze(1))
        subsampled: Tensor = self.out(convolved.transpose(1, 2).flatten(2))
        return subsampled


class Positions(nn.Module):
    """Sinusoids for every position, and the scale of the input that goes with them."""

    table: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.scale = math.sqrt(sizes.channels)
        position = torch.arange(sizes.positions, dtype=torch.float32).unsqueeze(1)
        steps = torch.arange(0, sizes.channels, 2, dtype=torch.float32)
        angle = position * torch.exp(steps * -(math.log(10000.0) / sizes.channels))
        table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
        self.register_buffer("table", table.unsqueeze(0))

    def slice(self, offset: int, size: int) -> Tensor:
        """Gives `size` positions from `offset` on, for a whole batch: 1 time channel."""
        if isinstance(offset, torch.SymInt):
            # torch.export has to be told that a value it cannot see stays within the table.
            torch._check(offset >= 0)
            torch._check(offset + size <= self.table.size(1))
        return self.table[:, offset : offset + size]

    def gather(self, offset: Tensor, size: int) -> Tensor:
        """Gives `size` positions from each offset on; those before the start of the stream count as 0."""
        index = offset.unsqueeze(1) + torch.arange(size)
        return functional.embedding(index * (index > 0), self.table[0])


class FeedForward(nn.Sequential):
    """Two linear maps and a Swish between them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(nn.Linear(sizes.channels, sizes.hidden), nn.SiLU(), nn.Linear(sizes.hidden, sizes.channels))


class Attention(nn.Module):
    """Self attention over cache and chunk, with positions as in Transformer-XL but for the shift."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.dim = sizes.heads, sizes.dim
        self.query = nn.Linear(sizes.channels, sizes.channels)
        self.key = nn.Linear(sizes.channels, sizes.channels)
        self.value = nn.Linear(sizes.channels, sizes.channels)
        self.position = nn.Linear(sizes.channels, sizes.channels, bias=False)
        self.out = nn.Linear(sizes.channels, sizes.channels)
        self.bias_u = nn.Parameter(0.5 * torch.randn(sizes.heads, sizes.dim))
        self.bias_v = nn.Parameter(0.5 * torch.randn(sizes.heads, sizes.dim))

    def split_heads(self, x: Tensor) -> Tensor:
        """Turns batch time (head dim) into batch time head dim."""
        return x.view(x.size(0), -1, self.heads, self.dim)

    def forward(self, x: Tensor, mask: Tensor | None, pos_emb: Tensor, cache: KeyValue) -> tuple[Tensor, KeyValue]:
        """Attends from the chunk `x` to cache and chunk; returns the output and the grown keys and values."""
        query = self.split_heads(self.query(x))
        key = torch.cat((cache[0], self.split_heads(self.key(x)).transpose(1, 2)), dim=2)
        value = torch.cat((cache[1], self.split_heads(self.value(x)).transpose(1, 2)), dim=2)
        position = self.split_heads(self.position(pos_emb)).transpose(1, 2)

        content_scores = torch.matmul((query + self.bias_u).transpose(1, 2), key.transpose(2, 3))
        position_scores = torch.matmul((query + self.bias_v).transpose(1, 2), position.transpose(2, 3))
        weights = masked_softmax((content_scores + position_scores) / math.sqrt(self.dim), mask)
        attended = torch.matmul(weights, value).transpose(1, 2)
        return self.out(attended.flatten(2)), (key, value)


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Normalizes `scores`, batch head time time, over the last axis; what the mask hides gets no weight."""
    if mask is None:
        return scores.softmax(-1)
    # The mask of a short last chunk may be longer than what there is to attend to.
    hidden = mask.unsqueeze(1).eq(0)[..., : scores.size(-1)]
    return scores.masked_fill(hidden, -math.inf).softmax(-1).masked_fill(hidden, 0.0)


class Convolution(nn.Module):
    """Gated causal depthwise convolution; the context stands in for the frames before the chunk."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.context = sizes.context
        self.expand = nn.Conv1d(sizes.channels, 2 * sizes.channels, 1)
        self.depthwise = nn.Conv1d(sizes.channels, sizes.channels, sizes.kernel, groups=sizes.channels)
        self.norm = nn.BatchNorm1d(sizes.channels)
        self.activation = nn.SiLU()
        self.project = nn.Conv1d(sizes.channels, sizes.channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves the chunk `x` after `context`; returns the output and the next context."""
        x = torch.cat((context, x.transpose(1, 2)), dim=2)
        new_context = x[:, :, -self.context :]
        x = functional.glu(self.expand(x), dim=1)
        x = self.project(self.activation(self.norm(self.depthwise(x))))
        return x.transpose(1, 2), new_context


class Layer(nn.Module):
    """Half a feed forward, attention, convolution, half a feed forward; each normalized and residual."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm_macaron = nn.LayerNorm(sizes.channels)
        self.macaron = FeedForward(sizes)
        self.norm_attention = nn.LayerNorm(sizes.channels)
        self.attention = Attention(sizes)
        self.norm_convolution = nn.LayerNorm(sizes.channels)
        self.convolution = Convolution(sizes)
        self.norm_feed_forward = nn.LayerNorm(sizes.channels)
        self.feed_forward = FeedForward(sizes)
        self.norm_final = nn.LayerNorm(sizes.channels)

    def forward(
        self, x: Tensor, mask: Tensor | None, pos_emb: Tensor, cache: KeyValue, context: Tensor
    ) -> tuple[Tensor, KeyValue, Tensor]:
        """Advances one chunk; returns the output, the grown keys and values, and the next context."""
        x = x + 0.5 * self.macaron(self.norm_macaron(x))
        attended, new_cache = self.attention(self.norm_attention(x), mask, pos_emb, cache)
        x = x + attended
        convolved, new_context = self.convolution(self.norm_convolution(x), context)
        x = x + convolved
        x = x + 0.5 * self.feed_forward(self.norm_feed_forward(x))
        return self.norm_final(x), new_cache, new_context


class Conformer(nn.Module):
    """All weights: one instance is exported under every convention."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.normalization = Normalization(sizes.features)
        self.subsampling = Subsampling(sizes)
        self.positions = Positions(sizes)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.channels)
        self.ctc = nn.Linear(sizes.channels, sizes.vocabulary)

    def embed(self, chunk: Tensor) -> Tensor:
        """Turns features, batch time feature, into the input of the first layer."""
        subsampled: Tensor = self.subsampling(self.normalization(chunk))
        return subsampled * self.positions.scale


def make_conformer(sizes: Sizes, seed: int = 20) -> Conformer:
    """Builds a Conformer with random weights, and with statistics that are not those of an untrained network."""
    torch.manual_seed(seed)
    conformer = Conformer(sizes)
    for module in conformer.modules():
        if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return conformer.eval().requires_grad_(False)
