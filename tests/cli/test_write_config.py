"""`onnxfix convert --write-config` as it is typed: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_models import SAMPLES, contents

from onnxfix.cli import main

Capture = pytest.CaptureFixture[str]

NAME = "genai_config.json"
CONFIG = {
    "model": {
        "type": "gpt2",
        "decoder": {
            "filename": "model.onnx",
            "inputs": {"past_names": "past_%d"},
            "outputs": {"present_names": "present_%d"},
        },
    }
}
FAST = ("--no-simplify", "--no-verify")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Returns the stacked sample with the file that GenAI reads."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((SAMPLES / "gpt2_stacked.onnx").read_bytes())
    (folder / NAME).write_text(json.dumps(CONFIG, indent=2))
    return folder / "model.onnx"


def write(path: Path, **decoder: object) -> None:
    """Writes the file with other entries."""
    content = {"model": {**CONFIG["model"], "decoder": {**CONFIG["model"]["decoder"], **decoder}}}
    path.write_text(json.dumps(content))


def run(*words: object) -> int:
    """Runs `onnxfix convert`."""
    return main(["convert", *map(str, words)])


@pytest.mark.parametrize("options", [(), ("--check",), ("--diff",), ("--check", "--diff", "--json")])
def test_a_file_that_contradicts_the_model_is_an_error(model: Path, options: tuple[str, ...], capsys: Capture) -> None:
    write(model.parent / NAME, inputs={"past_names": "other_%d"})
    before = contents(model.parent)
    assert run(model, model.parent / "new.onnx", "--to", "genai", "--write-config", *options) == 3
    printed = capsys.readouterr()
    if "--json" in options:
        error = json.loads(printed.out)["error"]
        assert (error["kind"], error["exit_code"]) == ("SideFileError", 3)
    assert "this says `other_%d`, the model's cache `self` is `past_%d`" in printed.err + printed.out
    assert contents(model.parent) == before


def test_a_file_that_is_no_convention_is_a_usage_error(model: Path, capsys: Capture) -> None:
    (model.parent / NAME).write_text("{")
    assert run(model, "--to", model.parent / NAME, "--check") == 2
    assert f"error: {model.parent / NAME}: this is no JSON" in capsys.readouterr().err


def test_the_summary_tells_what_changed(model: Path, capsys: Capture) -> None:
    assert run(model, model, "--to", "genai", "--write-config", *FAST) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    start = lines.index("config model.decoder.inputs.past_key_names = past_key_values.%d.key")
    assert lines[start + 1 : start + 8] == [
        "model.decoder.inputs.past_value_names = past_key_values.%d.value",
        "model.decoder.inputs.past_names goes, was past_%d",
        "model.type = decoder, was gpt2",
        "model.decoder.outputs.present_key_names = present.%d.key",
        "model.decoder.outputs.present_value_names = present.%d.value",
        "model.decoder.outputs.present_names goes, was present_%d",
        next(line for line in lines if line.startswith("time ")),
    ]
    assert lines[-1] == f"wrote {model.parent / NAME}, the old one is {NAME}.orig"


def test_quiet_is_quiet_and_the_file_is_written(model: Path, capsys: Capture) -> None:
    assert run(model, model, "--to", "genai", "--write-config", "--quiet", *FAST) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(contents(model.parent)) == [NAME, f"{NAME}.orig", "model.onnx"]


def test_programs_are_told_too(model: Path, capsys: Capture) -> None:
    assert run(model, model, "--to", "genai", "--write-config", "--json", *FAST) == 0
    (side,) = json.loads(capsys.readouterr().out)["side_files"]
    assert side["kept"] == f"{model.parent / NAME}.orig"
    assert "model.type = decoder, was gpt2" in side["changes"]


def test_check_and_diff_show_the_file_and_write_nothing(model: Path, capsys: Capture) -> None:
    before = contents(model.parent)
    assert run(model, "--to", "genai", "--write-config", "--check") == 1
    assert "  genai_config.json: model.type = decoder, was gpt2\n" in capsys.readouterr().out
    new = model.parent / "new.onnx"
    assert run(model, new, "--to", "genai", "--write-config", "--check", "--json") == 1
    (side,) = json.loads(capsys.readouterr().out)["side_files"]
    assert "model.decoder.filename = new.onnx, was model.onnx" in side["changes"]
    assert run(model, "--to", "genai", "--write-config", "--diff", "--no-simplify") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index(f"--- {model.parent / NAME}") + 1] == f"+++ {model.parent / NAME}"
    assert '-        "past_names": "past_%d"' in lines
    assert '+        "past_key_names": "past_key_values.%d.key",' in lines
    assert run(model, "--to", "genai", "--diff", "--no-simplify") == 1
    assert NAME not in capsys.readouterr().out
    assert contents(model.parent) == before


def test_a_file_alone_may_have_to_change(model: Path, capsys: Capture) -> None:
    new = model.parent / "new.onnx"
    assert run(model, new, "--to", "gpt2-stacked", "--check") == 0
    assert run(model, new, "--to", "gpt2-stacked", "--check", "--write-config") == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "unchanged: the model speaks gpt2-stacked already",
        "  genai_config.json: model.decoder.filename = new.onnx, was model.onnx",
    ]
    assert run(model, new, "--to", "gpt2-stacked", "--write-config") == 0
    assert f"wrote {model.parent / NAME}, the old one is {NAME}.orig" in capsys.readouterr().err


def test_without_the_option_a_note_tells_of_it(model: Path, capsys: Capture) -> None:
    assert run(model, model, "--to", "genai", *FAST) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert f"note `{NAME}` beside the model stays as it is: --write-config writes it for the result" in printed
    assert json.loads((model.parent / NAME).read_text()) == CONFIG


def test_from_and_to_take_the_file(model: Path, capsys: Capture) -> None:
    names = {"past_key_names": "k%d", "past_value_names": "v%d"}
    new = model.parent / "new" / NAME
    new.parent.mkdir()
    new.write_text(json.dumps({"model": {"type": "llama", "decoder": {"filename": "model.onnx", "inputs": names}}}))
    words = ("--from", model.parent / NAME, "--to", new, "--write-config", *FAST)
    assert run(model, new.with_name("model.onnx"), *words) == 0
    assert "converted  gpt2-stacked -> genai_config.json" in capsys.readouterr().err
    assert json.loads(new.read_text())["model"]["decoder"]["inputs"] == names, "written for the result"
    assert (new.parent / f"{NAME}.orig").exists()
    assert run(model, "--from", model.parent / NAME, "--to", "a -> b: time", "--to", new, "--check") == 2
    assert "they cannot be mixed" in capsys.readouterr().err
