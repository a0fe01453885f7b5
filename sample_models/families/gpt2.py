"""The decoder under ONNX Runtime's convention and under Optimum's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from agreement import Arrays, Group
from exporting import ANY_BATCH, Recipe, for_dynamo
from networks.gpt2 import Gpt2, PerLayerDecoder, Sizes, StackedDecoder

OPSET = 14
EXPORTERS_APART = 1e-5  # the two exporters spell norms with other operators
BATCH, PRESENT, PAST = 2, 3, 5  # what is exported with


def recipes(gpt2: Gpt2) -> Iterator[Recipe]:
    """Gives the recipes of both conventions by both exporters."""
    longest = gpt2.sizes.positions - 1
    yield stacked(gpt2)
    yield for_dynamo(stacked(gpt2), {"batch_size": ANY_BATCH, "seq_len": (1, longest), "past_seq_len": (0, longest)})
    yield per_layer(gpt2)
    yield for_dynamo(
        per_layer(gpt2),
        {"batch_size": ANY_BATCH, "sequence_length": (1, longest), "past_sequence_length": (0, longest)},
    )


def tokens(sizes: Sizes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gives tokens, positions and mask to export with."""
    input_ids = torch.randint(sizes.vocabulary, (BATCH, PRESENT))
    position_ids = torch.arange(PAST, PAST + PRESENT).repeat(BATCH, 1)
    return input_ids, position_ids, torch.ones(BATCH, PAST + PRESENT, dtype=torch.int64)


def stacked(gpt2: Gpt2) -> Recipe:
    """`past_{layer}: kv batch head time dim`, with the names of ONNX Runtime's GPT-2 script, tokens as int64."""
    sizes = gpt2.sizes
    input_ids, position_ids, attention_mask = tokens(sizes)
    past = tuple(torch.randn(2, BATCH, sizes.heads, PAST, sizes.dim) for _ in range(sizes.layers))
    past_names = [f"past_{layer}" for layer in range(sizes.layers)]
    present_names = [f"present_{layer}" for layer in range(sizes.layers)]
    present = {0: "batch_size", 1: "seq_len"}
    return Recipe(
        name="gpt2_stacked",
        network=StackedDecoder(gpt2),
        arguments=(input_ids, position_ids, attention_mask, past),
        inputs=("input_ids", "position_ids", "attention_mask", *past_names),
        outputs=("logits", *present_names),
        opset=OPSET,
        dynamic_axes={
            "input_ids": present,
            "position_ids": present,
            "attention_mask": {0: "batch_size", 1: "total_seq_len"},
            **{name: {1: "batch_size", 3: "past_seq_len"} for name in past_names},
            "logits": present,
            **{name: {1: "batch_size", 3: "total_seq_len"} for name in present_names},
        },
    )


def per_layer(gpt2: Gpt2) -> Recipe:
    """`past_key_values.{layer}.{kv}: batch head time dim`, with the names of Optimum, of its dims too."""
    sizes = gpt2.sizes
    input_ids, position_ids, attention_mask = tokens(sizes)
    shape = (BATCH, sizes.heads, PAST, sizes.dim)
    past = tuple((torch.randn(shape), torch.randn(shape)) for _ in range(sizes.layers))
    endings = [f"{layer}.{kv}" for layer in range(sizes.layers) for kv in ("key", "value")]
    past_names = [f"past_key_values.{ending}" for ending in endings]
    present_names = [f"present.{ending}" for ending in endings]
    present, total = {0: "batch_size", 1: "sequence_length"}, "past_sequence_length + sequence_length"
    return Recipe(
        name="gpt2_kv",
        network=PerLayerDecoder(gpt2),
        arguments=(input_ids, attention_mask, position_ids, past),
        inputs=("input_ids", "attention_mask", "position_ids", *past_names),
        outputs=("logits", *present_names),
        opset=OPSET,
        dynamic_axes={
            "input_ids": present,
            "attention_mask": {0: "batch_size", 1: total},
            "position_ids": present,
            **{name: {0: "batch_size", 2: "past_sequence_length"} for name in past_names},
            "logits": present,
            **{name: {0: "batch_size", 2: total} for name in present_names},
        },
    )


