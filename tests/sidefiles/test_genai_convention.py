"""A convention from a `genai_config.json`: what is none, and which names it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from files import APART, GENAI, STACKED, genai

import onnxfix
from onnxfix.convention.load import library, parse_convention
from onnxfix.convention.writing import to_toml
from onnxfix.errors import ConventionError, ExitCode, LayoutError
from onnxfix.request import read_convention


def written(tmp_path: Path, content: object) -> Path:
    """Returns a file of GenAI's name with a text, or with what is to be written as JSON."""
    path = tmp_path / "genai_config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def config(kind: str, **names: dict[str, str]) -> dict[str, object]:
    """Returns a file for a model of some type."""
    section = "encoder" if kind == "nemotron_speech" else "decoder"
    return {"model": {"type": kind, section: {"filename": "model.onnx", **names}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "this is no JSON"),
        ("[]", "this is no JSON object"),
        ({}, "there is no `model.type`"),
        (config("gpt2"), "a pattern of names is missing here"),
        (config("gpt2", inputs={"past_names": "past"}), "`past` does not hold one %d, for the layer"),
        (config("gpt2", inputs={"past_names": "p%d_%d"}), "`p%d_%d` does not hold one %d, for the layer"),
        (config("gpt2", inputs={"past_names": "p%02d"}), "`p%02d` does not hold one %d, for the layer"),
        (config("llama", inputs={"past_key_names": "p%d", "past_value_names": "p%d"}), "keys and values have one"),
        (config("whisper"), "a pattern of names is missing here"),
    ],
)  # fmt: skip
def test_what_is_no_convention_is_refused(tmp_path: Path, content: object, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConventionError) as caught:
        read_convention(path, option="--to")
    assert caught.value.message.startswith(message)
    assert caught.value.where.startswith(str(path))
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConventionError, match="there is no such file") as error:
        read_convention(str(tmp_path / "genai_config.json"), option="--to")
    assert "spelled" in error.value.hint
    (tmp_path / "genai_config.json").mkdir()
    with pytest.raises(ConventionError, match="this is no regular file"):
        read_convention(tmp_path / "genai_config.json", option="--to")


def test_names_that_no_sentence_can_say_are_refused(tmp_path: Path) -> None:
    names = {"past_key_names": "k{%d", "past_value_names": "v{%d"}
    with pytest.raises(LayoutError):
        read_convention(written(tmp_path, config("llama", inputs=names)), option="--to")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("llama", "genai"), ("decoder", "genai"), ("a type of tomorrow", "genai")],
)
def test_what_is_not_said_is_as_in_the_library(tmp_path: Path, kind: str, name: str) -> None:
    assert read_convention(written(tmp_path, config(kind)), option="--to") is library()[name]


@pytest.mark.parametrize(
    ("content", "past", "present"),
    [
        (
            config("gpt2", inputs={"past_names": "past_%d"}, outputs={"present_names": "out_%d"}),
            ["past_{layer}"],
            ["out_{layer}"],
        ),
        (
            config("llama", inputs={"past_key_names": "k_%d", "past_value_names": "v_%d"}),
            ["{kv:k,v}_{layer}"],
            ["present.{layer}.{kv}"],
        ),
        (
            config("llama", inputs={"past_key_names": "key%d_in", "past_value_names": "in_%dv"}),
            ["key{layer}_in{kv=key:}", "in_{layer}v{kv=value:}"],
            ["present.{layer}.key{kv=key:}", "present.{layer}.value{kv=value:}"],
        ),
        (
            config("lfm2", inputs={"past_key_names": "past.%d.k", "past_value_names": "past.%d.v"}),
            ["past.{layer}.{kv:k,v}"],
            ["present.{layer}.{kv}"],
        ),
    ],
)
def test_names_are_those_of_the_file(tmp_path: Path, content: object, past: list[str], present: list[str]) -> None:
    found = read_convention(written(tmp_path, content), option="--to")
    assert found.name == "genai_config.json"
    assert parse_convention(to_toml(found), where="written") == found
    assert [str(spec.template) for spec in found.caches[0].past] == past
    assert [str(spec.template) for spec in found.caches[0].present] == present


def test_other_caches_and_ports_have_the_names_of_the_file_too(tmp_path: Path) -> None:
    found = read_convention(written(tmp_path, config("lfm2")), option="--to")
    assert str(found.caches[1].past[0]) == "past_conv.{layer}: batch channel time"
    whisper = {"past_key_names": "ks%d", "past_value_names": "vs%d"}
    cross = {"cross_past_key_names": "kc%d", "cross_past_value_names": "vc%d", "encoder_hidden_states": "heard"}
    found = read_convention(written(tmp_path, config("whisper", inputs={**whisper, **cross})), option="--to")
    assert [str(cache.past[0].template) for cache in found.caches] == ["{kv:k,v}s{layer}", "{kv:k,v}c{layer}"]
    assert "heard" in [port.name for port in found.inputs]
    ports = {"cache_last_channel": "channel", "cache_last_channel_len": "seen"}
    found = read_convention(written(tmp_path, config("nemotron_speech", inputs=ports)), option="--to")
    assert [str(cache.past[0].template) for cache in found.caches] == ["channel", "cache_last_time", "seen"]
    found = read_convention(written(tmp_path, config("llama", inputs={"input_ids": "ids"})), option="--to")
    assert found.input_order == ("ids", "attention_mask", "position_ids", "self")
    qwen = {"past_key_names": "p.%d.key", "past_value_names": "p.%d.value"}
    found = read_convention(written(tmp_path, config("qwen3_5_text", inputs=qwen)), option="--to")
    assert {str(cache.past[0].template) for cache in found.caches[1:]} == {
        "p.{layer}.conv_state",
        "p.{layer}.recurrent_state",
    }


def test_a_model_is_converted_to_what_a_file_says_and_back(tmp_path: Path) -> None:
    there = written(tmp_path, config("llama", inputs={"past_key_names": "k%d", "past_value_names": "v%d"}))
    report = onnxfix.convert(STACKED, tmp_path / "new.onnx", to=there, simplify=False)
    assert [port.name for port in report.after.inputs][3:] == ["k0", "k1", "k2", "v0", "v1", "v2"]
    assert report.target == "genai_config.json"
    old = tmp_path / "old" / "genai_config.json"
    old.parent.mkdir()
    old.write_text(GENAI)
    back = onnxfix.convert(tmp_path / "new.onnx", tmp_path / "back.onnx", from_=str(there), to=str(old), simplify=False)
    assert [port.name for port in back.after.inputs][3:] == ["past_0", "past_1", "past_2"]
    assert back.proof is not None
    assert back.proof.is_exact
    assert onnxfix.convert(APART, to=genai_of(tmp_path), simplify=False, verify=False).target == "genai"


def genai_of(tmp_path: Path) -> Path:
    """Returns a file with the names that GenAI takes by itself."""
    text = genai(inputs=None, outputs=None).replace("gpt2", "llama")
    return written(tmp_path / "old", text)
