"""Sabotage is always caught: every way to spoil a converted model, on every sample, with the right error."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import pytest
from sabotage import PORTS, VALUES, Victim, mask_ignored

import onnxfix
from onnxfix.errors import DetectError, VerifyError
from onnxfix.verify.report import DifferenceError

SAMPLES = Path(__file__).parents[2] / "sample_models"
TARGETS = {
    "conformer_bpu": "wenet-kv",
    "conformer_gpu": "wenet-gpu-kv",
    "conformer_gpu_kv": "wenet-gpu",
    "conformer_kv": "wenet-packed",
    "conformer_kv_grow": "wenet-packed",
    "conformer_kv_stacked": "wenet-kv",
    "conformer_packed": "wenet-kv",
    "conformer_packed_grow": "wenet-kv",
    "gpt2_kv": "gpt2-stacked",
    "gpt2_stacked": "optimum",
    "vad_hc": "silero-state",
    "vad_state": "silero-hc",
}
NAMES = [path.stem for path in sorted(SAMPLES.glob("*.onnx")) if path.stem != "plain"]
Pair = tuple[onnx.ModelProto, Path]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Returns what gives, for a sample, its conversion and a trace of the sample itself."""
    folder = tmp_path_factory.mktemp("sabotage")

    @cache
    def made(name: str) -> Pair:
        sample, trace = SAMPLES / f"{name}.onnx", folder / f"{name}.npz"
        target = TARGETS[name.removesuffix("_dynamo")]
        model = onnxfix.convert(sample, to=target, simplify=False, verify=False, stamp=False).model
        assert model is not None
        onnxfix.record(sample, trace, options=onnxfix.VerifyOptions(ticks=8 if name.startswith("vad") else 3)).close()
        return model.proto, trace

    return made


def spoiled(name: str, proto: onnx.ModelProto, change: Callable[[Victim], bool], path: Path) -> Path | None:
    """Writes a model after sabotage; None where there is nothing to spoil."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if not change(Victim(copy, grows="grow" in name or name.startswith("gpt2"))):
        return None
    path.write_bytes(copy.SerializeToString())
    return path


def may_be_absent(change: Callable[[Victim], bool], name: str) -> bool:
    """The detector of voices has no mask, no time and one layer; a few exports have no mask."""
    return name.startswith("vad") or (change is mask_ignored and ("grow" in name or "bpu" in name))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sound_passes(name: str, pair: Callable[[str], Pair], tmp_path: Path) -> None:
    proto, trace = pair(name)
    path = spoiled(name, proto, lambda victim: True, tmp_path / "new.onnx")
    assert path is not None
    assert onnxfix.verify(path, against=trace).is_exact


@pytest.mark.parametrize("change", VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_the_sources_are_caught(
    name: str, change: Callable[[Victim], bool], pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    proto, trace = pair(name)
    path = spoiled(name, proto, change, tmp_path / "new.onnx")
    if path is None:
        assert may_be_absent(change, name)
        return
    with pytest.raises(DifferenceError, match=r"the source has \S+, the result") as error:
        onnxfix.verify(path, against=trace)
    assert not error.value.report.passed
    assert error.value.exit_code == 4


@pytest.mark.parametrize("change", PORTS)
@pytest.mark.parametrize("name", NAMES)
def test_ports_that_are_not_the_sources_are_caught(
    name: str, change: Callable[[Victim], bool], pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    proto, trace = pair(name)
    path = spoiled(name, proto, change, tmp_path / "new.onnx")
    assert path is not None
    # Without one of its outputs a cache may be none that anybody knows.
    with pytest.raises((VerifyError, DetectError), match=PORTS[change]):
        onnxfix.verify(path, against=trace)


@pytest.mark.parametrize(
    ("name", "one", "other", "batch"),
    [("gpt2_kv", "batch", "head", 4), ("conformer_gpu", "batch", "head", 4), ("vad_hc", "hc", "batch", 2)],
)
def test_axes_of_equal_size_that_change_places_are_caught(
    name: str, one: str, other: str, batch: int, pair: Callable[[str], Pair], tmp_path: Path
) -> None:
    trace, options = tmp_path / "run.npz", onnxfix.VerifyOptions(ticks=3, batch=batch)
    onnxfix.record(SAMPLES / f"{name}.onnx", trace, options=options).close()

    def swapped(victim: Victim) -> bool:
        for tensor in victim.cache.present:
            dims = [tensor.spec.layout.place(axis)[0] for axis in (one, other)]
            order = list(range(tensor.spec.layout.rank))
            order[dims[0]], order[dims[1]] = order[dims[1]], order[dims[0]]
            victim.add("Transpose", victim.behind(tensor.port.name), output=tensor.port.name, perm=order)
        return True

    proto, _ = pair(name)
    sound = spoiled(name, proto, lambda victim: True, tmp_path / "sound.onnx")
    assert onnxfix.verify(sound, against=trace).is_exact
    with pytest.raises(DifferenceError, match=r"the source has \S+, the result"):
        onnxfix.verify(spoiled(name, proto, swapped, tmp_path / "new.onnx"), against=trace)