@dataclass(frozen=True)
class Tick:
    """Some tokens, batch time, and which of all tokens up to them are none, batch time."""

    input_ids: np.ndarray
    attention_mask: np.ndarray

    @property
    def position_ids(self) -> np.ndarray:
        """The positions of the tokens, batch time; padding has none."""
        positions: np.ndarray = np.maximum(self.attention_mask.cumsum(axis=1) - 1, 0)
        return positions[:, -self.input_ids.shape[1] :]


class DecoderSpeaker:
    """Feeds the ports that both conventions share; the logical cache is `past`, layer batch head kv time dim."""

    def past(self, past: np.ndarray) -> Arrays:
        """Spells the cache."""
        raise NotImplementedError

    def present(self, fetches: Arrays) -> Any:
        """Reads the cache."""
        raise NotImplementedError

    def ask(self, tick: Tick, state: Arrays) -> Arrays:
        """Gives the feeds of one tick."""
        return {
            "input_ids": tick.input_ids,
            "attention_mask": tick.attention_mask,
            "position_ids": tick.position_ids,
            **self.past(state["past"]),
        }

    def hear(self, fetches: Arrays) -> tuple[Arrays, Arrays]:
        """Gives logits and cache."""
        return {"logits": fetches["logits"]}, {"past": self.present(fetches)}


class StackedSpeaker(DecoderSpeaker):
    """`past_{layer}: kv batch head time dim`."""

    def past(self, past: np.ndarray) -> Arrays:
        """Spells the cache."""
        return {f"past_{i}": layer.transpose(2, 0, 1, 3, 4) for i, layer in enumerate(past)}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the cache."""
        layers = range(sum(name.startswith("present_") for name in fetches))
        return np.stack([fetches[f"present_{layer}"].transpose(1, 2, 0, 3, 4) for layer in layers])


class PerLayerSpeaker(DecoderSpeaker):
    """`past_key_values.{layer}.{kv}: batch head time dim`."""

    def past(self, past: np.ndarray) -> Arrays:
        """Spells the cache."""
        labels = list(enumerate(("key", "value")))
        return {f"past_key_values.{i}.{kv}": layer[:, :, j] for i, layer in enumerate(past) for j, kv in labels}

    def present(self, fetches: Arrays) -> np.ndarray:
        """Reads the cache."""
        layers = range(sum(name.endswith(".key") for name in fetches))
        pairs = [(fetches[f"present.{layer}.key"], fetches[f"present.{layer}.value"]) for layer in layers]
        return np.stack([np.stack(pair, axis=2) for pair in pairs])


def groups(sizes: Sizes) -> Iterator[Group[Tick]]:
    """Gives one group: a prompt after a random past, then few tokens at a time; the second row starts with padding."""
    random = np.random.default_rng(8)
    past = random.standard_normal((sizes.layers, 2, sizes.heads, 2, 3, sizes.dim), dtype=np.float32)
    ticks, total = [], past.shape[-2]
    for count in (5, 1, 1, 3, 1, 1):
        total += count
        mask = np.ones((2, total), dtype=np.int64)
        mask[1, :2] = 0
        ticks.append(Tick(random.integers(sizes.vocabulary, size=(2, count)), mask))
    speakers: dict[str, DecoderSpeaker] = {
        "gpt2_stacked": StackedSpeaker(),
        "gpt2_kv": PerLayerSpeaker(),
        "gpt2_stacked_dynamo": StackedSpeaker(),
        "gpt2_kv_dynamo": PerLayerSpeaker(),
    }
    tolerance = {name: EXPORTERS_APART for name in speakers if name.endswith("_dynamo")}
    yield Group("GPT-2", speakers, ticks, {"past": past}, tolerance)
