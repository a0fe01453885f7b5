"""`config.pbtxt` follows a conversion: what it cannot follow, what changes, and what Triton would mix up."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from files import GPU, GPU_KV, STACKED, TRITON, beside, plan, spoken

from onnxfix.convention.plan import Plan
from onnxfix.errors import ExitCode, SideFileError
from onnxfix.sidefiles.change import Beside, SideFile
from onnxfix.sidefiles.pbtxt import Message, parse
from onnxfix.sidefiles.triton import follow

NAME = "config.pbtxt"


def followed(text: str, asked: Plan | None = None, *, new: str = "model.onnx") -> SideFile:
    """Returns what becomes of a file beside a model; without a plan, beside the GPU encoder for its successor."""
    return follow(beside(text, NAME, new=new), asked or plan(GPU, "wenet-gpu-kv"))


def changed(text: str, *pairs: tuple[str, str]) -> str:
    """Returns a text with parts replaced that stand there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def ports(text: str, name: str, key: str = "name") -> list[tuple[str | None, str | None, tuple[int, ...]]]:
    """Returns name, type and dims of each entry of a list."""
    whole = parse(text, NAME)
    owner = whole.messages("sequence_batching")[0] if name == "state" else whole
    return [(one.text(key), one.text("data_type"), one.numbers("dims")) for one in owner.messages(name)]


def state(text: str, name: str) -> Message:
    """Returns the state of that input."""
    states = parse(text, NAME).messages("sequence_batching")[0].messages("state")
    return next(one for one in states if one.text("input_name") == name)


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        (TRITON[:-5], "`}` is missing", "line 44, column 10"),
        (TRITON + "}", "the name of a field is expected here", "line 45, column 1"),
        ("{}", "the name of a field is expected here", "line 1, column 1"),
        (TRITON + 'platform: "ensemble"', "this is the configuration of an ensemble, not of a model", NAME),
        (TRITON + "ensemble_scheduling { }", "this is the configuration of an ensemble, not of a model", NAME),
        (
            TRITON + 'default_model_filename: "encoder.onnx"',
            "this file speaks of `encoder.onnx`, not of `model.onnx`",
            NAME,
        ),
        (changed(TRITON, ('"chunk_xs"', '"speech"')), "the model has no input `speech`", "line 32, column 3"),
        (changed(TRITON, ('"chunk_out"', '"out"')), "the model has no output `out`", "line 44, column 10"),
        (changed(TRITON, ('"r_cnn_cache"', '"r_cnn"')), "the model has no output `r_cnn`", "line 28, column 5"),
        (changed(TRITON, ('"chunk_lens"', '"chunk_xs"')), "`chunk_xs` stands twice in `input`", "line 37, column 3"),
        (
            changed(TRITON, ('"r_cnn_cache"', '"r_x"'), ('"r_offset"', '"r_cnn_cache"'), ('"r_x"', '"r_offset"')),
            "the output that feeds `offset` is `r_offset` in the model, here it is `r_cnn_cache`",
            "line 9, column 5",
        ),
        (changed(TRITON, ('name: "chunk_xs"\n', "\n")), "`name` is missing in this `input`", "line 32, column 3"),
        (
            changed(TRITON, ('name: "chunk_xs"', 'name: "chunk_xs" name: "x"')),
            "`name` stands twice",
            "line 32, column 3",
        ),
        (changed(TRITON, ('name: "chunk_xs"', "name { }")), "`name` is no message", "line 32, column 3"),
        (changed(TRITON, ("max_batch_size: 8", "max_batch_size: x")), "`max_batch_size` are whole numbers", NAME),
        (changed(TRITON, ("[ 3, 4, 64, 10 ]\n      i", "[ 3, 4 ]\n      i")), "`att_cache` has 2 dims here", "line 15"),
        (
            changed(TRITON, ("max_batch_size: 8", "max_batch_size: 0")),
            "`att_cache` has 4 dims here, the model's has 5",
            "line 15",
        ),
        (
            changed(TRITON, ("zero_data: true", 'data_file: "first"')),
            "`att_cache` begins with the content of a file, which is not converted",
            "line 20",
        ),
        (TRITON + "sequence_batching { }", "`sequence_batching` stands twice", NAME),
        (changed(TRITON, ("state [", "state: 5 other [")), "`state` is a message", "line 6"),
    ],
)  # fmt: skip
def test_what_contradicts_the_model_is_refused(text: str, message: str, where: str) -> None:
    with pytest.raises(SideFileError) as caught:
        followed(text)
    assert caught.value.message.startswith(message)
    assert caught.value.where.startswith(str(Path("old") / NAME))
    assert where in caught.value.where
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED


