"""The Conformer for a batch of streams, each with an offset and a mask of its own.

Ports and data flow are those of WeNet's `StreamingEncoder` (wenet/bin/export_onnx_gpu.py), which Triton serves: all
caches are batch first, the size of the window is a constant, and offset and mask of the cache are states like them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.conformer import Conformer, KeyValue, Subsampling

BEAM = 5  # the candidates given for each frame

Frames = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class BatchEncoder(nn.Module):
    """What the batched conventions have in common: embedding, masks, positions, and the scores after the last layer."""

    def __init__(self, conformer: Conformer) -> None:
        super().__init__()
        self.conformer = conformer
        self.start = -conformer.sizes.left

    def begin(
        self, chunk_xs: Tensor, chunk_lens: Tensor, offset: Tensor, cache_length: int, cache_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeds the chunks; returns them, the mask over cache and chunk, and the positions."""
        present = torch.arange(chunk_xs.size(1)).unsqueeze(0) < chunk_lens.unsqueeze(1)
        chunk_mask = present.unsqueeze(1).to(chunk_xs.dtype)[:, :, 2::2][:, :, 2::2]
        x = self.conformer.embed(chunk_xs)
        mask = torch.cat((cache_mask, chunk_mask), dim=2)
        pos_emb = self.conformer.positions.gather(offset.squeeze(1) - cache_length, cache_length + x.size(1))
        return x, mask, pos_emb

    def end(self, x: Tensor, chunk_lens: Tensor, offset: Tensor) -> Frames:
        """Gives the best words of each frame with their scores, the frames, their number, and the next offset."""
        chunk_out = self.conformer.norm(x)
        log_probs, log_probs_idx = self.conformer.ctc(chunk_out).log_softmax(2).topk(BEAM, dim=2)
        chunk_out_lens = chunk_lens // Subsampling.rate
        return log_probs, log_probs_idx, chunk_out, chunk_out_lens, offset + chunk_out.size(1)


class GpuEncoder(BatchEncoder):
    """`att_cache: batch layer head time (kv dim)`, `cnn_cache: batch layer channel time`."""

    def forward(
        self,
        chunk_xs: Tensor,
        chunk_lens: Tensor,
        offset: Tensor,
        att_cache: Tensor,
        cnn_cache: Tensor,
        cache_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """Advances one chunk of every stream."""
        att_cache = att_cache.transpose(0, 1)
        cnn_cache = cnn_cache.transpose(0, 1)
        x, mask, pos_emb = self.begin(chunk_xs, chunk_lens, offset, att_cache.size(3), cache_mask)
        att_caches, cnn_caches = [], []
        for i, layer in enumerate(self.conformer.layers):
            cache = att_cache[i]
            size = att_cache.size(-1) // 2
            key_value = (cache[:, :, :, :size], cache[:, :, :, size:])
            x, new_key_value, new_context = layer(x, mask, pos_emb, key_value, cnn_cache[i])
            new_cache = torch.cat(new_key_value, dim=-1)
            att_caches.append(new_cache[:, :, self.start :, :].unsqueeze(1))
            cnn_caches.append(new_context.unsqueeze(1))
        frames = self.end(x, chunk_lens, offset)
        return *frames, torch.cat(att_caches, dim=1), torch.cat(cnn_caches, dim=1), mask[:, :, self.start :]


class GpuPerLayerEncoder(BatchEncoder):
    """`key_cache_{layer}`, `value_cache_{layer}`: batch head time dim; `cnn_cache: batch layer channel time`."""

    def forward(
        self,
        chunk_xs: Tensor,
        chunk_lens: Tensor,
        offset: Tensor,
        key_values: tuple[KeyValue, ...],
        cnn_cache: Tensor,
        cache_mask: Tensor,
    ) -> tuple[Tensor | tuple[KeyValue, ...], ...]:
        """Advances one chunk of every stream; keys and values are handed through as they are."""
        cnn_cache = cnn_cache.transpose(0, 1)
        x, mask, pos_emb = self.begin(chunk_xs, chunk_lens, offset, key_values[0][0].size(2), cache_mask)
        new_key_values, cnn_caches = [], []
        for i, layer in enumerate(self.conformer.layers):
            x, (key, value), new_context = layer(x, mask, pos_emb, key_values[i], cnn_cache[i])
            new_key_values.append((key[:, :, self.start :, :], value[:, :, self.start :, :]))
            cnn_caches.append(new_context.unsqueeze(1))
        frames = self.end(x, chunk_lens, offset)
        return *frames, tuple(new_key_values), torch.cat(cnn_caches, dim=1), mask[:, :, self.start :]
