"""`onnxfix convert` on samples: what it writes, what it prints and where, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from cli_models import FROM, PACKED, PER_LAYER, SAMPLES, TO, contents, save, two_layers, with_data_file

from onnxfix.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the packed sample, converted to its successor."""
    path = tmp_path_factory.mktemp("converted") / "new.onnx"
    assert main(["convert", str(PACKED), str(path), "--quiet"]) == 0
    return path


def _ports(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def _stamps(path: Path) -> dict[str, str]:
    entries = onnx.load(path).metadata_props
    return {entry.key: entry.value for entry in entries if entry.key.startswith("onnxfix.")}


def test_without_options_a_model_is_converted_to_its_successor(converted: Path) -> None:
    assert _ports(converted) == _ports(PER_LAYER)


def test_the_result_says_where_it_came_from(converted: Path, tmp_path: Path) -> None:
    import hashlib

    import onnxfix

    assert _stamps(converted) == {
        "onnxfix.version": onnxfix.__version__,
        "onnxfix.from": "wenet-packed",
        "onnxfix.to": "wenet-kv",
        "onnxfix.source_sha256": hashlib.sha256(PACKED.read_bytes()).hexdigest(),
        "onnxfix.verified": "yes",
    }
    back = tmp_path / "back.onnx"
    assert main(["convert", str(converted), str(back), "--to", "wenet-packed", "--no-verify", "--quiet"]) == 0
    assert _stamps(back)["onnxfix.from"] == "wenet-kv"
    assert _stamps(back)["onnxfix.source_sha256"] == hashlib.sha256(converted.read_bytes()).hexdigest()
    assert _stamps(back)["onnxfix.verified"] == "no"
    assert len(_stamps(back)) == 5


def test_without_a_stamp_nothing_is_said(tmp_path: Path) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    words = ["convert", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx", "--from", FROM, "--to", TO, "--no-stamp", "-q"]
    assert main(words) == 0
    assert _stamps(tmp_path / "new.onnx") == {}


@pytest.mark.parametrize("options", [[], ["--to", "wenet-kv"]])
def test_once_more_nothing_changes(options: list[str], converted: Path, tmp_path: Path, capsys: Capture) -> None:
    again = tmp_path / "again.onnx"
    assert main(["convert", str(converted), str(again), *options]) == 0
    assert again.read_bytes() == converted.read_bytes()
    assert capsys.readouterr().err.startswith("unchanged  the model speaks wenet-kv already")


def test_nothing_to_do_in_place_writes_nothing(converted: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(converted.read_bytes())
    node = path.stat().st_ino
    assert main(["convert", str(path), str(path)]) == 0
    assert "stays as it is" in capsys.readouterr().err
    assert path.stat().st_ino == node
    assert contents(tmp_path) == {"model.onnx": converted.read_bytes()}


def test_the_destination_may_be_the_source(converted: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(PACKED.read_bytes())
    assert main(["convert", str(path), str(path), "--quiet"]) == 0
    assert contents(tmp_path) == {"model.onnx": converted.read_bytes()}


def test_data_files_come_along(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    save(with_data_file("weights.bin"), old / "old.onnx")
    (old / "weights.bin").write_bytes(b"\0\0\x40\x40\0\0\x80\x3e\0\0\0\xbf")
    for path in (old / "new.onnx", new / "new.onnx"):
        assert main(["convert", f"{old}/old.onnx", str(path), "--from", FROM, "--to", TO, "--quiet"]) == 0
    assert sorted(contents(tmp_path)) == [
        "new/new.onnx",
        "new/weights.bin",
        "old/new.onnx",
        "old/old.onnx",
        "old/weights.bin",
    ]
    assert (new / "weights.bin").read_bytes() == (old / "weights.bin").read_bytes()


def test_the_summary_goes_to_standard_error(tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [" ".join(line.split()) for line in printed.err.splitlines()]
    assert lines[:5] == [
        "converted wenet-packed -> wenet-kv",
        "inputs chunk, offset, required_cache_size, att_cache, cnn_cache, att_mask",
        "-> chunk, offset, required_cache_size, key_cache_0 ... value_cache_2 (6), cnn_cache, att_mask",
        "outputs output, r_att_cache, r_cnn_cache",
        "-> output, r_key_cache_0 ... r_value_cache_2 (6), r_cnn_cache",
    ]
    assert lines[5].startswith("nodes 706 -> ")
    assert lines[5].endswith(" after cancelling")
    assert lines[6].startswith("copies 2.4 kB x time -> ")
    assert lines[6].endswith(" after cancelling, per step")
    assert lines[7].startswith("proof 10 ticks, ")
    assert lines[7].endswith(" values compared, all equal to the bit (largest difference 0)")
    assert lines[-1].startswith(f"wrote {tmp_path}/new.onnx (")
    assert "\x1b" not in printed.err


def test_quiet_prints_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--no-verify", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_without_verification_nothing_is_proven(tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--no-verify"]) == 0
    assert "none: not verified, nothing is proven" in capsys.readouterr().err
    assert _stamps(tmp_path / "new.onnx")["onnxfix.verified"] == "no"


def test_adapters_that_stay_are_explained(tmp_path: Path, capsys: Capture) -> None:
    bpu = PACKED.with_name("conformer_bpu.onnx")
    assert main(["convert", str(bpu), f"{tmp_path}/new.onnx", "--to", "wenet-kv-stacked", "--no-verify"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert "kept adapters, since att_cache is read whole by Split" in lines


def test_adapters_cancel_without_simplifying(tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--no-simplify", "--no-verify"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert "note not simplified, as asked" in lines
    assert not [line for line in lines if line.startswith("kept")]


def test_json_has_the_same_facts(tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert printed.err == ""
    assert (facts["outcome"], facts["from"], facts["to"]) == ("converted", "wenet-packed", "wenet-kv")
    assert facts["proof"]["ticks"] == 10
    assert facts["proof"]["exact"] is True
    assert facts["proof"]["max_abs"] == 0
    assert facts["proof"]["values"] > 50_000
    assert facts["nodes"]["after_cancelling"] < facts["nodes"]["with_adapters"]
    assert [port["name"] for port in facts["after"]["inputs"]] == _ports(PER_LAYER)[0]
    assert facts["caches"][0]["past"]["before"] == ["att_cache"]
    assert len(facts["caches"][0]["past"]["after"]) == 6


def test_check_prints_the_plan_and_writes_nothing(converted: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--check"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("would convert  wenet-packed -> wenet-kv\n")
    assert "split kv (key, value) off `head time (kv dim)`" in printed.out
    assert printed.err == ""
    assert main(["convert", str(converted), "--check"]) == 0
    assert capsys.readouterr().out.startswith("unchanged")
    assert main(["convert", str(PACKED), "--check", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["outcome"], facts["nodes"], facts["proof"]) == ("would-change", None, None)
    assert contents(tmp_path) == {}


def test_diff_prints_what_is_touched_and_writes_nothing(converted: Path, tmp_path: Path, capsys: Capture) -> None:
    save(two_layers(), tmp_path / "old.onnx")
    before = contents(tmp_path)
    words = ["convert", f"{tmp_path}/old.onnx", "--from", FROM, "--to", TO, "--diff", "--no-simplify"]
    assert main(words) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == f"--- {tmp_path}/old.onnx"
    assert [line for line in lines if line.startswith(("-", "+")) and line[1:4] != line[:1] * 2 + " "][:3] == [
        "-input  cache: float32[2, 1, T, 3]",
        "+input  past.0: float32[1, T, 3]",
        "+input  past.1: float32[1, T, 3]",
    ]
    assert "-new_cache = Concat<axis=0>(slab_0, slab_1)" in lines
    assert any(line == " scaled_0 = Mul(x, scale_0)" for line in lines)
    assert contents(tmp_path) == before
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["diff"] == lines
    assert main([*words, "--check"]) == 1
    both = capsys.readouterr().out
    assert both.startswith("would convert  ")
    assert both.endswith(printed.out)
    assert main(["convert", str(converted), "--diff"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_toml_file_is_a_convention(tmp_path: Path, capsys: Capture) -> None:
    assert main(["conventions", "wenet-kv-stacked", "--toml"]) == 0
    mine = tmp_path / "mine.toml"
    mine.write_text(capsys.readouterr().out.replace("{kv}_cache:", "all_{kv}s:"))
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--to", str(mine), "--no-verify", "--quiet"]) == 0
    inputs, outputs = _ports(tmp_path / "new.onnx")
    assert inputs[3:5] == ["all_keys", "all_values"]
    assert outputs[1:3] == ["r_all_keys", "r_all_values"]


def test_edits(tmp_path: Path) -> None:
    words = ["--to", "wenet-kv", "--rename", "chunk=speech", "--set-dim", "T_CACHE=64", "--cast", "offset=int32"]
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", *words, "--quiet"]) == 0
    graph = onnx.load(tmp_path / "new.onnx").graph
    ports = {value.name: value.type.tensor_type for value in graph.input}
    assert next(iter(ports)) == "speech"
    assert ports["offset"].elem_type == onnx.TensorProto.INT32
    assert [dim.dim_value for dim in ports["key_cache_0"].shape.dim] == [1, 4, 64, 5]


def test_names_with_brackets(tmp_path: Path, capsys: Capture) -> None:
    old, new = save(two_layers(), tmp_path / "[red]x[bold].onnx"), tmp_path / "[x].onnx"
    assert main(["convert", str(old), str(new), "--from", FROM, "--to", TO]) == 0
    assert f"wrote {new} (" in capsys.readouterr().err
    assert main(["inspect", str(old)]) == 0
    assert capsys.readouterr().out.startswith(f"{old}  ")
    assert main(["inspect", f"{tmp_path}/[y].onnx"]) == 3
    assert capsys.readouterr().err == f"error: {tmp_path}/[y].onnx: there is no such file\n"


SILENT = (
    ["--help"],
    ["convert", "--help"],
    ["verify", "--help"],
    ["inspect", "--help"],
    ["conventions", "--help"],
    ["--version"],
    [],
)


@pytest.mark.parametrize("words", SILENT, ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom onnxfix.cli import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnxsim', 'onnx_graphsurgeon', 'rich'} & set(sys.modules)\n"
        "sys.exit(code or (f'loaded {sorted(heavy)}' if heavy else 0))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -c 'from onnxfix.cli import run; run()'"
    script = f"set -o pipefail; {command} inspect {SAMPLES}/conformer_kv.onnx --json | head -c 10"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert ran.stderr == ""
