"""How each Conformer is driven: what it is fed at a tick, and how its caches are read.

The logical caches are `attention`, layer batch head kv time dim, and `convolution`, layer batch channel time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from agreement import Arrays, Group, Speaker
from networks.conformer import Sizes

from families.conformer_cpu import Mode, modes

TICKS = 8
EXPORTERS_APART = 1e-5  # the two exporters spell norms and scales with other operators


@dataclass(frozen=True)
class Tick:
    """One chunk, batch time feature; its offset; which of cache and chunk may be seen, batch 1 time."""

    chunk: np.ndarray
    offset: int
    required_cache_size: int
    mask: np.ndarray


def split_kv(packed: np.ndarray) -> np.ndarray:
    """Turns ... time (kv dim) into ... kv time dim."""
    return np.stack(np.split(packed, 2, axis=-1), axis=-3)


def join_kv(attention: np.ndarray) -> np.ndarray:
    """Turns ... kv time dim into ... time (kv dim)."""
    return np.concatenate((attention[..., 0, :, :], attention[..., 1, :, :]), axis=-1)


class PackedCache:
    """`att_cache: layer head time (kv dim)`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {"att_cache": join_kv(attention[:, 0])}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        return split_kv(fetches["r_att_cache"])[:, None]


class PerLayerCache:
    """`{kv}_cache_{layer}: batch head time dim`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        labels = list(enumerate(("key", "value")))
        return {f"{kv}_cache_{i}": layer[:, :, j] for i, layer in enumerate(attention) for j, kv in labels}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        layers = range(sum(name.startswith("r_key_cache_") for name in fetches))
        pairs = [(fetches[f"r_key_cache_{layer}"], fetches[f"r_value_cache_{layer}"]) for layer in layers]
        return np.stack([np.stack(pair, axis=2) for pair in pairs])


class StackedCache:
    """`{kv}_cache: layer head time dim`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {"key_cache": attention[:, 0, :, 0], "value_cache": attention[:, 0, :, 1]}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        return np.stack((fetches["r_key_cache"], fetches["r_value_cache"]), axis=2)[:, None]


class BatchPackedCache:
    """`att_cache: batch layer head time (kv dim)`."""

    def past(self, attention: np.ndarray) -> Arrays:
        """Spells the attention cache."""
        return {"att_cache": join_kv(attention.swapaxes(0, 1))}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the attention cache."""
        return split_kv(fetches["r_att_cache"]).swapaxes(0, 1)


@dataclass(frozen=True)
class CpuSpeaker:
    """Speaks the CPU conventions: one stream, one chunk."""

    cache: PackedCache | PerLayerCache | StackedCache

    def ask(self, tick: Tick, state: Arrays) -> Arrays:
        """Gives the feeds of one tick."""
        return {
            "chunk": tick.chunk,
            "offset": np.array(tick.offset),
            "required_cache_size": np.array(tick.required_cache_size),
            **self.cache.past(state["attention"]),
            "cnn_cache": state["convolution"],
            "att_mask": tick.mask,
        }

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives the output and both caches."""
        caches = {"attention": self.cache.present(fetches), "convolution": fetches["r_cnn_cache"]}
        return {"output": fetches["output"]}, caches