def test_a_state_that_is_not_whole_is_refused() -> None:
    text = followed(TRITON).after
    second = state(text, "value_cache_1")
    broken = text[: second.start].rstrip().rstrip(",") + text[second.stop :]
    with pytest.raises(
        SideFileError, match="`value_cache_1` of the cache `attention` is not in `state`, `key_cache_0` is"
    ):
        followed(broken, plan(GPU_KV, "wenet-gpu"))


def test_caches_that_do_not_begin_with_the_batch_are_refused() -> None:
    sentences = (
        "{kv}s -> r_{kv}s: layer head time batch dim",
        "cnn_cache -> r_cnn_cache: batch layer channel time",
        "offset -> r_offset: batch 1",
        "cache_mask -> r_cache_mask: batch 1 time",
    )
    asked = plan(GPU, sentences)
    with pytest.raises(
        SideFileError, match="Triton batches along the first dim, and `keys` is `layer head time batch dim`"
    ):
        followed(TRITON, asked)


def test_a_cache_becomes_one_state_for_each_tensor() -> None:
    side = followed(TRITON)
    names = [f"{kv}_cache_{layer}" for layer in range(3) for kv in ("key", "value")]
    assert ports(side.after, "state", "input_name") == [
        ("offset", "TYPE_INT64", (1,)),
        *((name, "TYPE_FP32", (4, 64, 5)) for name in names),
        ("cnn_cache", "TYPE_FP32", (3, 20, 7)),
    ]
    assert [name for name, _, _ in ports(side.after, "state", "output_name")[1:7]] == [f"r_{name}" for name in names]
    first = state(side.after, "value_cache_2").messages("initial_state")[0]
    assert (first.numbers("dims"), first.text("zero_data")) == ((4, 64, 5), "true")
    assert side.changes == ("state: att_cache -> key_cache_0 ... value_cache_2 (6)",)


def test_what_is_not_touched_stays_byte_for_byte() -> None:
    text = changed(TRITON, ("\n", "\r\n"))
    side = followed(text)
    old, new = state(text, "att_cache"), state(side.after, "value_cache_2")
    first = state(side.after, "key_cache_0")
    assert side.after[: first.start] == text[: old.start]
    assert side.after[new.stop :] == text[old.stop :]
    assert side.after.count("\n") == side.after.count("\r\n")


@pytest.mark.parametrize("text", [TRITON, changed(TRITON, ("\n", "\r\n"))])
def test_there_and_back_again_is_the_same_text(text: str) -> None:
    assert followed(followed(text).after, plan(GPU_KV, "wenet-gpu")).after == text


def test_a_byte_order_mark_stays() -> None:
    after = followed("\ufeff" + TRITON).after
    assert after == "\ufeff" + followed(TRITON).after


@pytest.mark.parametrize("name", ["input", "output"])
def test_caches_that_clients_carry_follow_too(name: str) -> None:
    prefix, side_of = ("", "input") if name == "input" else ("r_", "output")
    text = TRITON.partition("sequence_batching")[0] + (
        f'{side_of} {{ name: "{prefix}att_cache" data_type: TYPE_FP32 dims: 3 dims: 4 dims: -1 dims: 10 }}\n'
        f'{side_of} {{ name: "{prefix}cnn_cache" data_type: TYPE_FP32 dims: [ 3, 20, 7 ] }}\n'
    )
    after = followed(text).after
    sizes = (4, 64, 5) if name == "input" else (4, -1, 5)
    names = [f"{prefix}{kv}_cache_{layer}" for layer in range(3) for kv in ("key", "value")]
    found = ports(after, name)
    assert [entry[0] for entry in found] == [*names, f"{prefix}cnn_cache"]
    assert {entry[2] for entry in found[:-1]} <= {sizes, (4, -1, 5)}


