"""Decoders as Optimum exports them, today's and those of 2024: found, turned into all that they reach, and back.

A network of each architecture has random weights and a small configuration. What a model of a convention reaches is
what `onnxfix conventions NAME` says; all of it is converted with a proof, held against the original once more, and
turned back into what it was.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import groups
import onnx
import pytest

import onnxfix
from onnxfix.convention.load import library
from onnxfix.convention.reach import Reach, reach, reaches
from onnxfix.errors import DetectError, PlanError
from onnxfix.model.model import Model
from onnxfix.surgery.simplify import simplify

Settings: TypeAlias = Mapping[str, object]
Difference: TypeAlias = dict[str, int]
TEXT, PAIRS, SPEECH = (
    "text-generation-with-past", "text2text-generation-with-past", "automatic-speech-recognition-with-past",
)  # fmt: skip
EXPORT = str(Path(__file__).with_name("optimum_export.py"))
TICKS = 6

GPT2 = {"model_type": "gpt2", "vocab_size": 97, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 128}
CODE = {**GPT2, "model_type": "gpt_bigcode"}
BLOOM = {"model_type": "bloom", "vocab_size": 97, "hidden_size": 24, "n_layer": 2, "n_head": 3}
LLAMA = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 8}
GEMMA3 = {**LLAMA, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 5}
LATENT = {
    **LLAMA, "model_type": "deepseek_v3", "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 5, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 16,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 97, "d_model": 24, "d_kv": 7, "d_ff": 40, "num_layers": 2,
    "num_decoder_layers": 3, "num_heads": 3, "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "model_type": "bart", "vocab_size": 97, "d_model": 24, "encoder_layers": 2, "decoder_layers": 3,
    "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
    "max_position_embeddings": 128, "decoder_start_token_id": 2,
}  # fmt: skip
WHISPER = {
    **BART, "model_type": "whisper", "num_mel_bins": 8, "max_source_positions": 1500, "max_target_positions": 64,
    "decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Export:
    """What Optimum writes.

    Attributes:
        group: Which Optimum.
        task: What for.
        settings: The network's configuration.
        file: The file to look at.
        found: The convention that it speaks.
        sizes: Sizes that its ports do not tell.
        opened: Sizes that the result's ports do not tell any more, by target.
    """

    group: str
    task: str
    settings: Settings
    file: str
    found: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    opened: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def decoder(group: str, settings: Settings, found: str = "optimum", *, heads: int, **sizes: int) -> Export:
    return Export(group, TEXT, settings, "model.onnx", found, sizes, {"bloom": {"head": heads}})


def pair(group: str, settings: Settings, task: str = PAIRS) -> Export:
    return Export(group, task, settings, "decoder_with_past_model.onnx", "optimum-seq2seq")


EXPORTS = {
    "gpt2": decoder("optimum", GPT2, heads=3),
    "bloom": decoder("optimum", BLOOM, heads=3),
    "gpt_bigcode, one key head": decoder("optimum", {**CODE, "multi_query": True}, heads=1),
    "gpt_bigcode": decoder("optimum", {**CODE, "multi_query": False}, heads=3),
    "llama": decoder("optimum", LLAMA, heads=2),
    "qwen3": decoder("optimum", QWEN3, heads=2),
    "gemma3": decoder("optimum", GEMMA3, heads=2),
    "deepseek_v3": decoder("optimum", LATENT, heads=4),
    "t5": pair("optimum", T5),
    "bart": pair("optimum", BART),
    "whisper": pair("optimum", WHISPER, SPEECH),
    "gpt2, 2024": decoder("optimum-2024", GPT2, heads=3),
    "llama, 2024": decoder("optimum-2024", LLAMA, heads=2),
    "bloom, 2024": decoder("optimum-2024", BLOOM, "bloom", heads=3, head=3),
    "gpt_bigcode, one key head, 2024": decoder("optimum-2024", {**CODE, "multi_query": True}, "bigcode-mqa", heads=1),
    "gpt_bigcode, 2024": decoder("optimum-mixed", {**CODE, "multi_query": False}, "bigcode-mha", heads=3),
    "t5, 2024": pair("optimum-2024", T5),
    "whisper, 2024": pair("optimum-2024", WHISPER, SPEECH),
}
MERGED = {
    "t5": ("encoder_attention_mask", "encoder_hidden_states"),
    "whisper": ("encoder_hidden_states",),
}
"""Decoders with and without past in one file, and what the encoder hands them."""

OLD = ("bloom, 2024", "gpt_bigcode, one key head, 2024", "gpt_bigcode, 2024")
ALL = ("gpt2", *OLD, "t5", "whisper")
"""These are turned into everything that they reach, the others into a few."""
FEW = ("genai", "gpt2-stacked", "native-llm-batched", "bloom", "ort-t5", "mobius-seq2seq")
UNEVEN = ("deepseek_v3",)
"""Keys and values are of different size: they stay apart."""


def is_reached(name: str, found: Reach) -> bool:
    """Whether a model becomes one of another convention, as far as its own sizes are concerned."""
    target = library()[found.target]
    layouts = [spec.layout for cache in target.caches for spec in cache.past]
    if found.obstacle or (name in UNEVEN and any("kv" in layout.axes for layout in layouts)):
        return False
    return not found.units or "one key head" in name


def is_turned(name: str, found: Reach) -> bool:
    # mobius's mask is as long as the cross cache and what the encoder hands over, which this one takes in unused.
    is_odd = (name, found.target) == ("t5, 2024", "mobius-seq2seq")
    return is_reached(name, found) and not is_odd and (name in ALL or found.target in FEW)


PAIRS_OF_ALL = [
    (name, found.target)
    for name, one in EXPORTS.items()
    for found in reaches(library()[one.found])
    if is_turned(name, found)
]


def exported(name: str) -> Path:
    """Returns the folder of an export, which is kept until its group or its settings change."""
    one = EXPORTS[name]
    told = [one.group, one.task, json.dumps(one.settings), Path(EXPORT).read_text(), groups.requirements(one.group)]
    return groups.kept("".join(told), lambda folder: groups.run(one.group, EXPORT, str(folder), *told[1:3]))


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


def more(one: Model, other: Model) -> Difference:
    """Returns how many more nodes of each operator the first has."""
    ours, theirs = operators(one), operators(other)
    return {op: ours[op] - theirs[op] for op in ours | theirs if ours[op] != theirs[op]}


def sides(model: Model) -> list[list[tuple[str, str, int | None]]]:
    """Returns inputs and outputs; where a convention leaves a port is not told."""
    signature = model.signature()
    return [
        sorted((port.name, port.dtype, port.rank) for port in ports) for ports in (signature.inputs, signature.outputs)
    ]


@pytest.mark.parametrize("name", EXPORTS)
def test_what_it_speaks_is_found(name: str) -> None:
    one = EXPORTS[name]
    found = onnxfix.inspect(exported(name) / one.file)
    assert found.convention == one.found
    assert not [port.name for port in found.ports if port.is_input and not port.role and port.cache is None]


@pytest.mark.parametrize(("name", "target"), PAIRS_OF_ALL)
def test_there_and_back(name: str, target: str, tmp_path: Path) -> None:
    one = EXPORTS[name]
    source, new, back = exported(name) / one.file, tmp_path / "new.onnx", tmp_path / "back.onnx"
    opened = one.opened.get(target, {})
    report = onnxfix.convert(source, new, to=target, sizes=one.sizes)
    if report.outcome is onnxfix.Outcome.UNCHANGED:
        assert target == "transformers-js-hybrid"
        return
    assert report.proof is not None
    assert report.proof.is_exact
    assert report.proof.ticks >= TICKS
    assert {run.start for run in report.proof.runs} == {"full", "empty"}
    found = onnxfix.inspect(new).convention
    assert found == ("optimum" if target == "transformers-js-hybrid" else target)
    assert onnxfix.verify(source, new, sizes={**one.sizes, **opened}).is_exact

    returned = onnxfix.convert(new, back, to=one.found, from_=target, sizes=opened)
    assert returned.proof is not None
    assert returned.proof.is_exact
    begun = Model.load(source)
    assert sides(Model.load(back)) == sides(begun)
    simplify(begun)
    difference = more(Model.load(back), begun)
    # Integers of 64 bits became some of 32: what these do not hold is gone.
    narrowed = 2 * sum(words.endswith("does not hold every int64") for words in report.notes)
    assert difference == ({"Cast": narrowed} if narrowed else {})


@pytest.mark.parametrize("name", EXPORTS)
def test_the_rest_is_refused(name: str, tmp_path: Path) -> None:
    one = EXPORTS[name]
    source = exported(name) / one.file
    for found in reaches(library()[one.found]):
        if is_reached(name, found):
            continue
        own = "has no counterpart in the model|has no axis" + "|it cannot be stacked along" * (name in UNEVEN)
        words = re.escape(found.obstacle) or own
        with pytest.raises(PlanError, match=words):
            onnxfix.convert(source, tmp_path / "new.onnx", to=found.target, sizes=one.sizes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OLD)
def test_old_models_become_what_optimum_writes_today(name: str, tmp_path: Path) -> None:
    """The successor needs no option, and has the ports of the export of today, by name, type, rank and order."""
    one, today = EXPORTS[name], name.removesuffix(", 2024")
    report = onnxfix.convert(exported(name) / one.file, tmp_path / "new.onnx", sizes=one.sizes)
    assert report.target == "optimum"
    ours, theirs = Model.load(tmp_path / "new.onnx"), Model.load(exported(today) / EXPORTS[today].file)
    assert sides(ours) == sides(theirs)
    assert [port.name for port in ours.signature().outputs] == [port.name for port in theirs.signature().outputs]


@pytest.mark.parametrize("name", MERGED)
def test_merged_decoders_are_driven_through_both_branches(name: str, tmp_path: Path) -> None:
    source = exported(name) / "decoder_model_merged.onnx"
    assert onnxfix.inspect(source).convention == "optimum-seq2seq"
    assert len(onnx.load(source).graph.node) == 1
    proof = onnxfix.verify(source, source)
    assert proof.is_exact
    assert {run.start for run in proof.runs} == {"full", "empty"}
    assert not [note for note in proof.notes if "use_cache_branch" in note]
    for target in ("ort-t5", "ort-whisper", "moonshine-streaming", "mobius-seq2seq"):
        assert reach(library()["optimum-seq2seq"], library()[target]).read == ("cross",)
        with pytest.raises(PlanError, match="`cross`"):
            onnxfix.convert(source, tmp_path / "new.onnx", to=target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MERGED)
def test_decoders_that_only_begin_are_told_so(name: str) -> None:
    source = exported(name) / "decoder_model.onnx"
    assert onnxfix.inspect(source).convention is None
    with pytest.raises(DetectError, match="hands the caches out and takes none in"):
        onnxfix.convert(source, to="ort-t5")
