"""The small sample models, twins of one network each: conversions give, operator for operator, what was exported.

`sample_models/networks/spoken.py` packs and unpacks the caches in PyTorch, in no way by onnxfix.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import onnxfix
from onnxfix.convention.load import library
from onnxfix.model.model import Model
from onnxfix.surgery.simplify import simplify

SAMPLES = Path(__file__).parents[1] / "sample_models" / "spoken"
NAMES = sorted(path.stem for path in SAMPLES.glob("*.onnx"))
TICKS = 6

# By network: the convention that is converted to all others and back, and these.
NETWORKS = {
    "decoder": ("optimum", ["genai", "bloom", "bigcode-mha", "llm-export", "trt-edge", "native-llm"]),
    "hybrid": ("transformers-js-hybrid", ["genai-lfm2"]),
    "seq2seq": ("optimum-seq2seq", ["ort-t5", "moonshine-streaming"]),
    "whisper": ("sherpa-whisper", ["per-layer"]),
    "zipformer": ("icefall-zipformer2", ["batch-first"]),
    "cacheaware": ("nemo", ["genai-nemotron", "layer-first", "per-layer"]),
}
LENGTH = "cache_last_channel_len -> cache_last_channel_next_len: batch"
# Twins that no runtime asks for: what the network has inside, or what one would rather have.
SENTENCES = {
    "whisper_per-layer": [
        "self_{kv:k,v}_{layer} -> new_self_{kv:k,v}_{layer}: batch head time dim",
        "cross_{kv:k,v}_{layer}: batch head time dim",
    ],
    "zipformer_batch-first": [
        "key_{layer} -> next_key_{layer}: batch time dim",
        "nonlin_attn_{layer} -> next_nonlin_attn_{layer}: batch time dim",
        "val1_{layer} -> next_val1_{layer}: batch time dim",
        "val2_{layer} -> next_val2_{layer}: batch time dim",
        "conv1_{layer} -> next_conv1_{layer}: batch time channel",
        "conv2_{layer} -> next_conv2_{layer}: batch time channel",
        "embed -> next_embed: batch time channel bin",
        "processed_lens -> new_processed_lens: batch",
    ],
    "cacheaware_layer-first": [
        "cache_last_channel -> cache_last_channel_next: layer batch time channel",
        "cache_last_time -> cache_last_time_next: layer batch channel time",
        LENGTH,
    ],
    "cacheaware_per-layer": [
        "channel_{layer} -> next_channel_{layer}: batch time channel",
        "time_{layer} -> next_time_{layer}: batch channel time",
        LENGTH,
    ],
}
# Sizes that a model does not tell, as they share a dim with others.
UNTOLD = {"decoder_bloom": {"head": 3}, "whisper_sherpa-whisper": {"head": 3}}
PAIRS = [
    (f"{network}_{source}{suffix}", f"{network}_{target}{suffix}")
    for network, (hub, others) in NETWORKS.items()
    for other in others
    for source, target in ((hub, other), (other, hub))
    for suffix in ("", "_dynamo")
]

# Where the result is not operator for operator the native export, but no longer: what it has less or more of.
OTHERWISE: dict[tuple[str, str], dict[str, int]] = {
    # einops asks for the sizes of all dims to take one apart, or to join two; one Reshape needs none of them.
    ("decoder_optimum", "decoder_bloom"): {
        "Cast": -8, "Gather": 2, "Mul": -4, "Shape": 2, "Transpose": 2, "Unsqueeze": -14,
    },
    ("whisper_per-layer", "whisper_sherpa-whisper"): {"Concat": -4, "Gather": -8, "Shape": -4, "Unsqueeze": -12},
    ("whisper_per-layer_dynamo", "whisper_sherpa-whisper_dynamo"): {"Concat": -1, "Shape": -1, "Unsqueeze": -4},
    # Twice an axis of size 1 is moved by a Reshape, not by a Transpose, and a frame is picked, not cut out.
    **{
        (f"zipformer_icefall-zipformer2{by}", f"zipformer_batch-first{by}"): {
            "Gather": 2, "Reshape": 2, "Slice": -2, "Transpose": -4, "Unsqueeze": 2,
        }
        for by in ("", "_dynamo")
    },
}  # fmt: skip
# Where it is longer, and why.
LONGER: dict[tuple[str, str], dict[str, int]] = {
    # Ids and mask have another type at the ports, natively in all of the graph.
    ("seq2seq_optimum-seq2seq", "seq2seq_ort-t5"): {"Cast": 1},
    ("seq2seq_optimum-seq2seq_dynamo", "seq2seq_ort-t5_dynamo"): {"Cast": 2},
    ("seq2seq_ort-t5", "seq2seq_optimum-seq2seq"): {"Cast": 3},
    ("seq2seq_ort-t5_dynamo", "seq2seq_optimum-seq2seq_dynamo"): {"Cast": 2},
    # A part is cut out of two axes at once, natively layer by layer; two Slices do what one Split could.
    **{
        (f"decoder_optimum{by}", f"decoder_llm-export{by}"): {"Gather": -4, "Slice": 4, "Squeeze": 4, "Unsqueeze": -2}
        for by in ("", "_dynamo")
    },
    ("decoder_optimum_dynamo", "decoder_bigcode-mha_dynamo"): {"Slice": 4, "Split": -2},
    # What is put together at the outputs is as long as a sum that run time knows (`past + new`), and its batch that of
    # another tensor: that these are the sizes of what is put together is not seen, and both stay.
    ("decoder_bloom_dynamo", "decoder_optimum_dynamo"): {
        "Concat": 12, "Div": 8, "Gather": 16, "Mul": 8, "Reshape": 16, "Shape": 12, "Squeeze": 4, "Transpose": 4,
    },
    ("decoder_optimum_dynamo", "decoder_bloom_dynamo"): {
        "Gather": 16, "Reshape": -8, "Shape": 4, "Squeeze": -4, "Transpose": 2,
    },
    ("whisper_sherpa-whisper_dynamo", "whisper_per-layer_dynamo"): {
        "Concat": 1, "Reshape": 4, "Shape": 1, "Transpose": 3,
    },
}  # fmt: skip


def base(name: str) -> str:
    return name.removesuffix("_dynamo")


def speech(name: str) -> str | list[str]:
    return SENTENCES.get(base(name)) or base(name).partition("_")[2]


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


@cache
def native_operators(name: str) -> Counter[str]:
    model = Model.load(SAMPLES / f"{name}.onnx")
    simplify(model)
    return operators(model)


def ports(path: Path) -> list[tuple[str, str, int]]:
    signature = Model.load(path).signature()
    return [(port.name, port.dtype, len(port.dims or ())) for port in (*signature.inputs, *signature.outputs)]


def test_every_sample_is_named_here() -> None:
    assert set(NAMES) == {name for pair in PAIRS for name in pair}


@pytest.mark.parametrize("name", NAMES)
def test_inspect_names_the_convention(name: str) -> None:
    found = onnxfix.inspect(SAMPLES / f"{name}.onnx").convention
    assert found == (None if base(name) in SENTENCES else speech(name))
    assert found is None or found in library()


@pytest.mark.parametrize(("source", "native"), PAIRS)
def test_the_result_is_the_native_export(source: str, native: str, tmp_path: Path) -> None:
    report = onnxfix.convert(
        SAMPLES / f"{source}.onnx",
        tmp_path / "new.onnx",
        to=speech(native),
        from_=SENTENCES.get(base(source)),
        sizes=UNTOLD.get(base(source)),
        verify=onnxfix.VerifyOptions(ticks=TICKS),
    )
    assert report.proof is not None and report.proof.is_exact and report.proof.ticks >= TICKS
    wanted = ports(SAMPLES / f"{native}.onnx")
    found = ports(tmp_path / "new.onnx")
    if base(native) in SENTENCES:
        found.sort()
        wanted.sort()
    assert found == wanted
    ours, theirs = operators(Model.load(tmp_path / "new.onnx")), native_operators(native)
    difference = {op: ours[op] - theirs[op] for op in ours | theirs if ours[op] != theirs[op]}
    assert difference == {**OTHERWISE, **LONGER}.get((source, native), {})


def test_the_tables_say_what_they_say() -> None:
    assert all(sum(difference.values()) <= 0 for difference in OTHERWISE.values())
    assert all(sum(difference.values()) > 0 for difference in LONGER.values())