def test_sizes_that_the_file_alone_knows_are_carried_over() -> None:
    text = (
        'input [ { name: "past_0" data_type: TYPE_FP16 dims: [ 2, -1, 4, 128, 7 ] },'
        ' { name: "past_1" data_type: TYPE_FP16 dims: [ 2, -1, 4, 128, 7 ] },'
        ' { name: "past_2" data_type: TYPE_FP16 dims: [ 2, -1, 4, 128, 7 ] } ]'
    )
    found = ports(followed(text, plan(STACKED, "genai")).after, "input")
    assert found[0] == ("past_key_values.0.key", "TYPE_FP16", (-1, 4, 128, 7))
    assert len(found) == 6
    odd = changed(
        text,
        ('past_2" data_type: TYPE_FP16 dims: [ 2, -1, 4, 128', 'past_2" data_type: TYPE_FP16 dims: [ 2, -1, 4, 64'),
    )
    assert ports(followed(odd, plan(STACKED, "genai")).after, "input")[0][2] == (-1, 4, -1, 7), "of two sizes, none"


def test_a_first_size_that_cannot_be_told_is_refused() -> None:
    states = [
        f'{{ input_name: "past_{layer}" output_name: "present_{layer}" data_type: TYPE_FP32 dims: [ 2, -1, 4, -1, 7 ]'
        f' initial_state {{ name: "n" data_type: TYPE_FP32 dims: [ 2, 1, 4, {layer}, 7 ] zero_data: true }} }}'
        for layer in range(3)
    ]
    text = f"sequence_batching {{ state [ {', '.join(states)} ] }}"
    with pytest.raises(
        SideFileError, match=r"how large the state `past_key_values\.0\.key` is at first cannot be told"
    ):
        followed(text, plan(STACKED, "genai"))
    alike = text.replace("4, 1, 7", "4, 0, 7").replace("4, 2, 7", "4, 0, 7")
    after = followed(alike, plan(STACKED, "genai")).after
    assert state(after, "past_key_values.2.value").messages("initial_state")[0].numbers("dims") == (1, 4, 0, 7)


def test_other_ports_are_renamed_and_cast() -> None:
    renames = (("chunk_xs", "speech"), ("chunk_out", "encoded"), ("offset", "at"), ("r_cnn_cache", "conv_out"))
    asked = plan(GPU, "wenet-gpu", rename=renames, cast=(("chunk_lens", "int64"),))
    control = 'sequence_batching { control_input [ { name: "chunk_xs" } ] state ['
    text = changed(TRITON, ("sequence_batching {\n  oldest { max_candidate_sequences: 1024 }\n  state [", control))
    side = followed(text, asked)
    assert side.after == changed(
        text, ('"chunk_xs"', '"speech"'), ('"chunk_out"', '"encoded"'), ('"offset"', '"at"'),
        ('"r_cnn_cache"', '"conv_out"'), ("TYPE_INT32", "TYPE_INT64"),
    )  # fmt: skip
    assert "control_input: chunk_xs -> speech" in side.changes


def test_a_scalar_is_told_as_one_number_that_is_reshaped() -> None:
    text = 'input { name: "offset" data_type: TYPE_INT64\n  dims: [ 1 ]\n  reshape: { shape: [ ] } }\n'
    asked = spoken("wenet-packed", "sherpa-wenet")
    after = followed(text, asked).after
    assert after == 'input { name: "offset" data_type: TYPE_INT64\n  dims: [ 1 ] }\n'
    assert followed(after, spoken("sherpa-wenet", "wenet-packed")).after == text.replace(" reshape:", " reshape")


