"""ONNX Runtime GenAI runs what `convert --to genai --write-config` makes of an old GPT-2, to the same tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import groups
import numpy as np
import onnxruntime
import pytest

import onnxfix
from onnxfix.cli import main

SAMPLES = Path(__file__).parents[2] / "sample_models"
STACKED = SAMPLES / "gpt2_stacked.onnx"
END, COUNT = 60, 24
"""The token that ends a sequence, which the model is not let choose, and how many are generated."""
IDS = ("input_ids", "attention_mask", "position_ids")
PROMPTS = [[3, 14, 15, 9, 26], [5, 35, 8, 9, 7]]
CONFIG = {
    "model": {
        "type": "gpt2",
        "pad_token_id": END,
        "bos_token_id": END,
        "eos_token_id": END,
        "vocab_size": 61,
        "context_length": 64,
        "decoder": {
            "session_options": {"provider_options": []},
            "filename": "model.onnx",
            "num_key_value_heads": 4,
            "head_size": 7,
            "num_hidden_layers": 3,
            "inputs": {"past_names": "past_%d"},
            "outputs": {"present_names": "present_%d"},
        },
    },
    "search": {"past_present_share_buffer": True},
}
"""As in GenAI's own tests of GPT-2: microsoft/onnxruntime-genai, test/models/hf-internal-testing."""


def by_hand(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns what the source generates in ONNX Runtime, its stacked caches carried from call to call."""
    session = onnxruntime.InferenceSession(STACKED, providers=["CPUExecutionProvider"])
    tokens = np.array(prompts, np.int64)
    past = {f"past_{layer}": np.zeros((2, len(prompts), 4, 0, 7), np.float32) for layer in range(3)}
    new, done = tokens, 0
    for _ in range(COUNT):
        total = done + new.shape[1]
        positions = np.broadcast_to(np.arange(done, total), new.shape)
        mask = np.ones((len(prompts), total), np.int64)
        logits, *present = session.run(
            None, {"input_ids": new, "position_ids": positions, "attention_mask": mask, **past}
        )
        logits[:, -1, END] = -np.inf
        new, done = logits[:, -1].argmax(-1)[:, None], total
        tokens = np.concatenate([tokens, new], axis=1)
        past = {f"past_{layer}": array for layer, array in enumerate(present)}
    return tokens.tolist()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Returns a folder with an old GPT-2 that GenAI runs."""
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(STACKED, folder / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps(CONFIG, indent=2))
    return folder


def run(folder: Path, prompts: Sequence[Sequence[int]] = PROMPTS[:1]) -> dict[str, object]:
    """Returns what GenAI makes of a folder: `tokens` or `error`."""
    script = str(Path(__file__).with_name("genai_generate.py"))
    printed = groups.run("genai", script, str(folder), str(COUNT), json.dumps([*prompts]))
    return json.loads(printed.splitlines()[-1])


def convert(old: Path, *words: str, name: str = "new") -> Path:
    """Converts a folder's model, with the file beside it, into a new folder."""
    new = old.parent / name
    new.mkdir()
    assert main(["convert", str(old / "model.onnx"), str(new / "model.onnx"), *words, "--quiet"]) == 0
    return new


def test_without_the_side_file_it_does_not_load(old: Path) -> None:
    new = convert(old, "--to", "genai")
    shutil.copy(old / "genai_config.json", new)
    assert str(run(new)["error"]).startswith("Model input was not found")


def test_the_type_gpt2_is_for_stacked_caches_alone(old: Path) -> None:
    new = convert(old, "--to", "genai", "--write-config")
    text = (new / "genai_config.json").read_text()
    (new / "genai_config.json").write_text(text.replace('"decoder",', '"gpt2",', 1))
    assert str(run(new)["error"]).startswith("Model input was not found")


def test_shared_buffers_are_not_for_caches_that_grow(old: Path) -> None:
    new = convert(old, "--to", "genai", "--write-config")
    text = (new / "genai_config.json").read_text()
    (new / "genai_config.json").write_text(text.replace("false", "true", 1))
    assert "Concat" in str(run(new)["error"])


def test_integers_of_two_types_are_refused_as_the_note_says(old: Path) -> None:
    new = convert(old, "--to", "genai", "--write-config", "--cast", "position_ids=int32")
    assert run(new)["error"] == "position_ids & attention_mask must have the same data type"


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "batch"])
def test_source_and_result_generate_the_same_tokens(old: Path, prompts: list[list[int]]) -> None:
    expected = {"tokens": by_hand(prompts)}
    assert run(old, prompts) == expected, "as it is, as the type gpt2"
    new = convert(old, "--to", "genai", "--write-config")
    assert run(new, prompts) == expected
    back = convert(new, "--to", "gpt2-stacked", "--write-config", name="back")
    assert run(back, prompts) == expected
    assert json.loads((back / "genai_config.json").read_text())["model"]["type"] == "gpt2"


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "{kv:k,v}_in_{layer} -> {kv:k,v}_out_{layer}: batch head time dim"),
        ("--to", "genai", "--rename", "input_ids=ids", "--rename", "logits=scores", "--rename", "attention_mask=mask"),
        ("--to", "genai", *(word for name in IDS for word in ("--cast", f"{name}=int32"))),
        ("--to", "optimum"),
    ],
    ids=["other names", "other ports", "int32", "optimum"],
)  # fmt: skip
def test_other_names_and_types_run_too(old: Path, words: tuple[str, ...]) -> None:
    assert run(convert(old, *words, "--write-config")) == {"tokens": by_hand(PROMPTS[:1])}


def test_a_model_becomes_what_a_file_says(old: Path) -> None:
    there = json.loads(json.dumps(CONFIG))
    decoder = there["model"]["decoder"]
    there["model"]["type"] = "llama"
    there["search"] = {}
    decoder["inputs"] = {"past_key_names": "k%d", "past_value_names": "v%d"}
    decoder["outputs"] = {"present_key_names": "new_k%d", "present_value_names": "new_v%d"}
    new = old.parent / "new"
    new.mkdir()
    (new / "genai_config.json").write_text(json.dumps(there))
    onnxfix.convert(old / "model.onnx", new / "model.onnx", to=new / "genai_config.json")
    assert run(new) == {"tokens": by_hand(PROMPTS[:1])}
