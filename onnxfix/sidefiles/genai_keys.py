"""What the keys of `genai_config.json` name, and the patterns in it.

Read in microsoft/onnxruntime-genai: src/config.h (what holds where a key is missing) and src/config.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from onnxfix.convention.route import Block
from onnxfix.sidefiles.jsontext import JsonText
from onnxfix.sidefiles.names import GENAI

STACKED, APART = "gpt2", "decoder"
"""The type of a model whose keys and values come stacked, and one that decoders with separate ones may have."""
DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "inputs": {
        "input_ids": "input_ids",
        "inputs_embeds": "inputs_embeds",
        "attention_mask": "attention_mask",
        "position_ids": "position_ids",
        "encoder_hidden_states": "encoder_hidden_states",
        "encoder_attention_mask": "encoder_attention_mask",
        "past_sequence_length": "past_sequence_length",
        "current_sequence_length": "current_sequence_length",
        "total_sequence_length": "total_sequence_length",
        "past_key_values_length": "past_key_values_length",
        "rnn_states_prev": "rnn_states_prev",
        "input_lengths": "length",
        "cache_last_channel": "cache_last_channel",
        "cache_last_time": "cache_last_time",
        "cache_last_channel_len": "cache_last_channel_len",
        "audio_features": "audio_features",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
        "past_conv_names": "past_conv.%d",
    },
    "outputs": {
        "logits": "logits",
        "rnn_states": "rnn_states",
        "encoder_outputs": "encoder_outputs",
        "output_lengths": "encoded_lengths",
        "cache_last_channel_next": "cache_last_channel_next",
        "cache_last_time_next": "cache_last_time_next",
        "cache_last_channel_len_next": "cache_last_channel_len_next",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
        "present_conv_names": "present_conv.%d",
    },
}
"""What a name is where the file does not say it. Keys that are not here have no default."""
SECTIONS = ("decoder", "encoder", "draft")
"""The parts of the file that speak of one model each."""


def section_of(text: JsonText, old: str, new: str) -> str:
    """Returns the part of the file that speaks of the model.

    Raises:
        SideFileError: None does.
    """
    if text.table_at("model") is None:
        raise text.fail("there is no object `model`", hint=f"This is no {GENAI} that GenAI reads.")
    files = {}
    for section in SECTIONS:
        if text.table_at("model", section) is not None:
            files[section] = text.text_at("model", section, "filename")
    for wanted in (old, new):
        for section, name in files.items():
            if name == wanted:
                return section
    named = " and ".join(f"`{name}`" for name in files.values() if name) or "no model"
    hint = f"Give the model the name that the file says, or put `{old}` there: model.decoder.filename"
    raise text.fail(f"this file speaks of {named}, not of `{old}`", hint=hint)


def value_of(text: JsonText, section: str, side: str, key: str) -> str:
    """Returns what holds for a key in `inputs` or `outputs`, said or not; empty for nothing.

    Raises:
        SideFileError: What is said is no string.
    """
    text.table_at("model", section, side)
    said = text.text_at("model", section, side, key)
    return DEFAULTS[side].get(key, "") if said is None else said


def pattern_of(blocks: Iterable[Block]) -> str | None:
    """Returns the pattern with `%d` for the layer that gives the names of the tensors; None if no pattern does."""
    names = {dict(block.labels)["layer"]: block.name for block in blocks}
    if any("%" in name for name in names.values()):
        return None
    layer, name = max(names.items())
    patterns = [f"{name[: found.start()]}%d{name[found.end() :]}" for found in re.finditer(str(layer), name)]
    fitting = [one for one in patterns if all(one.replace("%d", str(at)) == text for at, text in names.items())]
    return fitting[-1] if fitting else None