def test_a_size_that_is_fixed_is_fixed_here_too() -> None:
    text = 'input { name: "past_0" data_type: TYPE_FP32 dims: [ 2, -1, 4, -1, 7 ] }\n'
    text += 'input { name: "input_ids" data_type: TYPE_INT64 dims: [ -1, 5 ] }'
    after = followed(text, plan(STACKED, "gpt2-stacked", dims=(("batch_size", 1),))).after
    assert after == changed(text, ("2, -1", "2, 1"), ("[ -1, 5", "[ 1, 5"))


def test_a_file_that_already_speaks_of_the_result_stays() -> None:
    text = followed(TRITON).after
    assert not followed(text).is_changed


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (TRITON, changed(TRITON, ('onnxruntime"\n', 'onnxruntime"\ndefault_model_filename: "new.onnx"\n'))),
        (
            changed(TRITON, ("max_batch", 'default_model_filename: "model.onnx"\nmax_batch')),
            changed(TRITON, ("max_batch", 'default_model_filename: "new.onnx"\nmax_batch')),
        ),
        (
            changed(TRITON, ("max_batch", 'default_model_filename: "new.onnx"\nmax_batch')),
            changed(TRITON, ("max_batch", 'default_model_filename: "new.onnx"\nmax_batch')),
        ),
    ],
)  # fmt: skip
def test_the_model_may_have_another_name(text: str, after: str) -> None:
    assert followed(text, plan(GPU, "wenet-gpu"), new="new.onnx").after == after


def test_a_folder_of_another_name_is_told() -> None:
    asked = plan(GPU, "wenet-gpu")
    (note,) = followed(TRITON, asked).notes
    assert note == "config.pbtxt calls the model `encoder`, and Triton wants the name of its folder: `new`"
    place = Path("encoder") / NAME
    assert follow(Beside(place, place, TRITON, "model.onnx", "model.onnx"), asked).notes == ()


def test_ports_that_are_gone_elsewhere_are_told() -> None:
    text = TRITON + 'model_warmup [ { name: "w" inputs { key: "att_cache" value { zero_data: true } } } ]\n'
    notes = followed(text).notes
    assert "config.pbtxt speaks of `att_cache` in `model_warmup` too: change that by hand" in notes


NEMO = "".join(
    f'state {{ input_name: "{name}" output_name: "{following}" data_type: TYPE_FP32 dims: [{dims}] }}\n'
    for name, following, dims in (
        ("cache_last_channel", "cache_last_channel_next", "-1, 2, -1, 11"),
        ("cache_last_time", "cache_last_time_next", "-1, 2, 11, -1"),
        ("cache_last_channel_len", "cache_last_channel_next_len", "-1"),
    )
)


def test_states_that_triton_would_swap_are_told() -> None:
    text = f"sequence_batching {{\n{NEMO}}}\n"
    assert followed(text, spoken("nemo", "nemo")).notes == (), "NeMo's own names sort alike"
    side = followed(text, spoken("nemo", "genai-nemotron"))
    assert [name for name, _, _ in ports(side.after, "state", "output_name")] == [
        "cache_last_channel_next", "cache_last_time_next", "cache_last_channel_len_next",
    ]  # fmt: skip
    assert side.notes == (
        "Triton pairs states by the order of their names (triton-inference-server/server#8586), and would feed "
        "`cache_last_channel_len_next` to `cache_last_channel`, `cache_last_channel_next` to `cache_last_channel_len`: "
        "--rename one so that inputs and outputs sort alike",
    )


def test_hundreds_of_layers_take_no_time() -> None:
    states = ",\n".join(
        f'{{ input_name: "past_{layer}" output_name: "present_{layer}" data_type: TYPE_FP32 dims: [2, -1, 4, -1, 7] }}'
        for layer in range(300)
    )
    asked = spoken("gpt2-stacked", "genai", layer=300)
    start = time.process_time()
    after = followed(f"sequence_batching {{ state [ {states} ] }}", asked).after
    assert time.process_time() - start < 10
    assert len(ports(after, "state", "input_name")) == 600
