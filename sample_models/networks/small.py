"""A small decoder, decoders of encoder-decoders, and a hybrid; `spoken` has how they speak conventions.

Arrays, in the project's layout language:
    key, value: batch head time dim, float32
    context (of a convolution): batch channel time, float32
    attention_mask: batch time (over past and present tokens), int64, 0 where a token is padding
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from networks.gpt2 import Gpt2, Sizes
from networks.spoken import Cache, SpokenNetwork

Parts = Mapping[str, Tensor]
NetworkT = TypeVar("NetworkT", bound=nn.Module)
LAYERS = 2
SIZES = Sizes(vocabulary=13, positions=32, width=18, heads=3, layers=LAYERS, hidden=16)
CONTEXT = 3  # frames that a hybrid's convolution looks back


def attention_cache(name: str, layers: Sequence[int], *, is_fixed: bool = False) -> Cache:
    """Gives the cache of attention in some layers."""
    labels = {"layer": layers, "kv": (0, 1)}
    return Cache(name, "batch head time dim", labels, {"head": SIZES.heads, "dim": SIZES.dim}, is_fixed)


class Decoder(SpokenNetwork):
    """The decoder of `gpt2`, two layers deep."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt2 = Gpt2(SIZES)
        self.caches = (attention_cache("self", range(LAYERS)),)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: Parts
    ) -> tuple[tuple[Tensor], Parts]:
        """Advances all tokens given."""
        x, bias = self.gpt2.embed(input_ids, position_ids, attention_mask)
        present = {}
        for i, block in enumerate(self.gpt2.blocks):
            x, (key, value) = block(x, self.gpt2.causal, bias, (past[f"self.{i}.0"], past[f"self.{i}.1"]))
            present |= {f"self.{i}.0": key, f"self.{i}.1": value}
        return (self.gpt2.logits(x),), present


class ShortConvolution(nn.Module):
    """A gated causal convolution in the manner of LFM2's, beside a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.depthwise = nn.Conv1d(width, width, CONTEXT + 1, groups=width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Convolves the present tokens after `context`; returns the output and the next context."""
        before, after, inner = self.expand(self.norm(x)).transpose(1, 2).chunk(3, dim=1)
        grown = torch.cat((context, before * inner), dim=2)
        convolved = after * self.depthwise(grown)
        return x + self.project(convolved.transpose(1, 2)), grown[:, :, -CONTEXT:]


class Hybrid(SpokenNetwork):
    """Convolution in layers 0 and 2, attention in layers 1 and 3."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt2 = Gpt2(SIZES)
        self.convolutions = nn.ModuleList(ShortConvolution(SIZES.width) for _ in range(LAYERS))
        self.caches = (
            Cache("conv", "batch channel context", {"layer": (0, 2)}),
            attention_cache("self", (1, 3)),
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: Parts
    ) -> tuple[tuple[Tensor], Parts]:
        """Advances all tokens given."""
        x, bias = self.gpt2.embed(input_ids, position_ids, attention_mask)
        present = {}
        for i, (convolution, block) in enumerate(zip(self.convolutions, self.gpt2.blocks, strict=True)):
            x, present[f"conv.{2 * i}"] = convolution(x, past[f"conv.{2 * i}"])
            key, value = f"self.{2 * i + 1}.0", f"self.{2 * i + 1}.1"
            x, (present[key], present[value]) = block(x, self.gpt2.causal, bias, (past[key], past[value]))
        return (self.gpt2.logits(x),), present


class CrossBlock(nn.Module):
    """Attention to past and present tokens, attention to what was encoded, and a feed forward."""

    def __init__(self) -> None:
        super().__init__()
        width = SIZES.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.cross_query, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, SIZES.hidden), nn.ReLU(), nn.Linear(SIZES.hidden, width))

    def self_query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gives what the present tokens ask and answer, batch head time dim."""
        x = self.norms[0](x)
        return split_heads(self.query(x)), split_heads(self.key(x)), split_heads(self.value(x))

    def advance(self, x: Tensor, attended: Tensor, cross: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        """Advances the present tokens by what they found among the tokens, and then among what was encoded."""
        x = x + self.out(attended)
        query = split_heads(self.cross_query(self.norms[1](x)))
        x = x + self.cross_out(attend(query, *cross, hidden))
        return x + self.feed_forward(self.norms[2](x))


def split_heads(x: Tensor) -> Tensor:
    """Turns batch time (head dim) into batch head time dim."""
    return x.view(x.size(0), x.size(1), SIZES.heads, SIZES.dim).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """Attends where nothing is hidden; returns batch time (head dim)."""
    scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(SIZES.dim)
    weights = scores.masked_fill(hidden, -1e4).softmax(-1)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


class CrossDecoder(SpokenNetwork):
    """The decoder of an encoder-decoder; how its cache grows is up to those below."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(SIZES.vocabulary, SIZES.width)
        self.positions = nn.Embedding(SIZES.positions, SIZES.width)
        self.blocks = nn.ModuleList(CrossBlock() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(SIZES.width)
        self.head = nn.Linear(SIZES.width, SIZES.vocabulary, bias=False)
        layers = range(LAYERS)
        self.caches = (attention_cache("self", layers), attention_cache("cross", layers, is_fixed=True))

    def run(self, input_ids: Tensor, start: Tensor | int, hidden: Tensor, past: Parts) -> tuple[tuple[Tensor], Parts]:
        """Advances all tokens given, the first of which is at `start`; `hidden` is true where nothing was encoded."""
        steps = torch.arange(input_ids.size(1)) + start
        x = self.tokens(input_ids) + self.positions(steps)
        present = {}
        for i, block in enumerate(self.blocks):
            query, *news = block.self_query_key_value(x)
            pair = [self.write(past[f"self.{i}.{kv}"], new, steps) for kv, new in enumerate(news)]
            present |= {f"self.{i}.{kv}": grown for kv, grown in enumerate(pair)}
            unseen = torch.arange(pair[0].size(2)) > steps.unsqueeze(1)
            attended = attend(query, *pair, unseen)
            x = block.advance(x, attended, (past[f"cross.{i}.0"], past[f"cross.{i}.1"]), hidden)
        return (self.head(self.norm(x)),), present

    def write(self, past: Tensor, new: Tensor, steps: Tensor) -> Tensor:
        """Adds keys or values to those of the past."""
        raise NotImplementedError


class GrowingCrossDecoder(CrossDecoder):
    """New keys and values are appended."""

    def forward(self, input_ids: Tensor, encoder_attention_mask: Tensor, past: Parts) -> tuple[tuple[Tensor], Parts]:
        """Advances all tokens given."""
        hidden = encoder_attention_mask[:, None, None, :] == 0
        return self.run(input_ids, past["self.0.0"].size(2), hidden, past)

    def write(self, past: Tensor, new: Tensor, steps: Tensor) -> Tensor:
        """Appends."""
        return torch.cat((past, new), dim=2)


class InPlaceCrossDecoder(CrossDecoder):
    """New keys and values are written at `offset` into a cache of full length."""

    def forward(self, tokens: Tensor, offset: Tensor, past: Parts) -> tuple[tuple[Tensor], Parts]:
        """Advances all tokens given."""
        return self.run(tokens, offset, torch.zeros(1, dtype=torch.bool), past)

    def write(self, past: Tensor, new: Tensor, steps: Tensor) -> Tensor:
        """Writes over what was there."""
        return past.scatter(2, steps[None, None, :, None].expand_as(new), new)


def randomize(network: NetworkT) -> NetworkT:
    """Gives norms weights and biases that are not those of an untrained network."""
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval().requires_grad_(False)
