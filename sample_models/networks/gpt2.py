"""A decoder in the manner of GPT-2: learned positions, norms before each block, keys and values carried along.

Arrays, in the project's layout language:
    key, value: batch head time dim, float32
    attention_mask: batch time (over past and present tokens), int64, 0 where a token is padding
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sizes:
    """The sizes of one decoder."""

    vocabulary: int = 61
    positions: int = 96
    width: int = 28
    heads: int = 4
    layers: int = 3
    hidden: int = 56

    @property
    def dim(self) -> int:
        """The width of one head."""
        return self.width // self.heads


class Attention(nn.Module):
    """Causal self attention over past and present tokens."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.dim = sizes.heads, sizes.dim
        self.query_key_value = nn.Linear(sizes.width, 3 * sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)

    def split_heads(self, x: Tensor) -> Tensor:
        """Turns batch time (head dim) into batch head time dim."""
        return x.view(x.size(0), x.size(1), self.heads, self.dim).transpose(1, 2)

    def forward(self, x: Tensor, causal: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:
        """Attends from the present tokens to all; returns the output and the grown keys and values."""
        query, key, value = (self.split_heads(part) for part in self.query_key_value(x).chunk(3, dim=2))
        key = torch.cat((past[0], key), dim=2)
        value = torch.cat((past[1], value), dim=2)

        length = key.size(2)
        visible = causal[:, :, length - query.size(2) : length, :length]
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.dim)
        weights = (torch.where(visible, scores, -1e4) + bias).softmax(-1)
        return self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2)), (key, value)


class Block(nn.Module):
    """Attention and a feed forward, each after a norm and beside a residual."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(sizes.width)
        self.attention = Attention(sizes)
        self.norm_feed_forward = nn.LayerNorm(sizes.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(sizes.width, sizes.hidden), nn.GELU("tanh"), nn.Linear(sizes.hidden, sizes.width)
        )

    def forward(self, x: Tensor, causal: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:
        """Advances the present tokens by one block."""
        attended, present = self.attention(self.norm_attention(x), causal, bias, past)
        x = x + attended
        return x + self.feed_forward(self.norm_feed_forward(x)), present


class Gpt2(nn.Module):
    """All weights: one instance is exported under every convention."""

    causal: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.width)
        self.positions = nn.Embedding(sizes.positions, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        ones = torch.ones(1, 1, sizes.positions, sizes.positions, dtype=torch.bool)
        self.register_buffer("causal", ones.tril())

    def embed(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the input of the first block, and what is added to the scores of tokens that are padding."""
        x = self.tokens(input_ids) + self.positions(position_ids)
        return x, (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4

    def logits(self, x: Tensor) -> Tensor:
        """Scores every word of the vocabulary after the last block."""
        scores: Tensor = self.head(self.norm(x))
        return scores


class StackedDecoder(nn.Module):
    """`past_{layer}: kv batch head time dim`: each layer takes its past apart and stacks its present."""

    def __init__(self, gpt2: Gpt2) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, past: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Advances all tokens given."""
        x, bias = self.gpt2.embed(input_ids, position_ids, attention_mask)
        presents = []
        for block, layer_past in zip(self.gpt2.blocks, past, strict=True):
            x, present = block(x, self.gpt2.causal, bias, (layer_past[0], layer_past[1]))
            presents.append(torch.stack(present))
        return self.gpt2.logits(x), tuple(presents)


class PerLayerDecoder(nn.Module):
    """`past_key_values.{layer}.{kv}: batch head time dim`: keys and values are handed through as they are."""

    def __init__(self, gpt2: Gpt2) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: tuple[KeyValue, ...]
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Advances all tokens given."""
        x, bias = self.gpt2.embed(input_ids, position_ids, attention_mask)
        presents = []
        for block, layer_past in zip(self.gpt2.blocks, past, strict=True):
            x, present = block(x, self.gpt2.causal, bias, layer_past)
            presents.append(present)
        return self.gpt2.logits(x), tuple(presents)


def make_gpt2(sizes: Sizes, seed: int = 21) -> Gpt2:
    """Builds a decoder with random weights."""
    torch.manual_seed(seed)
    gpt2 = Gpt2(sizes)
    for module in gpt2.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.2)
    return gpt2.eval().requires_grad_(False)
