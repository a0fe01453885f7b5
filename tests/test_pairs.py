"""Every sample under every shipped convention: bit for bit the same model, and operator for operator the native one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import onnxfix
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import library
from onnxfix.convention.matching import is_kin
from onnxfix.errors import PlanError
from onnxfix.model.model import Model
from onnxfix.surgery.simplify import simplify

SAMPLES = Path(__file__).parents[1] / "sample_models"
WENET = {name for name in library() if name.startswith("wenet-")}
ATTENTION = WENET | {"gpt2-stacked", "optimum"}
LSTM = {"silero-hc", "silero-state"}

SPEAKS = {
    "conformer_packed": "wenet-packed",
    "conformer_kv": "wenet-kv",
    "conformer_kv_stacked": "wenet-kv-stacked",
    "conformer_packed_grow": "wenet-packed",
    "conformer_kv_grow": "wenet-kv",
    "conformer_gpu": "wenet-gpu",
    "conformer_gpu_kv": "wenet-gpu-kv",
    "conformer_bpu": "wenet-bpu",
    "gpt2_stacked": "gpt2-stacked",
    "gpt2_kv": "optimum",
    "vad_state": "silero-state",
    "vad_hc": "silero-hc",
}
NAMES = [path.stem for path in sorted(SAMPLES.glob("*.onnx"))]

# Axes without a batch: a dynamic one has to be frozen first, and the error says so.
NO_BATCH = {"wenet-packed", "wenet-kv-stacked"}
DYNAMIC_BATCH = {"conformer_gpu": "B", "conformer_gpu_kv": "B", "gpt2_stacked": "batch_size", "gpt2_kv": "batch_size"}

# Native exports of the same weights, by convention.
FAMILIES = [
    {"wenet-packed": "conformer_packed", "wenet-kv": "conformer_kv", "wenet-kv-stacked": "conformer_kv_stacked"},
    {"wenet-packed": "conformer_packed_grow", "wenet-kv": "conformer_kv_grow"},
    {"wenet-gpu": "conformer_gpu", "wenet-gpu-kv": "conformer_gpu_kv"},
    {"gpt2-stacked": "gpt2_stacked", "optimum": "gpt2_kv"},
    {"silero-state": "vad_state", "silero-hc": "vad_hc"},
]
NATIVE = [
    (family[a] + suffix, b, family[b] + suffix)
    for family in FAMILIES
    for suffix in ("", "_dynamo")
    for a in family
    for b in family
    if a != b and f"{family[a]}{suffix}" in NAMES and f"{family[b]}{suffix}" in NAMES
]

# Where what comes back is shorter than what there was: what it has less or more of. A conversion picks the parts of a
# cache in place, or moves them once, where the exporter has moved all of it before or after.
SHORTER = {
    # The exporter transposes the whole cache to reach its layers, and once more to put them back.
    **{("conformer_gpu", target): {"Transpose": -1} for target in ("gpt2-stacked", "optimum", "wenet-gpu-kv")},
    ("conformer_gpu", "wenet-kv"): {"Transpose": -2},
    **{("conformer_gpu", name): {"Transpose": -2, "Unsqueeze": -2} for name in ("wenet-kv-stacked", "wenet-packed")},
    ("conformer_gpu", "wenet-bpu"): {"Reshape": 1, "Transpose": -2, "Unsqueeze": -3},
    **{("conformer_gpu_kv", name): {"Transpose": -1} for name in sorted(WENET - {"wenet-gpu", "wenet-gpu-kv"})},
    # Keys and values are taken apart once, and then layer by layer; natively the other way round.
    ("conformer_packed", "wenet-kv-stacked"): {"Slice": -1},
    ("conformer_packed_grow", "wenet-kv-stacked"): {"Concat": -1, "Slice": -1},
    # A window is cut once, of keys and values together.
    ("conformer_bpu", "wenet-kv-stacked"): {"Concat": -1, "Slice": -1},
    # The native exports add and remove axes of size 1 around the LSTM, and write Slices that take all there is.
    ("vad_state", "silero-hc"): {"Constant": -8, "Gather": -2, "Slice": 2, "Squeeze": -2, "Unsqueeze": -4},
    ("vad_state_dynamo", "silero-hc"): {"Gather": -2, "Squeeze": -2, "Unsqueeze": -4},
    ("vad_hc_dynamo", "silero-state"): {"Slice": -2},
}

# Where the result is not operator for operator the native export but shorter: what it has less or more of, and why.
BETTER = {
    # Keys and values are taken apart once, and then layer by layer; natively the other way round.
    ("conformer_kv_stacked", "wenet-packed"): {"Slice": -1},
    # The native export transposes the whole cache to reach its layers; the converted model picks them in place.
    ("conformer_gpu_kv", "wenet-gpu"): {"Transpose": -1},
    ("conformer_gpu_kv_dynamo", "wenet-gpu"): {"Transpose": -1},
    # The dynamo exporter writes two Slices that take all there is.
    ("vad_state_dynamo", "silero-hc"): {"Slice": -2},
    # The native exports take h and c apart and add and remove axes of size 1 around the LSTM.
    ("vad_hc", "silero-state"): {"Constant": -8, "Gather": -2, "Slice": 2, "Squeeze": -2, "Unsqueeze": -4},
    ("vad_hc_dynamo", "silero-state"): {"Gather": -2, "Squeeze": -2, "Unsqueeze": -4},
}

PAIRS = [
    (name, target)
    for name in NAMES
    if name != "plain"
    for target in sorted(
        (LSTM if SPEAKS[name.removesuffix("_dynamo")] in LSTM else ATTENTION) - {SPEAKS[name.removesuffix("_dynamo")]}
    )
]
UNTOLD = {(name, "wenet-bpu"): {"layer": 3} for name in ("gpt2_stacked", "gpt2_kv")}
"""Sizes that a model does not tell any more: this convention has layers and heads in one dim."""


def base(name: str) -> str:
    return name.removesuffix("_dynamo")


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


def of_no_family(target: str, source: str = "") -> Convention:
    """Returns a convention that any other may meet, so that what is surgery's is tried on all pairs.

    Across families only caches do: the mask of an encoder over a window is not that of a decoder over all there was.
    """
    convention = library()[target]
    if source and not is_kin(convention, library()[source]):
        convention = replace(convention, inputs=(), outputs=())
    return replace(convention, family="")


def difference(one: Model, other: Model) -> dict[str, int]:
    """Returns how many more nodes of each operator the first has."""
    ours, theirs = operators(one), operators(other)
    return {op: ours[op] - theirs[op] for op in ours | theirs if ours[op] != theirs[op]}


def simplified(name: str, target: str) -> Model:
    """Returns a sample, simplified, with the dim frozen that a conversion to `target` freezes."""
    model = Model.load(SAMPLES / f"{name}.onnx")
    if edits(name, target).dims:
        report = onnxfix.convert(model, to=SPEAKS[base(name)], edits=edits(name, target), verify=False)
        assert report.model is not None
        model = report.model
    simplify(model)
    return model


def edits(name: str, target: str) -> onnxfix.Edits:
    frozen = DYNAMIC_BATCH.get(base(name)) if target in NO_BATCH else None
    return onnxfix.Edits(dims={frozen: 1} if frozen else {})


def convert(name: str, target: str, path: Path) -> onnxfix.ConversionReport:
    to = of_no_family(target, SPEAKS[base(name)])
    report = onnxfix.convert(SAMPLES / f"{name}.onnx", path, to=to, edits=edits(name, target))
    assert report.proof is not None
    assert report.proof.is_exact
    assert report.proof.values > 0
    return report


def test_every_sample_is_named_here() -> None:
    assert {base(name) for name in NAMES} == SPEAKS.keys() | {"plain"}


@pytest.mark.parametrize("name", NAMES)
def test_inspect_names_the_convention(name: str) -> None:
    found = onnxfix.inspect(SAMPLES / f"{name}.onnx").convention
    assert found == SPEAKS.get(base(name))


@pytest.mark.parametrize(("name", "target"), PAIRS)
def test_a_pair_is_exact_detected_again_and_comes_back_as_it_was(name: str, target: str, tmp_path: Path) -> None:
    source = SPEAKS[base(name)]
    # A decoder has no convolution cache, and only the GPU export carries offset and mask.
    report = convert(name, target, tmp_path / "new.onnx")
    assert report.outcome is onnxfix.Outcome.CONVERTED
    again = onnxfix.convert(tmp_path / "new.onnx", tmp_path / "again.onnx", to=of_no_family(target, source))
    assert again.outcome is onnxfix.Outcome.UNCHANGED
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "new.onnx").read_bytes()

    sizes = UNTOLD.get((base(name), target), {})
    to = of_no_family(source, target)
    back = onnxfix.convert(tmp_path / "new.onnx", to=to, from_=target, sizes=sizes, verify=False)
    assert back.model is not None
    begun = simplified(name, target)
    for kind in ("inputs", "outputs"):
        ports = [[port.name for port in getattr(model.signature(), kind)] for model in (back.model, begun)]
        assert ports[0] == ports[1]
    shorter = SHORTER.get((name, target), SHORTER.get((base(name), target), {}))
    assert difference(back.model, begun) == shorter
    assert sum(shorter.values()) <= 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plain"])
def test_other_families_are_refused(name: str, tmp_path: Path) -> None:
    source = library()[SPEAKS[base(name)]]
    for target, convention in library().items():
        if not is_kin(source, convention):
            with pytest.raises(PlanError, match=f"and `{target}` .* are for different kinds of network"):
                onnxfix.convert(SAMPLES / f"{name}.onnx", tmp_path / "new.onnx", to=target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["vad_state", "gpt2_kv", "conformer_kv"])
def test_other_axes_are_refused(name: str, tmp_path: Path) -> None:
    for target in sorted(ATTENTION if SPEAKS[name] in LSTM else LSTM):
        with pytest.raises(PlanError, match=r"no counterpart|axis"):
            onnxfix.convert(SAMPLES / f"{name}.onnx", tmp_path / "new.onnx", to=of_no_family(target))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(DYNAMIC_BATCH))
def test_a_dynamic_batch_must_be_frozen_where_there_is_no_batch(name: str, tmp_path: Path) -> None:
    for target in sorted(NO_BATCH):
        with pytest.raises(PlanError, match="batch") as caught:
            onnxfix.convert(SAMPLES / f"{name}.onnx", tmp_path / "new.onnx", to=of_no_family(target))
        assert f"--set-dim {DYNAMIC_BATCH[name]}=1" in caught.value.hint


@pytest.mark.parametrize(("name", "target", "native"), NATIVE)
def test_the_result_is_the_native_export(name: str, target: str, native: str, tmp_path: Path) -> None:
    convert(name, target, tmp_path / "new.onnx")
    found = difference(Model.load(tmp_path / "new.onnx"), simplified(native, target))
    assert found == BETTER.get((name, target), {})


def test_the_upstream_successor_needs_no_option(tmp_path: Path) -> None:
    report = onnxfix.convert(SAMPLES / "conformer_packed.onnx", tmp_path / "new.onnx")
    assert (report.speaks, report.target) == ("wenet-packed", "wenet-kv")
    onnx.checker.check_model(str(tmp_path / "new.onnx"), full_check=True)
