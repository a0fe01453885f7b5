"""The Conformer for one stream in which every tensor has four axes and every size is fixed.

The ports are those of WeNet's `BPUConformerEncoder` (wenet/bin/export_onnx_bpu.py), made for a processor that knows
pictures only: time is the last axis, layers share an axis with heads or stand beside channels, keys lie transposed.
There is no offset. WeNet has no positions then; here, where the weights are those of the other samples, they stay as
they are for an offset as long as the cache.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from networks.conformer import Attention, Conformer, KeyValue


class BpuAttention(nn.Module):
    """The weights of an `Attention`, at work on keys and values that are batch head dim time."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def split_heads(self, x: Tensor) -> Tensor:
        """Turns batch time (head dim) into batch head dim time."""
        return x.transpose(1, 2).reshape(1, self.attention.heads, self.attention.dim, -1)

    def forward(self, x: Tensor, mask: Tensor, pos_emb: Tensor, cache: KeyValue) -> tuple[Tensor, KeyValue]:
        """Attends from the chunk `x` to cache and chunk; `mask` is batch head time time."""
        weights = self.attention
        query = self.split_heads(weights.query(x)).transpose(2, 3)
        key = torch.cat((cache[0], self.split_heads(weights.key(x))), dim=3)
        value = torch.cat((cache[1], self.split_heads(weights.value(x))), dim=3)
        position = self.split_heads(weights.position(pos_emb))

        content_scores = torch.matmul(query + weights.bias_u.unsqueeze(1), key)
        position_scores = torch.matmul(query + weights.bias_v.unsqueeze(1), position)
        hidden = mask.eq(0)
        scores = ((content_scores + position_scores) / math.sqrt(weights.dim)).masked_fill(hidden, -math.inf)
        attended = torch.matmul(value, scores.softmax(-1).masked_fill(hidden, 0.0).transpose(2, 3))
        return weights.out(attended.flatten(1, 2).transpose(1, 2)), (key, value)


class BpuEncoder(nn.Module):
    """`att_cache: batch (layer head) (kv dim) time`, `cnn_cache: batch channel layer time`."""

    def __init__(self, conformer: Conformer) -> None:
        super().__init__()
        self.conformer = copy.deepcopy(conformer)
        for layer in self.conformer.layers:
            layer.attention = BpuAttention(layer.attention)

    def forward(
        self, chunk: Tensor, att_cache: Tensor, cnn_cache: Tensor, att_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advances one chunk, batch 1 time feature, to batch channel 1 time."""
        sizes = self.conformer.sizes
        x = self.conformer.embed(chunk.squeeze(1))
        pos_emb = self.conformer.positions.slice(0, sizes.left + sizes.chunk)
        att_pasts = att_cache.split(sizes.heads, dim=1)
        cnn_pasts = cnn_cache.split(1, dim=2)
        att_caches, cnn_caches = [], []
        for i, layer in enumerate(self.conformer.layers):
            key_value = att_pasts[i].split(sizes.dim, dim=2)
            x, new_key_value, new_context = layer(x, att_mask, pos_emb, key_value, cnn_pasts[i].squeeze(2))
            att_caches.append(torch.cat(new_key_value, dim=2)[:, :, :, sizes.chunk :])
            cnn_caches.append(new_context.unsqueeze(2))
        output = self.conformer.norm(x).transpose(1, 2).unsqueeze(2)
        return output, torch.cat(att_caches, dim=1), torch.cat(cnn_caches, dim=2)
