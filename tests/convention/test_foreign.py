"""Conventions that no layout describes: each is recognised by its own ports, and refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from onnxfix.convention.binding import bind
from onnxfix.convention.detect import detect
from onnxfix.convention.foreign import foreign_convention
from onnxfix.convention.load import library, load_convention, parse_convention, refused
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.sketch import signature_of
from onnxfix.errors import DetectError, ExitCode, PlanError
from onnxfix.request import read_convention


def ports(
    names: Sequence[str], dims: Sequence[Dim] | None = (1, 2, "T", 4), dtype: str = "float32"
) -> tuple[Port, ...]:
    return tuple(Port(name, dtype, None if dims is None else tuple(dims)) for name in names)


def kv(text: str, key: str = "key", value: str = "value") -> list[str]:
    return [text.format(layer=layer, kv=kv) for layer in range(2) for kv in (key, value)]


OPTIMUM = signature_of(library()["optimum"])
PAST, PRESENT = kv("past_key_values.{layer}.{kv}"), kv("present.{layer}.{kv}")
POOL = (128, 4, 1, 1)

MODELS = {
    "genai-paged": Signature((*ports(PAST, POOL), *ports(["block_table"], ["B", "N"], "int32")), ports(PRESENT, POOL)),
    "trt-edge-paged": Signature(
        (*ports(["past_key_values_0", "past_key_values_1"], [2, 64, 32, 2, 4]), *ports(["kv_page_table"], ["B", 2, 8])),
        ports(["present_key_values_0", "present_key_values_1"], [2, 64, 32, 2, 4]),
    ),
    "genai-quantised": Signature(ports(PAST, dtype="uint8"), ports(PRESENT, dtype="uint8")),
    "turboquant": Signature(ports(PAST, dtype="uint32"), ports(PRESENT, dtype="uint32")),
    "genai-qnn": Signature(
        ports(kv("past_{kv}_{layer}", "keys", "values"), [2, 1, 4, 960], "uint8"),
        ports(kv("present_{kv}_{layer}", "keys", "values"), [2, 1, 4, 64], "uint8"),
    ),
    "native-llm-quantised": Signature(
        (
            *ports(kv("in_{kv}_{layer}"), ["B", "N", 32], "uint8"),
            *ports(kv("in_{kv}_scale_{layer}") + kv("in_{kv}_bias_{layer}"), ["B", "N", 1]),
        ),
        ports(kv("out_{kv}_{layer}") + kv("out_{kv}_scale_{layer}") + kv("out_{kv}_bias_{layer}"), None),
    ),
    "qeff-mla": Signature(
        (*ports(["compressed_kv.0"], [1, 1, 64, 512]), *ports(["k_pe.0"], [1, 1, 64, 64])),
        ports(["compressed_kv.0_RetainedState", "k_pe.0_RetainedState"], None),
    ),
    "llama2-delta": Signature(
        ports(["k_cache", "v_cache"], [1, 2, "T", 3, 4]), ports(["k_out", "v_out"], [1, 2, "S", 3, 4])
    ),
    "llama2-padded": Signature(
        (*ports(kv("cache.{layer}.{kv}")), *ports(["attn_mask"], [1, "T"], "int32")),
        (*ports(["attn_mask_out"], [1, "T"], "int32"), *ports(kv("cache_out.{layer}.{kv}"))),
    ),
    "sherpa-whisper-npu": Signature(
        ports(kv("tiny.en-self_{kv}_{layer}", "k", "v") + kv("tiny.en-cross_{kv}_{layer}", "k", "v"), [1, 448, 384]),
        ports(kv("tiny.en-this_self_{kv}_{layer}", "k", "v"), [1, 1, 384]),
    ),
    "fastt5": Signature(ports([f"pkv_{index}" for index in range(8)]), ports(["output_past_key_values", "611"])),
    "triton-zipformer": Signature(
        (
            *ports(["len_cache"], ["N", 15], "int64"), *ports(["avg_cache"], ["N", 15, 384]),
            *ports(["attn_cache"], ["N", 64, 45, 192]), *ports(["cnn_cache"], ["N", 30, 384, 30]),
        ),
        ports(["new_len_cache", "new_avg_cache", "new_attn_cache", "new_cnn_cache"], None),
    ),
    "t-one": Signature(ports(["state"], ["batch_size", 219729], "float16"), ports(["state_next"], None, "float16")),
    "torchdf": Signature(ports(["states"], [45304]), ports(["new_states"], [45304])),
    "dpdfnet": Signature(ports(["state_in"], [25432]), ports(["state_out"], [25432])),
    "flat-state": Signature(ports(["rnn_states"], [46136]), ports(["y"], [46136])),
    "pocket-tts": Signature(
        (*ports(["state_0"], [2, 1, 1000, 16, 64]), *ports(["state_1"], [0]), *ports(["state_2"], [1], "int64")),
        ports(["out_state_0", "out_state_1", "out_state_2"], None),
    ),
}  # fmt: skip


def test_every_refused_convention_is_tried() -> None:
    assert sorted(MODELS) == list(refused())
    for name in refused():
        convention = load_convention(name)
        assert convention.needs and convention.refused.startswith("its ")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_refused_and_how_it_is_told(name: str) -> None:
    detection = detect(MODELS[name])
    assert (detection.candidates, detection.best, str(detection.refused)) == ((), None, name)
    with pytest.raises(DetectError) as caught:
        detection.choose()
    one = load_convention(name)
    assert str(caught.value) == (
        f"the model speaks `{name}`, which onnxfix does not move: {one.refused}\n  {one.needs}; "
        "or describe its caches: --from 'PAST -> PRESENT: LAYOUT' (once a cache), or a TOML file; "
        "onnxfix inspect MODEL --propose begins one"
    )
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED


@pytest.mark.parametrize("name", MODELS)
def test_a_sign_less_and_it_is_not_refused(name: str) -> None:
    """Each sign is needed: a model that lacks it, or has it as another type or size, is not of that name."""
    for index, sign in enumerate(load_convention(name).signs):
        near = replace(
            MODELS[name],
            inputs=() if sign.input else MODELS[name].inputs,
            outputs=ports(["attn_mask_out"]) if sign.absent else () if sign.output else MODELS[name].outputs,
        )
        assert str(foreign_convention(near)) != name, index
        if sign.dtype or sign.rank or sign.least:
            other = tuple(replace(port, dtype="float16", dims=(1, 4)) for port in MODELS[name].inputs)
            assert str(foreign_convention(replace(MODELS[name], inputs=other))) != name, index


@pytest.mark.parametrize(
    "more",
    [
        ports(["cache_mask", "key_padding_mask", "use_cache_branch"], [1, "T"], "uint8"),
        ports(["past_sequence_length"], [1], "int32"),
        ports(["state"], [2, 1, 128]),
        ports(["state"], [1, 4096]),
        ports(["cache_lens"], [1], "int32"),
    ],
)
def test_ports_that_only_sound_alike(more: tuple[Port, ...]) -> None:
    detection = detect(replace(OPTIMUM, inputs=(*OPTIMUM.inputs, *more)))
    assert detection.refused is None and detection.choose().name == "optimum"


def test_a_sign_outweighs_a_convention_that_fits() -> None:
    """Paged caches have the names and the rank of whole ones."""
    assert detect(OPTIMUM).choose().name == "optimum"
    paged = replace(OPTIMUM, inputs=(*OPTIMUM.inputs, Port("model.slot_mapping", "int64", ("N",))))
    detection = detect(paged)
    assert detection.candidates == () and str(detection.refused) == "genai-paged"
    assert ("optimum", "the model speaks genai-paged") in [(one.name, one.reason) for one in detection.rejections]
    assert bind(library()["optimum"], paged).caches, "who says what it is gets what he asks for"


def test_caches_of_eight_bit_floats() -> None:
    inputs = tuple(replace(port, dtype="float8_e4m3fn") if "past" in port.name else port for port in OPTIMUM.inputs)
    assert str(detect(replace(OPTIMUM, inputs=inputs)).refused) == "genai-quantised"


def test_signs_in_a_file_of_ones_own() -> None:
    text = 'name = "{}"\nrefused = "its caches are odd"\n[[sign]]\ninput = "odd"\n'
    one = parse_convention(text.format("one"), where="x")
    both = parse_convention(text.format("two") + '[[sign]]\nabsent = "even"\n', where="x")
    odd = Signature(ports(["model/odd"]), ports(["z"]))
    assert foreign_convention(odd, [one, both]) is both
    assert foreign_convention(replace(odd, outputs=ports(["even"])), [one, both]) is one
    assert foreign_convention(Signature(ports(["oddly"]), ()), [one, both]) is None


@pytest.mark.parametrize(
    ("option", "way", "hint"), [("--from", "from", "\n  export it with its states apart"), ("--to", "to", "")]
)
def test_nothing_is_converted_from_or_to_what_is_refused(option: str, way: str, hint: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_convention("t-one", option=option)
    assert str(caught.value) == (
        f"nothing is converted {way} `t-one`: its states, a counter among them, lie in one flat vector: "
        f"where each begins is not in the model{hint}"
    )
