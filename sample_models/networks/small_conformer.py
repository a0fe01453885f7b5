"""A small cache-aware encoder with the caches of NeMo's: of the inputs of attention, of convolutions, and a length.

Arrays, in the project's layout language:
    x: batch time channel, float32
    channel: batch time channel (the inputs of attention so far), float32; the last `length` frames are filled
    time: batch channel time (the inputs of the convolution so far), float32
    length: batch, int64
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from networks.spoken import Cache, SpokenNetwork

Parts = Mapping[str, Tensor]
FEATURES, WIDTH, HEADS, LAYERS, LEFT, CONTEXT, RATE = 10, 12, 3, 2, 24, 5, 2
FRAMES = 6  # of features, a call


class Layer(nn.Module):
    """Attention over cache and chunk, then a causal convolution, then a feed forward; all beside residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.expand = nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, CONTEXT + 1, groups=WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, x: Tensor, hidden: Tensor, channel: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advances one chunk; returns the output and the next caches."""
        inner = self.norms[0](x)
        grown = torch.cat((channel, inner), dim=1)
        query, key, value = split(self.query(inner)), split(self.key(grown)), split(self.value(grown))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(WIDTH // HEADS)
        weights = scores.masked_fill(hidden, -1e4).softmax(-1)
        x = x + self.out(torch.matmul(weights, value).transpose(1, 2).reshape(-1, FRAMES // RATE, WIDTH))
        inner, gate = self.expand(self.norms[1](x).transpose(1, 2)).chunk(2, dim=1)
        past_and_now = torch.cat((time, inner * gate.sigmoid()), dim=2)
        x = x + self.depthwise(past_and_now).transpose(1, 2)
        return x + self.feed_forward(self.norms[2](x)), grown[:, -LEFT:], past_and_now[:, :, -CONTEXT:]


def split(x: Tensor) -> Tensor:
    """Turns batch time (head dim) into batch head time dim."""
    return x.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)


class CacheAwareEncoder(SpokenNetwork):
    """The encoder; every second frame of features is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv1d(FEATURES, WIDTH, RATE, RATE)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        layers = {"layer": range(LAYERS)}
        self.caches = (
            Cache("channel", "batch time channel", layers),
            Cache("time", "batch channel time", layers),
            Cache("length", "batch"),
        )

    def forward(self, audio_signal: Tensor, length: Tensor, past: Parts) -> tuple[tuple[Tensor, Tensor], Parts]:
        """Advances one chunk of features, batch feature time, of which `length` frames are filled."""
        x = self.embed(audio_signal).transpose(1, 2)
        encoded, filled = length // RATE, past["length"]
        places = torch.arange(LEFT + x.size(1)) - LEFT
        is_there = (places >= -filled.unsqueeze(1)) & (places < encoded.unsqueeze(1))
        hidden = is_there.logical_not()[:, None, None]
        present = {"length": (filled + encoded).clamp(max=LEFT)}
        for i, layer in enumerate(self.layers):
            channel, time = f"channel.{i}", f"time.{i}"
            x, present[channel], present[time] = layer(x, hidden, past[channel], past[time])
        return (x.transpose(1, 2), encoded), present
