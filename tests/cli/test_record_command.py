"""`onnxfix record`: what it prints, what it leaves, and how it ends; and a trace in place of the original."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_models import FROM, PACKED, PER_LAYER, SAMPLES, contents, save, two_layers

from onnxfix.cli import main

Capture = pytest.CaptureFixture[str]
STATE, HC = str(SAMPLES / "vad_state.onnx"), str(SAMPLES / "vad_hc.onnx")


def test_what_is_printed(tmp_path: Path, capsys: Capture) -> None:
    trace = tmp_path / "run.npz"
    assert main(["record", str(PACKED), str(trace), "--ticks", "2", "--seed", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[:4] == [
        "recorded  conformer_packed.onnx (wenet-packed)",
        "driven    2 ticks from full caches and 2 ticks from empty caches, seed 3",
        "fed       chunk: features, offset: offset, required_cache_size: cache-length, att_mask: mask",
        "evidence  9 of 9 parts of the caches, disturbed alone, showed in an output",
    ]
    assert printed.err.splitlines()[-1].startswith(f"wrote {trace} (")
    assert main(["verify", str(PER_LAYER), "--against", str(trace)]) == 0
    assert f"against {trace}" in capsys.readouterr().err


def test_json_and_quiet(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["record", STATE, str(tmp_path / "run.npz"), "--quiet", "--json", "--batch", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    told = json.loads(printed.out)
    assert (told["outcome"], told["convention"], told["seed"]) == ("recorded", "silero-state", 0)
    assert told["runs"] == [{"start": "full", "ticks": 8}]
    assert told["observable"] == ["lstm, hidden", "lstm, cell"]
    assert len(told["model"]["sha256"]) == 64
    with np.load(tmp_path / "run.npz") as file:
        assert file["tick/7/input/input"].shape == (2, 256)


def test_a_fresh_process_agrees_bit_for_bit(tmp_path: Path) -> None:
    trace = str(tmp_path / "run.npz")
    run = [sys.executable, "-c", "from onnxfix.cli import run; run()"]
    subprocess.run([*run, "record", STATE, trace], check=True, capture_output=True)
    told = subprocess.run(
        [*run, "verify", HC, "--against", trace, "--json"], check=True, capture_output=True, text=True
    )
    proof = json.loads(told.stdout)["proof"]
    assert (proof["exact"], proof["passed"], proof["ticks"]) == (True, True, 8)


FAILURES = [
    (["no.onnx", "run.npz"], 3, "no.onnx: there is no such file"),
    ([STATE, "no/folder/run.npz"], 3, "there is no folder"),
    ([STATE, "."], 3, "the trace needs a file"),
    ([str(SAMPLES / "plain.onnx"), "run.npz"], 3, "speaks no known convention"),
    ([STATE, "run.npz", "--ticks", "0"], 4, "no tick was driven"),
    ([STATE, "run.npz", "--size", "heads=3"], 2, "no axis or dim `heads`"),
    ([STATE, "run.npz", "--feed", "sound=zeros"], 2, "no input is called `sound`"),
    ([STATE, "run.npz", "--feed", "input=silence"], 2, "`silence` is no kind of feed"),
    ([STATE, "run.npz", "--inputs", "no.npz"], 2, "no.npz"),
    ([STATE, "run.npz", "--seed", str(2**63)], 2, "is no seed"),
    ([STATE], 2, "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), FAILURES)
def test_failures_leave_nothing(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["record", *arguments]) == code
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == {}


def test_the_inputs_are_not_replaced_by_the_trace(tmp_path: Path, capsys: Capture) -> None:
    trace = tmp_path / "run.npz"
    assert main(["record", STATE, str(trace), "--ticks", "3"]) == 0
    before = contents(tmp_path)
    assert main(["record", STATE, f"{tmp_path}/../{tmp_path.name}/run.npz", "--inputs", str(trace)]) == 2
    assert "the trace would replace the inputs" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main(["record", STATE, f"{tmp_path}/again.npz", "--inputs", str(trace), "--quiet"]) == 0


def test_a_run_that_would_prove_nothing_is_not_kept(tmp_path: Path, capsys: Capture) -> None:
    model = save(two_layers(uses_cache=False), tmp_path / "model.onnx")
    assert main(["record", str(model), str(tmp_path / "run.npz"), "--from", FROM]) == 4
    assert "no output depends on the state" in capsys.readouterr().err
    assert set(contents(tmp_path)) == {"model.onnx"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "this is no npz file"), (b"PK\x03\x04 and no more", "the trace is truncated"), (None, "cannot be read")],
)
def test_a_trace_that_is_none_is_a_usage_error(
    content: bytes | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "run.npz"
    if content is not None:
        path.write_bytes(content)
    assert main(["verify", HC, "--against", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"error: {path}: " in error
    assert message in error
