"""`onnxfix inspect`: what a model is, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from cli_models import FROM, PACKED, SAMPLES, save, two_layers, with_data_file

from onnxfix.cli import main
from onnxfix.convention.load import library

Capture = pytest.CaptureFixture[str]

SPEAKS = {
    "conformer_bpu.onnx": "wenet-bpu",
    "conformer_gpu.onnx": "wenet-gpu",
    "conformer_gpu_dynamo.onnx": "wenet-gpu",
    "conformer_gpu_kv.onnx": "wenet-gpu-kv",
    "conformer_gpu_kv_dynamo.onnx": "wenet-gpu-kv",
    "conformer_kv.onnx": "wenet-kv",
    "conformer_kv_dynamo.onnx": "wenet-kv",
    "conformer_kv_grow.onnx": "wenet-kv",
    "conformer_kv_grow_dynamo.onnx": "wenet-kv",
    "conformer_kv_stacked.onnx": "wenet-kv-stacked",
    "conformer_packed.onnx": "wenet-packed",
    "conformer_packed_dynamo.onnx": "wenet-packed",
    "conformer_packed_grow.onnx": "wenet-packed",
    "conformer_packed_grow_dynamo.onnx": "wenet-packed",
    "gpt2_kv.onnx": "optimum",
    "gpt2_kv_dynamo.onnx": "optimum",
    "gpt2_stacked.onnx": "gpt2-stacked",
    "gpt2_stacked_dynamo.onnx": "gpt2-stacked",
    "plain.onnx": None,
    "vad_hc.onnx": "silero-hc",
    "vad_hc_dynamo.onnx": "silero-hc",
    "vad_state.onnx": "silero-state",
    "vad_state_dynamo.onnx": "silero-state",
}


def test_every_sample_is_listed_here() -> None:
    assert sorted(path.name for path in SAMPLES.glob("*.onnx")) == sorted(SPEAKS)


@pytest.mark.parametrize("name", SPEAKS)
def test_the_convention_of_every_sample(name: str, capsys: Capture) -> None:
    assert main(["inspect", str(SAMPLES / name), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["convention"] == SPEAKS[name]
    states = [port for port in facts["inputs"] if port["state"]]
    assert bool(states) == (SPEAKS[name] is not None)
    fed = {port["name"]: port["fed_by"] for port in states}
    assert {port["feeds"]: port["name"] for port in facts["outputs"] if port["state"]} == fed


def test_the_table_for_people(capsys: Capture) -> None:
    assert main(["inspect", str(PACKED)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    for line in (
        "format IR 7, opset ai.onnx 13",
        "convention wenet-packed, replaced by wenet-kv",
        "- metadata num_blocks = 3 agrees with layer",
        "not wenet-gpu: att_cache: the layout `batch layer head time (kv dim)` has 5 dimensions, "
        "the tensor has 4: [3, 4, T_CACHE, 10]",
        "att_cache float32 [3, 4, T_CACHE, 10] state: attention r_att_cache layer=3 head=4 time (kv=2 dim=5)",
        "att_mask bool [1, 1, T_ADD_T_CACHE] mask batch 1 key",
    ):
        assert line in lines
    assert not any(line.endswith(" ") for line in printed.out.splitlines())
    assert "\x1b" not in printed.out


def test_a_model_without_caches(capsys: Capture) -> None:
    assert main(["inspect", str(SAMPLES / "plain.onnx")]) == 0
    assert "convention  none\n" in capsys.readouterr().out


def test_twins_are_told_once(capsys: Capture) -> None:
    assert main(["inspect", str(SAMPLES / "gpt2_kv.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "it the same way" in shown and "less likely" not in shown


def test_a_convention_that_is_refused(tmp_path: Path, capsys: Capture) -> None:
    proto = two_layers()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("block_tables", onnx.TensorProto.INT64, [1, "N"]))
    path = save(proto, tmp_path / "model.onnx")
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "convention  genai-paged, which onnxfix does not move\n            - its caches are paged: which" in shown
    assert "not wenet" not in shown
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["convention"] is None and facts["candidates"] == []
    assert (facts["refused"]["name"], facts["refused"]["needs"]) == ("genai-paged", "export it without paged attention")
    assert main(["convert", str(path), f"{tmp_path}/new.onnx", "--to", "optimum"]) == 3
    assert "the model speaks `genai-paged`, which onnxfix does not move: its caches" in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists()


def test_a_model_that_speaks_sentences(tmp_path: Path, capsys: Capture) -> None:
    path = save(two_layers(), tmp_path / "model.onnx")
    assert main(["inspect", str(path), "--from", FROM, "--size", "T=4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["inputs"][1]["layout"] == "layer batch time dim"
    assert facts["inputs"][1]["sizes"] == {"layer": 2, "batch": 1, "time": "T", "dim": 3}
    assert main(["inspect", str(path), "--from", "cache -> new_cache: layer time dim"]) == 3
    assert capsys.readouterr().err.startswith("error: cache: ")


def test_data_files(tmp_path: Path, capsys: Capture) -> None:
    path = save(with_data_file("weights.bin"), tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(20))
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["data_files"] == [{"location": "weights.bin", "used_bytes": 12, "bytes": 20}]
    assert main(["inspect", str(path)]) == 0
    assert "weights.bin: 12 bytes of 20 bytes used" in capsys.readouterr().out


def test_two_equally_good_conventions_are_both_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    from dataclasses import replace

    from onnxfix.convention import detect

    one = library()["wenet-packed"]
    twins = {"wenet-packed": one, "twin": replace(one, name="twin", family="small")}
    monkeypatch.setattr(detect, "library", lambda: twins)
    assert main(["inspect", str(PACKED)]) == 0
    assert "ambiguous: twin and wenet-packed fit equally well" in capsys.readouterr().out
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx"]) == 3
    assert "the model fits twin and wenet-packed equally well" in capsys.readouterr().err
    assert main(["convert", str(PACKED), f"{tmp_path}/new.onnx", "--from", "wenet-packed", "--check"]) == 1


def test_only_the_nearest_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from dataclasses import replace

    from onnxfix.convention import detect

    monkeypatch.setattr(
        detect, "library", lambda: {f"g{n}": replace(library()["wenet-gpu"], name=f"g{n}") for n in range(5)}
    )
    assert main(["inspect", str(PACKED)]) == 0
    shown = capsys.readouterr().out
    assert [name for name in ("g0", "g1", "g2", "g3", "g4") if f"not {name}: " in shown] == ["g0", "g1", "g2"]
    assert "nor 2 more of which it has some ports\n" in shown
    assert "onnxfix inspect MODEL --propose looks for caches in the graph\n" in shown
    assert main(["inspect", str(PACKED), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rejections"]) == 5