@dataclass(frozen=True)
class GpuSpeaker:
    """Speaks the GPU conventions: two streams; the second is the first with its sign changed, and is not heard."""

    cache: BatchPackedCache | PerLayerCache

    def ask(self, tick: Tick, state: Arrays) -> Arrays:
        """Gives the feeds of one tick; mask and offset are states after the first."""
        attention, convolution = (
            np.concatenate((state[name], -state[name]), axis=1) for name in ("attention", "convolution")
        )
        left = attention.shape[-2]
        return {
            "chunk_xs": np.concatenate((tick.chunk, -tick.chunk)),
            "chunk_lens": np.full(2, tick.chunk.shape[1], np.int32),
            "offset": state.get("offset", np.full((2, 1), tick.offset)),
            **self.cache.past(attention),
            "cnn_cache": convolution.swapaxes(0, 1),
            "cache_mask": state.get("mask", np.repeat(tick.mask[:, :, :left], 2, axis=0).astype(np.float32)),
        }

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives what was said of the first stream, and the state."""
        reply = {"output": fetches["chunk_out"][:1], "scores": fetches["log_probs"], "words": fetches["log_probs_idx"]}
        state = {
            "attention": self.cache.present(fetches)[:, :1],
            "convolution": fetches["r_cnn_cache"].swapaxes(0, 1)[:, :1],
            "offset": fetches["r_offset"],
            "mask": fetches["r_cache_mask"],
        }
        return reply, state


@dataclass(frozen=True)
class BpuSpeaker:
    """`att_cache: batch (layer head) (kv dim) time`, `cnn_cache: batch channel layer time`."""

    sizes: Sizes

    def ask(self, tick: Tick, state: Arrays) -> Arrays:
        """Gives the feeds of one tick; the mask is spread over heads and chunk."""
        sizes = self.sizes
        attention = state["attention"].transpose(1, 0, 2, 3, 5, 4)
        mask_shape = (1, sizes.heads, sizes.chunk, tick.mask.shape[-1])
        return {
            "chunk": tick.chunk[:, None],
            "att_cache": attention.reshape(1, sizes.layers * sizes.heads, 2 * sizes.dim, -1),
            "cnn_cache": state["convolution"].transpose(1, 2, 0, 3),
            "att_mask": np.broadcast_to(tick.mask[:, None], mask_shape).astype(np.float32),
        }

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives the output and both caches."""
        sizes = self.sizes
        attention = fetches["r_att_cache"].reshape(1, sizes.layers, sizes.heads, 2, sizes.dim, -1)
        caches = {
            "attention": attention.transpose(1, 0, 2, 3, 5, 4),
            "convolution": fetches["r_cnn_cache"].transpose(2, 0, 1, 3),
        }
        return {"output": fetches["output"].squeeze(2).swapaxes(1, 2)}, caches


def groups(sizes: Sizes) -> Iterator[Group[Tick]]:
    """Gives what must agree: all conventions in 16/4 mode, all in 16/-1 mode, and the BPU's with the packed one."""
    windowed, growing = modes(sizes)
    packed, per_layer = CpuSpeaker(PackedCache()), CpuSpeaker(PerLayerCache())
    yield make_group(
        "Conformer, 16/4 mode",
        sizes,
        windowed,
        {
            "conformer_packed": packed,
            "conformer_kv": per_layer,
            "conformer_kv_stacked": CpuSpeaker(StackedCache()),
            "conformer_packed_dynamo": packed,
            "conformer_kv_dynamo": per_layer,
            "conformer_gpu": GpuSpeaker(BatchPackedCache()),
            "conformer_gpu_kv": GpuSpeaker(PerLayerCache()),
            "conformer_gpu_dynamo": GpuSpeaker(BatchPackedCache()),
            "conformer_gpu_kv_dynamo": GpuSpeaker(PerLayerCache()),
        },
    )
    growers = {"conformer_packed_grow": packed, "conformer_kv_grow": per_layer}
    growers |= {f"{name}_dynamo": speaker for name, speaker in growers.items()}
    yield make_group("Conformer, 16/-1 mode", sizes, growing, growers)
    fixed = {"conformer_packed": packed, "conformer_bpu": BpuSpeaker(sizes)}
    yield make_group("Conformer, 16/4 mode, offset held at the length of the cache", sizes, windowed, fixed, step=0)


def make_group(
    title: str, sizes: Sizes, mode: Mode, speakers: dict[str, Speaker[Tick]], step: int | None = None
) -> Group[Tick]:
    """Makes the ticks of a group, and a random state to start from; `step` is what a tick adds to the offset."""
    random = np.random.default_rng(7)
    state = {
        "attention": random.standard_normal(
            (sizes.layers, 1, sizes.heads, 2, mode.cache_length, sizes.dim), dtype=np.float32
        ),
        "convolution": random.standard_normal((sizes.layers, 1, sizes.channels, sizes.context), dtype=np.float32),
    }
    step = sizes.chunk if step is None else step
    ticks = []
    for i in range(TICKS):
        mask = np.ones((1, 1, sizes.left + sizes.chunk), dtype=bool)
        # Half of the first cache counts as empty.
        mask[:, :, : max(sizes.left // 2 - i * sizes.chunk, 0)] = False
        chunk = random.standard_normal((1, sizes.window, sizes.features), dtype=np.float32)
        ticks.append(Tick(chunk, mode.cache_length + i * step, mode.required_cache_size, mask))
    tolerance = {name: EXPORTERS_APART for name in speakers if name.endswith("_dynamo")}
    return Group(title, speakers, ticks, state, tolerance)
