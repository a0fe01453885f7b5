"""An error that names an option is right about it: whoever follows the hint gets on."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from cli_models import FROM, SAMPLES, TO, save, two_layers, with_open_dims

from onnxfix.cli import main

VAD = onnx.load(SAMPLES / "vad_state.onnx")
SPOKEN = ("--from", FROM)


@dataclass(frozen=True)
class Case:
    """A command that fails, and what to put for `N` or `NAME` into the option that its hint names.

    Attributes:
        name: What is wrong.
        model: The model.
        words: The options.
        hint: The option, as the hint has it.
        value: What to put in.
    """

    name: str
    model: onnx.ModelProto
    words: tuple[str, ...]
    hint: str
    value: str


CASES = (
    Case(
        "a size that the way back needs",
        with_open_dims("B"),
        (*SPOKEN, "--to", "p.{layer} -> q.{layer}: (time batch) dim"),
        "--size batch=N",
        "1",
    ),
    Case(
        "a size in a group",
        two_layers(),
        ("--from", "cache -> new_cache: layer batch time (half dim)", "--to", "p -> q: layer batch half time dim"),
        "--size half=N",
        "3",
    ),
    Case(
        "an axis that is left out",
        with_open_dims("B"),
        (*SPOKEN, "--to", "p.{layer} -> q.{layer}: time dim"),
        "--set-dim B=1",
        "",
    ),
    Case("layers that are not counted", with_open_dims("L"), (*SPOKEN, "--to", TO), "--size layer=N", "2"),
    Case(
        "an axis to spread",
        with_open_dims("D"),
        (*SPOKEN, "--to", "p.{dim} -> q.{dim}: layer batch time"),
        "--size dim=N",
        "3",
    ),
    Case(
        "a new name that a port has",
        two_layers(),
        (*SPOKEN, "--to", TO, "--rename", "past.0=x"),
        "--rename past.0=NAME",
        "free",
    ),
    Case(
        "a new name twice",
        two_layers(),
        (*SPOKEN, "--to", TO, "--rename", "past.0=z", "--rename", "past.1=z"),
        "--rename past.1=NAME",
        "free",
    ),
    Case(
        "a new name with a blank",
        two_layers(),
        ("--from", FROM, "--to", FROM, "--rename", "x=y"),
        "--rename x=NAME",
        "a name",
    ),
    Case("no successor", VAD, (), "--to NAME", "silero-hc"),
    Case(
        "a size that the model has otherwise",
        two_layers(),
        (*SPOKEN, "--to", TO, "--size", "dim=4"),
        "leave --size dim=4 out",
        "",
    ),
)


def _followed(words: tuple[str, ...], hint: str, value: str) -> list[str]:
    """Returns the options with what the hint says: in place of the same one, or besides."""
    option, text = shlex.split(re.search(r"--\S+ ('[^']*'|\S+)", hint)[0])  # type: ignore[index]
    known = list(zip(words[::2], words[1::2], strict=True))
    key = text.split("=")[0]
    kept = [one for one in known if not (one[0] == option and one[1].split("=")[0] == key)]
    said = [] if hint.startswith("leave") else [(option, re.sub(r"\b(N|NAME)$", value, text) if value else text)]
    return [word for one in (*kept, *said) for word in one]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_whoever_follows_a_hint_gets_on(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", str(save(case.model, tmp_path / "old.onnx")), f"{tmp_path}/new.onnx", "--json", "--quiet"]
    assert main([*words, *case.words]) in (2, 3)
    error = json.loads(capsys.readouterr().out)["error"]
    assert case.hint in error["hint"]
    code = main([*words, "--no-verify", *_followed(case.words, case.hint, case.value)])
    assert code == 0, capsys.readouterr().err
