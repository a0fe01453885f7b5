"""The small Zipformer and cache-aware encoder: their conventions, and how they are driven."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from exporting import ANY_BATCH
from networks import small_conformer, small_zipformer
from networks.small import randomize

from families.spoken import Interface, Subject

BATCH, TICKS = 2, 6

ICEFALL = {
    "key": ["cached_key_{layer} -> new_cached_key_{layer}: time batch dim"],
    "nonlin_attn": ["cached_nonlin_attn_{layer} -> new_cached_nonlin_attn_{layer}: 1 batch time dim"],
    "val1": ["cached_val1_{layer} -> new_cached_val1_{layer}: time batch dim"],
    "val2": ["cached_val2_{layer} -> new_cached_val2_{layer}: time batch dim"],
    "conv1": ["cached_conv1_{layer} -> new_cached_conv1_{layer}: batch channel time"],
    "conv2": ["cached_conv2_{layer} -> new_cached_conv2_{layer}: batch channel time"],
    "embed": ["embed_states -> new_embed_states: batch channel time bin"],
    "lengths": ["processed_lens -> new_processed_lens: batch"],
}
# The same with the batch in front everywhere, as servers want it.
BATCH_FIRST = {
    "key": ["key_{layer} -> next_key_{layer}: batch time dim"],
    "nonlin_attn": ["nonlin_attn_{layer} -> next_nonlin_attn_{layer}: batch time dim"],
    "val1": ["val1_{layer} -> next_val1_{layer}: batch time dim"],
    "val2": ["val2_{layer} -> next_val2_{layer}: batch time dim"],
    "conv1": ["conv1_{layer} -> next_conv1_{layer}: batch time channel"],
    "conv2": ["conv2_{layer} -> next_conv2_{layer}: batch time channel"],
    "embed": ["embed -> next_embed: batch time channel bin"],
    "lengths": ["processed_lens -> new_processed_lens: batch"],
}
ZIPFORMER_INTERFACES = (
    Interface("icefall-zipformer2", ICEFALL, order=("layer", "cache"), past_dims={"batch": "N"}),
    Interface("batch-first", BATCH_FIRST, order=("layer", "cache"), past_dims={"batch": "N"}),
)

LENGTH = "cache_last_channel_len -> cache_last_channel_next_len: batch"
NEMO = {
    "channel": ["cache_last_channel -> cache_last_channel_next: batch layer time channel"],
    "time": ["cache_last_time -> cache_last_time_next: batch layer channel time"],
}
# What the network has before NeMo exports it.
LAYER_FIRST = {
    "channel": ["cache_last_channel -> cache_last_channel_next: layer batch time channel"],
    "time": ["cache_last_time -> cache_last_time_next: layer batch channel time"],
}
PER_LAYER = {
    "channel": ["channel_{layer} -> next_channel_{layer}: batch time channel"],
    "time": ["time_{layer} -> next_time_{layer}: batch channel time"],
}
NEMO_INTERFACES = (
    Interface("nemo", {**NEMO, "length": [LENGTH]}, past_dims={"batch": "batch"}),
    Interface(
        "genai-nemotron", {**NEMO, "length": [LENGTH.replace("_next_len", "_len_next")]}, past_dims={"batch": "batch"}
    ),
    Interface("layer-first", {**LAYER_FIRST, "length": [LENGTH]}, past_dims={"batch": "batch"}),
    Interface("per-layer", {**PER_LAYER, "length": [LENGTH]}, past_dims={"batch": "batch"}),
)


def families() -> Iterator[tuple[Subject, Sequence[Interface]]]:
    """Gives each network with its conventions."""
    yield zipformer(), ZIPFORMER_INTERFACES
    yield cache_aware(), NEMO_INTERFACES


def zipformer() -> Subject:
    """Describes the Zipformer."""
    torch.manual_seed(41)
    network = randomize(small_zipformer.Zipformer())
    shapes = small_zipformer.cache_shapes(BATCH)
    state = {key: torch.randn(shape) for key, shape in shapes.items()} | {"lengths": torch.tensor([5, 0])}
    random = np.random.default_rng(41)
    shape = (BATCH, small_zipformer.FRAMES, small_zipformer.FEATURES)
    return Subject(
        name="zipformer",
        network=network,
        given={"x": torch.randn(shape)},
        outputs=("encoder_out",),
        axes={"x": {0: "N"}, "encoder_out": {0: "N"}},
        state=state,
        limits={"batch": ANY_BATCH},
        ticks=[{"x": random.standard_normal(shape, dtype=np.float32)} for _ in range(TICKS)],
        metadata=small_zipformer.metadata(),
    )


def cache_aware() -> Subject:
    """Describes the cache-aware encoder; one stream after the other has a chunk that is not full."""
    torch.manual_seed(42)
    layers, sizes = range(small_conformer.LAYERS), small_conformer
    state = {f"channel.{i}": torch.randn(BATCH, sizes.LEFT, sizes.WIDTH) for i in layers}
    state |= {f"time.{i}": torch.randn(BATCH, sizes.WIDTH, sizes.CONTEXT) for i in layers}
    state |= {"length": torch.tensor([3, 0])}
    random = np.random.default_rng(42)
    shape, lengths = (BATCH, sizes.FEATURES, sizes.FRAMES), np.array([sizes.FRAMES, sizes.FRAMES - sizes.RATE])
    axes = {0: "batch"}
    return Subject(
        name="cacheaware",
        network=randomize(sizes.CacheAwareEncoder()),
        given={"audio_signal": torch.randn(shape), "length": torch.from_numpy(lengths)},
        outputs=("outputs", "encoded_lengths"),
        axes={"audio_signal": axes, "length": axes, "outputs": axes, "encoded_lengths": axes},
        state=state,
        limits={"batch": ANY_BATCH},
        ticks=[
            {"audio_signal": random.standard_normal(shape, dtype=np.float32), "length": np.roll(lengths, tick)}
            for tick in range(TICKS)
        ],
    )
