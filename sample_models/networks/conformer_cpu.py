"""The Conformer for one chunk of one stream, under the conventions that its caches can have at a model's boundary.

The arguments are those of WeNet's `encoder.forward_chunk` (wenet/models/transformer/encoder.py), and the packed cache
moves as it does there. In 16/-1 mode `required_cache_size` is negative and there is no mask: nothing is ever dropped or
hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.conformer import Conformer, KeyValue

Cache = Tensor | tuple[KeyValue, ...]


class StreamingEncoder(nn.Module):
    """What the CPU conventions have in common: the chunk, its position, and where the next cache starts."""

    def __init__(self, conformer: Conformer) -> None:
        super().__init__()
        self.conformer = conformer

    def begin(self, chunk: Tensor, offset: int, cache_length: int) -> tuple[Tensor, Tensor, int]:
        """Embeds the chunk; returns it, the positions over cache and chunk, and their number."""
        x = self.conformer.embed(chunk)
        key_length = cache_length + x.size(1)
        return x, self.conformer.positions.slice(offset - cache_length, key_length), key_length


def next_cache_start(key_length: int, required_cache_size: int) -> int:
    """Says where the next cache starts in the keys: all is kept if the required size is negative."""
    if required_cache_size < 0:
        return 0
    start = key_length - required_cache_size
    return torch.sym_max(start, 0) if isinstance(start, torch.SymInt) else max(start, 0)


class PackedEncoder(StreamingEncoder):
    """`att_cache: layer head time (kv dim)`, `cnn_cache: layer batch channel time`."""

    def forward(
        self,
        chunk: Tensor,
        offset: int,
        required_cache_size: int,
        att_cache: Tensor,
        cnn_cache: Tensor,
        att_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advances one chunk."""
        x, pos_emb, key_length = self.begin(chunk, offset, att_cache.size(2))
        start = next_cache_start(key_length, required_cache_size)
        att_caches, cnn_caches = [], []
        for i, layer in enumerate(self.conformer.layers):
            cache = att_cache[i : i + 1]
            size = att_cache.size(-1) // 2
            key_value = (cache[:, :, :, :size], cache[:, :, :, size:])
            x, new_key_value, new_context = layer(x, att_mask, pos_emb, key_value, cnn_cache[i])
            new_cache = torch.cat(new_key_value, dim=-1)
            att_caches.append(new_cache[:, :, start:, :])
            cnn_caches.append(new_context.unsqueeze(0))
        return self.conformer.norm(x), torch.cat(att_caches, dim=0), torch.cat(cnn_caches, dim=0)


class PerLayerEncoder(StreamingEncoder):
    """`key_cache_{layer}`, `value_cache_{layer}`: batch head time dim; `cnn_cache: layer batch channel time`."""

    def forward(
        self,
        chunk: Tensor,
        offset: int,
        required_cache_size: int,
        key_values: tuple[KeyValue, ...],
        cnn_cache: Tensor,
        att_mask: Tensor | None,
    ) -> tuple[Tensor, tuple[KeyValue, ...], Tensor]:
        """Advances one chunk; keys and values are handed through as they are."""
        x, pos_emb, key_length = self.begin(chunk, offset, key_values[0][0].size(2))
        start = next_cache_start(key_length, required_cache_size)
        new_key_values, cnn_caches = [], []
        for i, layer in enumerate(self.conformer.layers):
            x, (key, value), new_context = layer(x, att_mask, pos_emb, key_values[i], cnn_cache[i])
            new_key_values.append((key[:, :, start:, :], value[:, :, start:, :]))
            cnn_caches.append(new_context.unsqueeze(0))
        return self.conformer.norm(x), tuple(new_key_values), torch.cat(cnn_caches, dim=0)


class StackedEncoder(StreamingEncoder):
    """`key_cache`, `value_cache`: layer head time dim; `cnn_cache: layer batch channel time`."""

    def forward(
        self,
        chunk: Tensor,
        offset: int,
        required_cache_size: int,
        key_cache: Tensor,
        value_cache: Tensor,
        cnn_cache: Tensor,
        att_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Advances one chunk."""
        x, pos_emb, key_length = self.begin(chunk, offset, key_cache.size(2))
        start = next_cache_start(key_length, required_cache_size)
        keys, values, cnn_caches = [], [], []
        for i, layer in enumerate(self.conformer.layers):
            key_value = (key_cache[i : i + 1], value_cache[i : i + 1])
            x, (key, value), new_context = layer(x, att_mask, pos_emb, key_value, cnn_cache[i])
            keys.append(key[:, :, start:, :])
            values.append(value[:, :, start:, :])
            cnn_caches.append(new_context.unsqueeze(0))
        return self.conformer.norm(x), torch.cat(keys, dim=0), torch.cat(values, dim=0), torch.cat(cnn_caches, dim=0)


class WindowedTensors(nn.Module):
    """Takes the integers of a CPU convention as tensors, for torch.export, to which an integer is a constant."""

    def __init__(self, encoder: PackedEncoder | PerLayerEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        chunk: Tensor,
        offset: Tensor,
        required_cache_size: Tensor,
        cache: Cache,
        cnn_cache: Tensor,
        att_mask: Tensor,
    ) -> tuple[Tensor, Cache, Tensor]:
        """Advances one chunk, and keeps a window of the cache."""
        required = required_cache_size.item()
        torch._check(required >= 0)
        result: tuple[Tensor, Cache, Tensor] = self.encoder(chunk, offset.item(), required, cache, cnn_cache, att_mask)
        return result


class GrowingTensors(nn.Module):
    """The same in 16/-1 mode."""

    def __init__(self, encoder: PackedEncoder | PerLayerEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, chunk: Tensor, offset: Tensor, cache: Cache, cnn_cache: Tensor) -> tuple[Tensor, Cache, Tensor]:
        """Advances one chunk, and keeps the whole cache."""
        result: tuple[Tensor, Cache, Tensor] = self.encoder(chunk, offset.item(), -1, cache, cnn_cache, None)
        return result
