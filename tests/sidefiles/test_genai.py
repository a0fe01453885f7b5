"""`genai_config.json` follows a conversion: what it cannot follow, what changes, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from files import APART, GENAI, GPU, STACKED, beside, genai, plan, spoken

from onnxfix.errors import ExitCode, SideFileError
from onnxfix.sidefiles.change import SideFile
from onnxfix.sidefiles.genai import follow

NAME = "genai_config.json"
STACKED_NAMES = {"inputs": {"past_names": "past_%d"}, "outputs": {"present_names": "present_%d"}}
APART_NAMES = {
    "inputs": {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
    "outputs": {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
}


def followed(
    text: str, model: Path, to: str | tuple[str, ...], *, new: str = "model.onnx", **edits: tuple[tuple[str, str], ...]
) -> SideFile:
    """Returns what becomes of a file beside a model."""
    return follow(beside(text, NAME, new=new), plan(model, to, **edits))


def changed(text: str, old: str, new: str) -> str:
    """Returns a text with a part replaced that stands there."""
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        (GENAI[:200], "this is no JSON", NAME),
        ("{}", "there is no object `model`", NAME),
        ('{"model": []}', "an object is expected here", "model"),
        ('{"model": {"decoder": 5}}', "an object is expected here", "model.decoder"),
        ('{"model": {"decoder": {"filename": ["model.onnx"]}}}', "a string is expected here", "model.decoder.filename"),
        ('{"model": {"decoder": {}}}', "this file speaks of no model, not of `model.onnx`", NAME),
        (genai(filename="other.onnx"), "this file speaks of `other.onnx`, not of `model.onnx`", NAME),
        (genai(inputs=None).replace('"filename"', '"inputs": null, "filename"'), "an object", "model.decoder.inputs"),
        (genai(inputs=7), "an object is expected here", "model.decoder.inputs"),
        (genai(inputs={"past_names": 7}), "a string is expected here", "model.decoder.inputs.past_names"),
        (genai(outputs=["present_%d"]), "an object is expected here", "model.decoder.outputs"),
        (
            genai(inputs={"past_names": "pasts_%d"}),
            "this says `pasts_%d`, the model's cache `self` is `past_%d`",
            "model.decoder.inputs.past_names",
        ),
        (
            genai(outputs={"present_names": "x_%d"}),
            "this says `x_%d`, the model's cache `self` is `present_%d`",
            "model.decoder.outputs.present_names",
        ),
        (
            genai(inputs={"past_key_names": "k.%d", "past_value_names": "v.%d"}),
            "this says nothing, the model's cache `self` is `past_%d`",
            "model.decoder.inputs.past_names",
        ),
        (changed(GENAI, '"gpt2"', "2"), "a string is expected here", "model.type"),
    ],
)  # fmt: skip
def test_what_contradicts_the_model_is_refused(text: str, message: str, where: str) -> None:
    with pytest.raises(SideFileError) as caught:
        followed(text, STACKED, "genai")
    assert caught.value.message.startswith(message)
    assert caught.value.where.endswith(where)
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED


@pytest.mark.parametrize(
    "to",
    [
        "bigcode-mha",
        "trt-edge",
        "llm-export",
        "past_{layer}.{kv} -> present_{layer}.{kv}: batch time head dim",
        "{kv}s -> new_{kv}s: layer batch head time dim",
    ],
)
def test_caches_that_genai_cannot_take_are_refused(to: str) -> None:
    with pytest.raises(SideFileError, match=r"GenAI cannot be told of the cache `self`: `[^`]+` is `[^`]+`") as caught:
        followed(GENAI, STACKED, to)
    assert "leave --write-config out" in caught.value.hint


def test_stacked_caches_become_separate_ones() -> None:
    side = followed(GENAI, STACKED, "genai")
    before, after = json.loads(GENAI), json.loads(side.after)
    assert after["model"]["decoder"] == {**before["model"]["decoder"], **APART_NAMES}
    assert after["model"]["type"] == "decoder", "GenAI takes gpt2 for stacked caches, whatever else the file says"
    assert after["search"] == {"past_present_share_buffer": False}, "which it never did for gpt2"
    assert side.notes == ()
    assert set(before["model"]) == set(after["model"])


def test_separate_caches_become_stacked_ones() -> None:
    there = followed(GENAI, STACKED, "genai").after
    back = followed(there, APART, "gpt2-stacked").after
    assert json.loads(back) == json.loads(changed(GENAI, "true", "false"))
    assert back == changed(GENAI, "true", "false"), "and not only in what it means"


def test_what_is_not_touched_stays_byte_for_byte() -> None:
    text = changed(changed(GENAI, '"vocab_size": 61', '"vocab_size":\t61'), "\n", "\r\n")
    side = followed(text, STACKED, "genai")
    before, after = set(text.split("\n")), set(side.after.split("\n"))
    assert len(before - after) == 4
    assert len(after - before) == 6
    assert side.after.count("\n") == side.after.count("\r\n")
    assert side.is_changed


def test_what_holds_without_being_said_is_not_said() -> None:
    side = followed(changed(genai(inputs=None, outputs=None), "gpt2", "llama"), APART, "genai")
    assert not side.is_changed
    side = followed(genai(inputs=None, outputs=None), STACKED, "genai")
    assert side.changes == ("model.type = decoder, was gpt2", "search.past_present_share_buffer = false, was true")


def test_a_file_that_already_speaks_of_the_result_stays() -> None:
    text = changed(genai(**APART_NAMES), "gpt2", "llama")
    assert not followed(text, STACKED, "genai").is_changed


def test_missing_tables_are_made() -> None:
    text = changed(genai(inputs=None, outputs=None), "gpt2", "decoder")
    after = json.loads(followed(text, APART, ("{kv:k,v}{layer} -> new_{kv:k,v}{layer}: batch head time dim",)).after)
    assert after["model"]["decoder"]["inputs"] == {"past_key_names": "k%d", "past_value_names": "v%d"}
    assert after["model"]["decoder"]["outputs"] == {"present_key_names": "new_k%d", "present_value_names": "new_v%d"}
    after = json.loads(followed(text, APART, "gpt2-stacked").after)
    assert after["model"]["decoder"]["inputs"] == STACKED_NAMES["inputs"]
    assert after["model"]["type"] == "gpt2"


def test_the_model_may_have_another_name() -> None:
    side = followed(GENAI, STACKED, "genai", new="new.onnx")
    assert json.loads(side.after)["model"]["decoder"]["filename"] == "new.onnx"
    assert "model.decoder.filename = new.onnx, was model.onnx" in side.changes
    assert json.loads(followed(genai(filename="new.onnx"), STACKED, "genai", new="new.onnx").after)


def test_other_ports_are_renamed_too() -> None:
    text = genai(inputs={"past_names": "past_%d", "attention_mask": "attention_mask"})
    renames = (("attention_mask", "mask"), ("logits", "scores"), ("position_ids", "at"))
    side = followed(text, STACKED, "genai", rename=renames)
    decoder = json.loads(side.after)["model"]["decoder"]
    assert decoder["inputs"] == {**APART_NAMES["inputs"], "attention_mask": "mask", "position_ids": "at"}
    assert decoder["outputs"] == {**APART_NAMES["outputs"], "logits": "scores"}


def test_names_that_no_pattern_gives_are_refused() -> None:
    with pytest.raises(SideFileError, match="named with one pattern"):
        followed(GENAI, STACKED, "genai", rename=(("present.0.key", "odd"),))


@pytest.mark.parametrize(
    ("decoder", "note"),
    [
        ({"num_key_value_heads": 5}, "genai_config.json says num_key_value_heads = 5, the model has 4"),
        ({"head_size": 64}, "genai_config.json says head_size = 64, the model has 7"),
        ({"num_hidden_layers": 12}, "genai_config.json says num_hidden_layers = 12, the model has 3"),
    ],
)
def test_sizes_that_genai_would_go_by_are_told(decoder: dict[str, object], note: str) -> None:
    (found,) = followed(genai(**decoder), STACKED, "genai").notes
    assert found == f"{note}: GenAI goes by the file"


def test_integers_that_genai_refuses_are_told() -> None:
    (note,) = followed(GENAI, STACKED, "genai", cast=(("position_ids", "int32"),)).notes
    assert note == (
        "GenAI wants one type for `attention_mask` and `position_ids`, not int64 and int32: --cast position_ids=int64"
    )
    (note,) = followed(GENAI, STACKED, "genai", cast=(("attention_mask", "float32"),)).notes
    assert note.startswith("GenAI feeds int32 or int64 to `attention_mask`, which is float32: --cast")
    both = (("position_ids", "int32"), ("attention_mask", "int32"))
    assert followed(GENAI, STACKED, "genai", cast=both).notes == ()


def test_another_network_altogether_is_refused() -> None:
    with pytest.raises(SideFileError, match="the model's cache `attention` is something else"):
        followed(genai(), GPU, "wenet-gpu-kv")


def config(section: str, kind: str = "x", **names: dict[str, str]) -> str:
    """Returns a file for the model of one section."""
    return json.dumps({"model": {"type": kind, section: {"filename": "model.onnx", **names}}})


def section(text: str, source: str, target: str) -> dict[str, object]:
    """Returns the section of a file after a conversion between two conventions of the library."""
    model = json.loads(follow(beside(text, NAME), spoken(source, target)).after)["model"]
    (found,) = (value for value in model.values() if isinstance(value, dict))
    return {key: value for key, value in found.items() if key != "filename"}


def test_caches_of_layers_without_attention_follow() -> None:
    text = config(
        "decoder", inputs={"past_conv_names": "past_conv.%d"}, outputs={"present_conv_names": "present_conv.%d"}
    )
    assert section(text, "transformers-js-hybrid", "genai-lfm2") == {
        "inputs": {"past_conv_names": "past.%d.conv"},
        "outputs": {"present_conv_names": "present.%d.conv"},
    }
    assert section(config("decoder"), "transformers-js-hybrid", "genai-lfm2") == {
        "inputs": {"past_conv_names": "past.%d.conv"},
        "outputs": {"present_conv_names": "present.%d.conv"},
    }
    assert section(text, "genai-lfm2", "genai-lfm2") == section(
        text, "transformers-js-hybrid", "transformers-js-hybrid"
    )


def test_names_that_genai_derives_need_no_key() -> None:
    assert section(config("decoder"), "mobius-hybrid", "genai-qwen3-next") == {}


def test_caches_that_are_only_read_follow() -> None:
    names = {"past_key_names": "past_key_self_%d", "past_value_names": "past_value_self_%d"}
    cross = {"cross_past_key_names": "past_key_cross_%d", "cross_past_value_names": "past_value_cross_%d"}
    outputs = {"present_key_names": "present_key_self_%d", "present_value_names": "present_value_self_%d"}
    text = config("decoder", inputs={**names, **cross}, outputs=outputs)
    found = section(text, "ort-whisper", "optimum-seq2seq")
    assert found["inputs"] == {
        "past_key_names": "past_key_values.%d.decoder.key",
        "past_value_names": "past_key_values.%d.decoder.value",
        "cross_past_key_names": "past_key_values.%d.encoder.key",
        "cross_past_value_names": "past_key_values.%d.encoder.value",
    }
    assert found["outputs"] == {
        "present_key_names": "present.%d.decoder.key",
        "present_value_names": "present.%d.decoder.value",
    }


def test_caches_of_one_tensor_follow() -> None:
    text = config("encoder", outputs={"cache_last_channel_len_next": "cache_last_channel_next_len"})
    assert section(text, "nemo", "genai-nemotron")["outputs"] == {
        "cache_last_channel_len_next": "cache_last_channel_len_next"
    }
    assert section(config("encoder"), "nemo", "genai-nemotron") == {}, "the names are GenAI's own afterwards"
    assert section(config("encoder"), "genai-nemotron", "nemo") == {
        "outputs": {"cache_last_channel_len_next": "cache_last_channel_next_len"}
    }


def test_what_no_key_names_is_told() -> None:
    text = config("decoder", inputs={"past_conv_names": "conv.%d"})
    side = follow(beside(text, NAME), spoken("mobius-hybrid", "transformers-js-hybrid"))
    assert "genai_config.json has no key for `past_conv.0` of the cache `conv`" in side.notes
