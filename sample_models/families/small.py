"""The small decoder, hybrid, and decoders of encoder-decoders: their conventions, and how they are driven."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from exporting import ANY_BATCH
from networks.small import CONTEXT, LAYERS, SIZES, Decoder, GrowingCrossDecoder, Hybrid, InPlaceCrossDecoder, randomize
from torch import Tensor

from families.spoken import Feeds, Interface, Subject

BATCH, PRESENT, PAST, SOURCE = 2, 3, 4, 6  # what is exported with
COUNTS = (4, 1, 1, 3, 1, 1)  # of tokens, a call
TOTAL = "past_sequence_length + sequence_length"
PRESENT_DIMS = {0: "batch_size", 1: "sequence_length"}
DECODER_DIMS = {0: "batch_size", 1: "decoder_sequence_length"}

OPTIMUM = "past_key_values.{layer}.{kv} -> present.{layer}.{kv}: batch head time dim"
OPTIMUM_DIMS = {"batch": "batch_size", "time": "past_sequence_length"}
HISTORY_DIMS = {"batch": "batch_size", "time": "history_len"}

DECODER_INTERFACES = (
    Interface("optimum", {"self": [OPTIMUM]}, past_dims=OPTIMUM_DIMS, present_dims={"time": TOTAL}),
    Interface(
        "genai",
        {"self": [OPTIMUM]},
        order=("cache", "kv", "layer"),
        past_dims=OPTIMUM_DIMS,
        present_dims={"time": "total_sequence_length"},
    ),
    Interface(
        "bloom",
        {
            "self": [
                "past_key_values.{layer}.{kv=key} -> present.{layer}.{kv=key}: (batch head) dim time",
                "past_key_values.{layer}.{kv=value} -> present.{layer}.{kv=value}: (batch head) time dim",
            ]
        },
        past_dims={"(batch head)": "batch_size x num_heads", "time": "past_sequence_length"},
        present_dims={"time": TOTAL},
    ),
    Interface(
        "bigcode-mha",
        {"self": ["past_key_values.{layer}.key_value -> present.{layer}.key_value: batch head time (kv dim)"]},
        past_dims=OPTIMUM_DIMS,
        present_dims={"time": TOTAL},
    ),
    Interface(
        "llm-export",
        {"self": ["past_key_values -> presents: layer kv batch time head dim"]},
        past_dims=HISTORY_DIMS,
        present_dims={"time": "total_len"},
    ),
    Interface(
        "trt-edge",
        {"self": ["past_key_values_{layer} -> present_key_values_{layer}: batch kv head time dim"]},
        past_dims={"batch": "batch_size", "time": "past_len"},
        present_dims={"time": "total_len"},
    ),
    Interface(
        "native-llm",
        {
            "self": [
                "in_{kv=key}_{layer} -> out_{kv=key}_{layer}: head batch dim time",
                "in_{kv=value}_{layer} -> out_{kv=value}_{layer}: head batch time dim",
            ]
        },
        order=("cache", "kv", "layer"),
        past_dims=HISTORY_DIMS,
        present_dims={"time": "history_len_plus_ids_len"},
    ),
)

HYBRID_INTERFACES = (
    Interface(
        "transformers-js-hybrid",
        {"conv": ["past_conv.{layer} -> present_conv.{layer}: batch channel context"], "self": [OPTIMUM]},
        order=("layer", "kv"),
        past_dims=OPTIMUM_DIMS,
        present_dims={"time": TOTAL},
    ),
    Interface(
        "genai-lfm2",
        {"conv": ["past.{layer}.conv -> present.{layer}.conv: batch channel context"], "self": [OPTIMUM]},
        order=("layer", "kv"),
        past_dims=OPTIMUM_DIMS,
        present_dims={"time": "total_sequence_length"},
    ),
)

ENCODED = "encoder_sequence_length"
CROSS_INTERFACES = (
    Interface(
        "optimum-seq2seq",
        {
            "self": ["past_key_values.{layer}.decoder.{kv} -> present.{layer}.decoder.{kv}: batch head time dim"],
            "cross": ["past_key_values.{layer}.encoder.{kv}: batch head time dim"],
        },
        order=("layer", "cache", "kv"),
        past_dims={"batch": "batch_size", "time": "past_decoder_sequence_length", "cross.time": ENCODED},
        present_dims={"time": "past_decoder_sequence_length + decoder_sequence_length"},
    ),
    Interface(
        "ort-t5",
        {
            "self": ["past_{kv}_self_{layer} -> present_{kv}_self_{layer}: batch head time dim"],
            "cross": ["past_{kv}_cross_{layer}: batch head time dim"],
        },
        past_dims={"batch": "batch_size", "time": "past_decode_sequence_length", "cross.time": ENCODED},
        present_dims={"time": "total_decode_sequence_length"},
        dtypes={"input_ids": torch.int32, "encoder_attention_mask": torch.int32},
    ),
    Interface(
        "moonshine-streaming",
        {
            "self": ["{kv:k,v}_self -> out_{kv:k,v}_self: layer batch head time dim"],
            "cross": ["out_{kv:k,v}_cross: layer batch head time dim"],
        },
        past_dims={"batch": "batch_size", "time": "past_length", "cross.time": ENCODED},
        present_dims={"time": "total_length"},
        ports={"input_ids": "token"},
    ),
)

WHISPER_INTERFACES = (
    Interface(
        "sherpa-whisper",
        {
            "self": ["in_n_layer_self_{kv:k,v}_cache -> out_n_layer_self_{kv:k,v}_cache: layer batch time (head dim)"],
            "cross": ["n_layer_cross_{kv:k,v}: layer batch time (head dim)"],
        },
        last=("offset",),
        past_dims={"batch": "n_audio", "cross.time": "T"},
    ),
    # The same as one would hand it through: one tensor a layer, with heads.
    Interface(
        "per-layer",
        {
            "self": ["self_{kv:k,v}_{layer} -> new_self_{kv:k,v}_{layer}: batch head time dim"],
            "cross": ["cross_{kv:k,v}_{layer}: batch head time dim"],
        },
        past_dims={"batch": "n_audio", "cross.time": "T"},
    ),
)


def families() -> Iterator[tuple[Subject, Sequence[Interface]]]:
    """Gives each network with its conventions."""
    torch.manual_seed(31)
    yield with_mask("decoder", Decoder(), key_values("self", range(LAYERS), PAST)), DECODER_INTERFACES
    torch.manual_seed(32)
    contexts = {f"conv.{layer}": torch.randn(BATCH, SIZES.width, CONTEXT) for layer in (0, 2)}
    yield with_mask("hybrid", Hybrid(), {**contexts, **key_values("self", (1, 3), PAST)}), HYBRID_INTERFACES
    torch.manual_seed(33)
    yield growing(), CROSS_INTERFACES
    yield in_place(), WHISPER_INTERFACES


def key_values(name: str, layers: Sequence[int], length: int) -> dict[str, Tensor]:
    """Gives random keys and values."""
    shape = (BATCH, SIZES.heads, length, SIZES.dim)
    return {f"{name}.{layer}.{kv}": torch.randn(shape) for layer in layers for kv in (0, 1)}


def tokens() -> Tensor:
    """Gives tokens to export with."""
    return torch.randint(SIZES.vocabulary, (BATCH, PRESENT))


def with_mask(name: str, network: Decoder | Hybrid, state: Mapping[str, Tensor]) -> Subject:
    """Describes a decoder with a mask over all tokens, and with positions."""
    given = {
        "input_ids": tokens(),
        "attention_mask": torch.ones(BATCH, PAST + PRESENT, dtype=torch.int64),
        "position_ids": torch.arange(PAST, PAST + PRESENT).repeat(BATCH, 1),
    }
    return Subject(
        name=name,
        network=randomize(network),
        given=given,
        outputs=("logits",),
        axes={
            "input_ids": PRESENT_DIMS,
            "attention_mask": {0: "batch_size", 1: TOTAL},
            "position_ids": PRESENT_DIMS,
            "logits": PRESENT_DIMS,
        },
        state=state,
        limits={"batch": ANY_BATCH, "time": (0, SIZES.positions - 1), "sequence_length": (1, SIZES.positions - 1)},
        ticks=list(ticks_with_mask()),
    )


def ticks_with_mask() -> Iterator[Feeds]:
    """Gives a few calls; the second row begins with padding."""
    random = np.random.default_rng(31)
    total = PAST
    for count in COUNTS:
        total += count
        mask = np.ones((BATCH, total), dtype=np.int64)
        mask[1, :2] = 0
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -count:]
        ids = random.integers(SIZES.vocabulary, size=(BATCH, count))
        yield {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def growing() -> Subject:
    """Describes the decoder whose cache grows."""
    random = np.random.default_rng(33)
    mask = np.ones((BATCH, SOURCE), dtype=np.int64)
    mask[1, -2:] = 0
    ticks = [
        {"input_ids": random.integers(SIZES.vocabulary, size=(BATCH, count)), "encoder_attention_mask": mask}
        for count in COUNTS
    ]
    layers = range(LAYERS)
    return Subject(
        name="seq2seq",
        network=randomize(GrowingCrossDecoder()),
        given={"input_ids": tokens(), "encoder_attention_mask": torch.from_numpy(mask)},
        outputs=("logits",),
        axes={
            "input_ids": DECODER_DIMS,
            "encoder_attention_mask": {0: "batch_size", 1: ENCODED},
            "logits": DECODER_DIMS,
        },
        state={**key_values("self", layers, PAST), **key_values("cross", layers, SOURCE)},
        limits={
            "batch": ANY_BATCH,
            "time": (0, SIZES.positions - 1),
            "decoder_sequence_length": (1, SIZES.positions - 1),
            ENCODED: (1, 512),
        },
        ticks=ticks,
    )


def in_place() -> Subject:
    """Describes the decoder that writes at an offset."""
    random = np.random.default_rng(34)
    starts = np.cumsum((PAST, *COUNTS[:-1]))
    ticks = [
        {"tokens": random.integers(SIZES.vocabulary, size=(BATCH, count)), "offset": np.array([start])}
        for start, count in zip(starts, COUNTS, strict=True)
    ]
    layers, axes = range(LAYERS), {0: "n_audio", 1: "n_tokens"}
    return Subject(
        name="whisper",
        network=randomize(InPlaceCrossDecoder()),
        given={"tokens": tokens(), "offset": torch.tensor([PAST])},
        outputs=("logits",),
        axes={"tokens": axes, "logits": axes},
        state={**key_values("self", layers, SIZES.positions), **key_values("cross", layers, SOURCE)},
        limits={"batch": ANY_BATCH, "n_tokens": (1, SIZES.positions - 1), "T": (1, 512)},
        ticks=ticks,
    )
