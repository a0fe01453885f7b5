"""`onnxfix verify`: what it prints, what it leaves in files, and how it ends, whichever way it ends."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from cli_models import FROM, PACKED, PER_LAYER, SAMPLES, contents, save, two_layers
from onnx import numpy_helper

from onnxfix.cli import main
from onnxfix.cli.verify import verify

Capture = pytest.CaptureFixture[str]
PAIR = [str(PACKED), str(PER_LAYER)]


@pytest.fixture(scope="module")
def off_by_one_bit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the per-layer sample with its largest weight off by one unit in the last place."""
    proto = onnx.load(PER_LAYER)
    tensor = max(proto.graph.initializer, key=lambda one: one.data_type == 1 and len(one.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.argmax(np.abs(array)), array.shape)
    array[place] = np.nextafter(array[place], np.float32(np.inf))
    tensor.raw_data = array.tobytes()
    return save(proto, tmp_path_factory.mktemp("wrong") / "wrong.onnx")


def _files(folder: Path) -> list[str]:
    return [f"--{kind}={folder / name}" for kind, name in (("junit", "v.xml"), ("summary", "v.md"), ("html", "v.html"))]


def _states(folder: Path) -> set[str]:
    """Returns how the test cases ended, after a look at the other files."""
    root = ElementTree.parse(folder / "v.xml").getroot()
    states = {child.tag for child in root.iter() if child.tag in ("failure", "error", "skipped")}
    sign = "❌" if states & {"failure", "error"} else "✅"
    assert (folder / "v.md").read_text(encoding="utf-8").startswith(f"### {sign} ")
    assert (folder / "v.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    return states


def test_two_models_that_are_the_same(tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", *PAIR, *_files(tmp_path)]) == 0
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.err.splitlines()]
    assert printed.out == ""
    assert lines[0] == f"verified {PER_LAYER} against {PACKED}"
    assert "all equal to the bit" in lines[1]
    assert lines[2] == "output values difference tick by tick"
    assert any(line.startswith("r_key_cache_0 ... r_cnn_cache (7) ") and line.endswith(" equal") for line in lines)
    assert any(line.startswith("evidence 9 of 9 parts") for line in lines)
    assert _states(tmp_path) == set()
    assert len(contents(tmp_path)) == 3


def test_a_weight_that_is_off_by_one_bit(off_by_one_bit: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["verify", str(PACKED), str(off_by_one_bit), *_files(tmp_path), "--json"]) == 4
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (facts["outcome"], facts["error"]["kind"], facts["proof"]["passed"]) == ("failed", "DifferenceError", False)
    assert "different  " in printed.err
    assert "differs from tick 0 on" in printed.err
    lines = printed.err.splitlines()
    error = next(
        index for index, line in enumerate(lines) if line.startswith("error: output (full start), tick 0: at [")
    )
    assert "  --bisect finds the first tensor inside the graph that differs" in lines[error:]
    assert printed.err.count("--bisect") == 1
    assert "failure" in _states(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ["--atol", "1e-5"],
        ["--rtol", "1e-2"],
        ["--atol", "1e-6", "--rtol", "1e-4"],
        ["--atol", "0", "--tolerance", "ALL"],
    ],
    ids=" ".join,
)
def test_within_a_tolerance_it_passes_and_says_so(off_by_one_bit: Path, options: list[str], capsys: Capture) -> None:
    if options[-1] == "ALL":
        names = [port.name for port in onnx.load(PER_LAYER).graph.output]
        options = [word for name in names for word in ("--tolerance", f"{name}=1e-5,1e-4")]
    assert main(["verify", str(PACKED), str(off_by_one_bit), *options, "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (facts["outcome"], facts["proof"]["passed"], facts["proof"]["exact"]) == ("verified", True, False)
    assert "all within the tolerances, largest difference " in printed.err


def test_a_tolerance_of_one_output_leaves_the_others_exact(off_by_one_bit: Path, capsys: Capture) -> None:
    assert main(["verify", str(PACKED), str(off_by_one_bit), "--tolerance", "output=1", "--json", "--quiet"]) == 4
    facts = json.loads(capsys.readouterr().out)
    passed = {port["name"]: port["passed"] for port in facts["proof"]["runs"][0]["ports"]}
    assert passed["output"]
    assert not passed["r_cnn_cache"]


def test_bisect_names_the_node_everywhere(off_by_one_bit: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["verify", str(PACKED), str(off_by_one_bit), "--bisect", "--json", *_files(tmp_path)]
    assert main(words) == 4
    printed = capsys.readouterr()
    culprit = json.loads(printed.out)["proof"]["culprit"]
    line = next(line for line in printed.err.splitlines() if line.startswith("first difference: tick 0, "))
    assert culprit["node"]["op_type"] in line
    assert "by 1 ulp at most" in printed.err
    assert "--bisect finds" not in printed.err
    for name in ("v.md", "v.xml"):
        assert line in (tmp_path / name).read_text(encoding="utf-8").replace("&quot;", '"')
    assert "first difference: tick 0, " in (tmp_path / "v.html").read_text(encoding="utf-8")
    assert main([*words[:4], "--quiet"]) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: output (full start), tick 0")
    assert f"\n  {line}\n" in printed.err


def test_bisect_of_what_cannot_be_looked_into_hides_no_worse_news(
    off_by_one_bit: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from onnxfix.errors import VerifyError

    def blind(*_: object, **__: object) -> None:
        raise VerifyError("nothing can be seen", where="Loop")

    for find, line in ((blind, "Loop: nothing can be seen"), (lambda *_, **__: None, "both put out the same bits")):
        monkeypatch.setattr("onnxfix.cli.proving.find_culprit", find)
        assert main(["verify", str(PACKED), str(off_by_one_bit), "--bisect"]) == 4
        printed = capsys.readouterr().err
        assert "--bisect found nothing" in printed
        assert line in printed
        assert "error: output (full start), tick 0" in printed


def test_nothing_proven_is_told_in_the_files_too(tmp_path: Path, capsys: Capture) -> None:
    deaf = str(save(two_layers(uses_cache=False), tmp_path / "deaf.onnx"))
    assert main(["verify", deaf, deaf, "--from", FROM, "--to", FROM, *_files(tmp_path)]) == 4
    assert "no output depends on the state" in capsys.readouterr().err
    assert _states(tmp_path) == {"failure"}
    assert main(["verify", *PAIR, "--ticks", "0", *_files(tmp_path)]) == 4
    assert "VacuousCheck" in (tmp_path / "v.xml").read_text()


@pytest.mark.parametrize(
    ("models", "code"), [([PAIR[0], "nowhere.onnx"], 3), ([str(SAMPLES / "plain.onnx"), PAIR[1]], 3)]
)
def test_what_cannot_be_read_is_told_in_the_files_too(
    models: list[str], code: int, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["verify", *models, *_files(tmp_path)]) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert _states(tmp_path) == {"error"}


def test_what_an_earlier_run_left_is_never_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["verify", *PAIR, *_files(tmp_path), "--quiet"]) == 0

    def killed(*_: object, **__: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr("onnxfix.cli.proving.verify", killed)
    with pytest.raises(SystemExit):
        main(["verify", *PAIR, *_files(tmp_path)])
    assert contents(tmp_path) == {}

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("onnxfix.cli.proving.verify", broken)
    assert main(["verify", *PAIR, *_files(tmp_path)]) == 70
    assert _states(tmp_path) == {"error"}
    assert "this is a bug in onnxfix: no such thing" in (tmp_path / "v.xml").read_text()

    for words in (["--atol", "nan"], ["--feed", "offset=nonsense"], ["--size", "x"], [PAIR[0]]):
        assert _states(tmp_path) == {"error"}
        assert main(["verify", *PAIR, *words, *_files(tmp_path)]) == 2
        assert contents(tmp_path) == {}
        assert main(["verify", *PAIR, *_files(tmp_path)]) == 70
    # One that cannot be written does not save the others; what is read is not removed.
    assert main(["verify", *PAIR, *_files(tmp_path)[:2], "--html", "no/v.html"]) == 2
    assert set(contents(tmp_path)) == {"v.html"}
    (tmp_path / "v").write_bytes(b"a trace")
    again = f"{tmp_path}/../{tmp_path.name}/v"
    assert main(["verify", PAIR[0], "--against", f"{tmp_path}/v", "--html", again]) == 2
    assert (tmp_path / "v").read_bytes() == b"a trace"
    assert main(["verify", *PAIR, "--summary", f"{tmp_path}/v", "--html", again]) == 2


def test_a_file_that_cannot_be_written_in_the_end(
    off_by_one_bit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxfix.model.atomic.NewFile.write", full)
    options = ["--junit", f"{tmp_path}/v.xml", "--quiet"]
    assert main(["verify", *PAIR, *options]) == 3
    assert (
        capsys.readouterr().err
        == f"error: --junit {tmp_path}/v.xml: the report cannot be written: No space left on device\n"
    )
    assert main(["verify", str(PACKED), str(off_by_one_bit), *options]) == 4
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("error")] == [
        "error"
    ] * 2
    assert contents(tmp_path) == {}


# words after `verify`, what is wrong
MISUSED = [
    ([], "two models are expected here, not 0"),
    ([PAIR[0]], "what is it held against?"),
    ([*PAIR, PAIR[0]], "two models are expected here, not 3"),
    ([*PAIR, "--junit", "no/v.xml"], "there is no folder `no`"),
    ([*PAIR, "--html", "."], "this is no regular file"),
    ([*PAIR, "--summary", "x" * 300], "this is no file name"),
    ([*PAIR, "--summary", "pipe"], "this is no regular file"),
    ([*PAIR, "--summary", "v", "--html", "./v"], "this file is something else already"),
    ([*PAIR, "--summary", PAIR[0]], "this file is something else already"),
    ([*PAIR, "--seed", str(2**63)], "is no seed"),
    ([*PAIR, "--atol", "nan"], "`nan` is no tolerance"),
    ([*PAIR, "--rtol", "-1"], "`-1.0` is no tolerance"),
    ([*PAIR, "--tolerance", "output=x"], "`x` is no tolerance"),
    ([*PAIR, "--tolerance", "output=1,2,3"], "`1,2,3` is no tolerance"),
    ([*PAIR, "--tolerance", "output"], "KEY=VALUE is expected here"),
    ([*PAIR, "--provider", "abacus"], "'abacus' is not one of"),
    ([*PAIR, "--feed", "offset=nonsense"], "`nonsense` is no kind of feed"),
    ([PAIR[1], "--against", "t.npz", "--bisect"], "the inside of ORIGINAL is needed too"),
    ([PAIR[1], "--against", "t.npz", "--seed", "3"], "what is fed stands in the trace"),
    ([PAIR[1], "--against", "t.npz", "--feed", "offset=ones"], "what is fed stands in the trace"),
]


@pytest.mark.parametrize(("words", "message"), MISUSED, ids=[" ".join(words[-2:])[-40:] for words, _ in MISUSED])
def test_slips_of_the_pen_are_refused_before_any_work(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    monkeypatch.setattr("onnxfix.cli.proving.verify", lambda *_, **__: pytest.fail("that is work"))
    assert main(["verify", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(contents(tmp_path)) == []


def test_only_those_who_may_leave_the_proof_out_are_told_so(tmp_path: Path, capsys: Capture) -> None:
    feed = ["--feed", "offset=constant:1000000"]
    for words in (["convert", PAIR[0], f"{tmp_path}/x"], ["verify", *PAIR], ["record", PAIR[0], f"{tmp_path}/x"]):
        assert main([*words, *feed]) == 4
        printed = capsys.readouterr().err
        assert "change that with --size T=N" in printed
        assert ("--no-verify converts without a proof" in printed) == (words[0] == "convert")
        assert ("--no-verify" in printed) == (words[0] == "convert")


def test_every_option_has_a_word_of_help() -> None:
    assert [parameter.name for parameter in verify.params if not getattr(parameter, "help", "")] == ["models"]
