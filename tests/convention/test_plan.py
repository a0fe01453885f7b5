"""Plans: what a conversion changes at the boundary, and what it refuses."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from speaking import anonymous, convention, dims, names, of_no_family, plan, shuffled, signature_after

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention
from onnxfix.convention.detect import detect
from onnxfix.convention.load import library, parse_convention
from onnxfix.convention.matching import is_kin
from onnxfix.convention.plan import make_plan
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.sketch import SIZES, signature_of
from onnxfix.errors import PlanError

DYNAMIC = {**SIZES, "batch": "B", "time": "T"}
TEXT = ("gpt2-stacked", "optimum")
WITH_KV = [*(name for name in library() if name.startswith("wenet-")), *TEXT]


# Every convention into every other, whatever their families


@pytest.mark.parametrize("target", WITH_KV)
@pytest.mark.parametrize("source", WITH_KV)
def test_a_converted_model_speaks_the_target_and_needs_no_more(source: str, target: str) -> None:
    done = plan(source, target)
    after = signature_after(done)
    again = make_plan(bind(library()[target], after), library()[target])
    assert again.is_identity, again.explain()
    assert [line for line in again.explain() if not line.startswith(("note", "the cache"))] == [
        f"{cache.name}: stays as it is" for cache in again.caches
    ]
    found = detect(after).choose()
    if source in TEXT and target == "wenet-gpu-kv":  # It differs from wenet-kv in what a language model lacks.
        assert (found.name, found.twins) == ("wenet-kv", ("wenet-gpu-kv",))
    else:
        assert found.name == target
    assert done.is_identity == (source == target and not done.metadata)
    # And back: the caches are what they were.
    back = make_plan(bind(library()[target], after, {"head": 5}), of_no_family(library()[source]))
    first = library()[source].caches[0]
    before = [
        port for port in done.binding.signature.inputs if any(spec.template.match(port.name) for spec in first.past)
    ]
    assert [port for port in back.inputs if port in before] == before


@pytest.mark.parametrize(("source", "target"), [("silero-hc", "silero-state"), ("silero-state", "silero-hc")])
def test_hidden_and_cell(source: str, target: str) -> None:
    done = plan(source, target, {**SIZES, "layer": 1, "batch": "batch"})
    assert not done.is_identity
    assert detect(signature_after(done)).choose().name == target
    with pytest.raises(PlanError, match="has no counterpart in the model: `lstm` has also `layer`"):
        plan("silero-hc", "silero-state")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(("silero-hc", "silero-state"), WITH_KV)))
def test_what_shares_no_axes_is_refused(source: str, target: str) -> None:
    for one, other in ((source, target), (target, source)):
        with pytest.raises(PlanError) as caught:
            plan(one, other)
        assert "has no counterpart in the model: `" in str(caught.value)


FAMILIES = [
    ("wenet-kv", "wenet-packed", ""),
    ("wenet-kv", "optimum", "`wenet-kv` (speech/wenet) and `optimum` (decoder) are for different kinds of network"),
    ("wenet-kv", "of none", ""),
    ("of none", "wenet-kv", ""),
]


@pytest.mark.parametrize(("source", "target", "refusal"), FAMILIES)
def test_conventions_meet_within_a_family(source: str, target: str, refusal: str) -> None:
    none = of_no_family(library()["optimum"])
    one, other = library().get(source, none), library().get(target, none)
    binding = bind(one, signature_of(one))
    if not refusal:
        assert make_plan(binding, other).caches
        return
    with pytest.raises(PlanError) as caught:
        make_plan(binding, other)
    assert caught.value.message == refusal
    assert "describe those to reach: --to 'PAST -> PRESENT: LAYOUT'" in caught.value.hint


def test_a_family_contains_what_stands_below_it() -> None:
    families = ("decoder", "decoder/hybrid", "decoder/hybrid/small", "decoders", "speech", "")
    one = convention(["a: batch"])
    kin = {
        f"{first}-{second}"
        for first, second in itertools.combinations(families, 2)
        if is_kin(replace(one, family=first), replace(one, family=second))
    }
    nested = {"decoder-decoder/hybrid", "decoder-decoder/hybrid/small", "decoder/hybrid-decoder/hybrid/small"}
    assert kin == nested | {f"{family}-" for family in families if family}


def test_identity_with_any_names_of_dims_and_any_order_of_unlisted_ports() -> None:
    told = {"num_blocks": "3", "head": "5", "output_size": "55", "cnn_module_kernel": "8", "model_type": "wenet_ctc"}
    for name in library():
        assert plan(name, name, metadata=told).is_identity
        assert plan(name, name, DYNAMIC, metadata=told).is_identity
    signature = anonymous(signature_of(library()["silero-state"], DYNAMIC))
    binding = bind(library()["silero-state"], shuffled(signature))
    assert make_plan(binding, library()["silero-state"]).is_identity


# Ports


def test_the_ports_of_a_conversion() -> None:
    done = plan("wenet-packed", "wenet-kv", {**SIZES, "time": "T_CACHE"})
    kv = [f"{kv}_cache_{layer}" for layer in range(3) for kv in ("key", "value")]
    assert names(done.inputs) == ["chunk", "offset", "required_cache_size", *kv, "cnn_cache", "att_mask"]
    assert names(done.outputs) == ["output", *(f"r_{name}" for name in kv), "r_cnn_cache"]
    assert dims(done.inputs)["key_cache_2"] == (1, 5, "T_CACHE", 11)
    assert done.pairs == {f"{name}": f"r_{name}" for name in [*kv, "cnn_cache"]}
    assert done.renames == {} and done.notes == ()
    assert done.explain() == [
        "attention, past: att_cache -> key_cache_0, key_cache_1, ... value_cache_2 (6)",
        "  split layer (0 to 2) off `layer head time (kv dim)`",
        "  split kv (key, value) off `head time (kv dim)`",
        "  rearrange `head time dim` to `batch head time dim`",
        "attention, present: r_att_cache -> r_key_cache_0, r_key_cache_1, ... r_value_cache_2 (6)",
        "  split layer (0 to 2) off `layer head time (kv dim)`",
        "  split kv (key, value) off `head time (kv dim)`",
        "  rearrange `head time dim` to `batch head time dim`",
        "convolution: stays as it is",
        "inputs: chunk [1, FRAME, FEATURE], offset [], required_cache_size [], key_cache_0 [1, 5, T_CACHE, 11], "
        "value_cache_0 [1, 5, T_CACHE, 11], key_cache_1 [1, 5, T_CACHE, 11], value_cache_1 [1, 5, T_CACHE, 11], "
        "... att_mask [1, 1, KEY] (11)",
        "outputs: output [1, FRAME, 55], r_key_cache_0 [1, 5, T_CACHE, 11], r_value_cache_0 [1, 5, T_CACHE, 11], "
        "r_key_cache_1 [1, 5, T_CACHE, 11], r_value_cache_1 [1, 5, T_CACHE, 11], r_key_cache_2 [1, 5, T_CACHE, 11], "
        "r_value_cache_2 [1, 5, T_CACHE, 11], r_cnn_cache [3, 1, 55, T_CACHE]",
    ]


def test_ports_of_one_role_take_the_name_of_the_target() -> None:
    done = plan("wenet-gpu", "wenet-packed")
    assert done.renames == {"chunk_xs": "chunk", "chunk_out": "output"}
    assert names(done.inputs) == ["chunk", "chunk_lens", "offset", "att_cache", "cnn_cache", "cache_mask"]
    assert names(done.outputs)[3:] == [
        "output",
        "chunk_out_lens",
        "r_offset",
        "r_att_cache",
        "r_cnn_cache",
        "r_cache_mask",
    ]


def test_a_name_that_is_taken_is_not_taken_away() -> None:
    signature = signature_of(library()["wenet-gpu"])
    taken = Signature((*signature.inputs, Port("chunk", "float32", (1,))), signature.outputs)
    done = make_plan(bind(library()["wenet-gpu"], taken), library()["wenet-packed"])
    assert done.renames == {"chunk_out": "output"}


def two_ports(one: str, two: str) -> Convention:
    text = f"""
        name = "x"
        cache = [{{ name = "c", past = "c: batch", present = "d: batch" }}]
        input = [{{ role = "features", port = "{one}: batch" }}, {{ role = "mask", port = "{two}: batch" }}]
    """
    return parse_convention(text, where="x")


def test_names_may_trade_places() -> None:
    here, there = two_ports("a", "b"), two_ports("b", "a")
    done = make_plan(bind(here, signature_of(here)), there)
    assert done.renames == {"a": "b", "b": "a"}
    assert names(done.inputs) == ["b", "a", "c"]
    chained = make_plan(bind(here, signature_of(here)), two_ports("b", "z"))
    assert chained.renames == {"a": "b", "b": "z"}


def test_notes_tell_what_the_result_is_not() -> None:
    notes = plan("wenet-gpu", "wenet-packed").notes
    assert "`wenet-packed` says nothing of the cache `mask`: it stays as it is" in notes
    assert "the input `offset` is a scalar, int64 in `wenet-packed`; here it stays float32 [1, 1]" in notes
    notes = plan("wenet-kv", "optimum").notes
    assert "`optimum` also has the input `input_ids`, the model does not" in notes
    notes = plan("wenet-kv", "wenet-gpu", without=("convolution",)).notes
    assert "`wenet-gpu` also has the input `chunk_lens`, the model does not" in notes


def test_a_mask_is_no_convolution() -> None:
    done = plan("wenet-gpu", "wenet-packed", without=("convolution",))
    kept = [cache.name for cache in done.caches if cache.is_kept]
    assert kept == ["offset", "mask"] and "cnn_cache" not in names(done.inputs)


# Order


BOTH = ["{kv}_{layer} -> r_{kv}_{layer}: batch time dim", "conv.{layer} -> conv_out.{layer}: batch dim"]
PACKED = ["c -> r_c: layer kv batch time dim", "conv -> conv_out: layer batch dim"]
ORDERS = {
    "": "key_0 key_1 key_2 value_0 value_1 value_2 conv.0 conv.1 conv.2",
    ", by kind": "key_0 key_1 key_2 value_0 value_1 value_2 conv.0 conv.1 conv.2",
    ", by layer": "key_0 value_0 conv.0 key_1 value_1 conv.1 key_2 value_2 conv.2",
}


@pytest.mark.parametrize("order", ORDERS)
def test_by_layer_and_by_kind(order: str) -> None:
    target = [BOTH[0] + order, BOTH[1]]
    assert names(plan(PACKED, target).inputs) == ORDERS[order].split()
    assert names(plan(PACKED[::-1], target).inputs)[0] == ("conv.0" if order != ", by layer" else "key_0")
    if order:
        shuffled_plan = make_plan(bind(convention(BOTH), shuffled(signature_of(convention(BOTH)))), convention(target))
        assert names(shuffled_plan.inputs) == ORDERS[order].split()
        assert make_plan(bind(convention(target), signature_after(shuffled_plan)), convention(target)).is_identity


def test_without_an_order_renamed_ports_stay_where_they_are() -> None:
    signature = shuffled(signature_of(convention(BOTH)))
    target = [text.replace("{kv}_{layer}", "{layer}.{kv:k,v}").replace("conv", "c") for text in BOTH]
    done = make_plan(bind(convention(BOTH), signature), convention(target))
    renames = {old: new for cache in done.caches for old, new in cache.past.renames.items()}
    assert names(done.inputs) == [renames[name] for name in names(signature.inputs)]


def test_what_is_spread_over_fewer_names_comes_last_in_its_place() -> None:
    text = """
        name = "x"
        cache = [
            { name = "a", past = "a.{layer}: batch", present = "ra.{layer}: batch" },
            { name = "embed", past = "embed: dim", present = "r_embed: dim" },
            { name = "b", past = "b.{layer}: time", present = "rb.{layer}: time" },
        ]
        [order]
        caches = "by layer"
    """
    target = parse_convention(text, where="x")
    source = convention(["p: layer batch", "q: layer time", "embed -> r_embed: dim"])
    source = convention(["p -> rp: layer batch", "q -> rq: layer time", "e -> re: dim"])
    done = make_plan(bind(source, signature_of(source)), target)
    assert names(done.inputs) == ["a.0", "b.0", "a.1", "b.1", "a.2", "b.2", "embed"]


def test_listed_ports_trade_places_and_unlisted_ones_stay() -> None:
    text = """
        name = "x"
        cache = [{ name = "c", past = "c.{layer}: time", present = "d.{layer}: time" }]
        input = [{ role = "mask", port = "m: batch" }, { role = "offset", port = "o: batch" }]
        [order]
        inputs = ["o", "c", "m"]
    """
    target = parse_convention(text, where="x")
    others = [Port(name, "float32", (1,)) for name in ("m", "x", "o", "y")]
    cache, present = Port("p", "float32", (2, 7)), Port("q", "float32", (2, 7))
    source = convention(["p -> q: layer time"])
    for inputs, expected in (
        ((*others, cache), ["o", "x", "c.0", "c.1", "y", "m"]),
        ((others[1], cache, others[0], others[2]), ["x", "o", "c.0", "c.1", "m"]),
        ((others[1], cache, others[3]), ["x", "c.0", "c.1", "y"]),
    ):
        done = make_plan(bind(source, Signature(tuple(inputs), (present,))), target)
        assert names(done.inputs) == expected
        assert make_plan(bind(target, signature_after(done)), target).is_identity


def test_kept_caches_stay_in_their_place() -> None:
    done = plan("wenet-packed", "optimum")
    assert names(done.inputs)[:3] == ["chunk", "offset", "required_cache_size"]
    assert names(done.inputs)[-2:] == ["cnn_cache", "att_mask"]


# Dims


def test_dims_take_the_names_of_the_target() -> None:
    done = plan("gpt2-stacked", "optimum", {**SIZES, "batch": "N", "time": "T"})
    assert dims(done.inputs)["past_key_values.0.key"] == ("batch_size", 5, "past_sequence_length", 11)
    assert dims(done.outputs)["present.0.key"][2] == "past_sequence_length + sequence_length"  # type: ignore[index]
    signature = anonymous(signature_of(library()["gpt2-stacked"], DYNAMIC))
    batch = signature.inputs[0].dims[0]  # type: ignore[index]
    done = make_plan(bind(library()["gpt2-stacked"], signature), library()["optimum"])
    assert done.symbols[str(batch)] == "batch_size"
    assert not [port for port in (*done.inputs, *done.outputs) if batch in (port.dims or ())]


def test_dims_that_the_file_does_not_tell() -> None:
    signature = signature_of(library()["wenet-packed"], {**SIZES, "time": "T"})
    outputs = {
        "named by nobody": ([f"Concat_{index}" for index in range(4)], "Concat_2"),
        "undeclared": ([None] * 4, None),
    }
    for case, (sizes, own) in outputs.items():
        ports = [Port("r_att_cache", "float32", tuple(sizes)), Port("r_cnn_cache", "float32", None)]
        binding = bind(library()["wenet-packed"], Signature(signature.inputs, tuple(ports)))
        done = make_plan(binding, library()["wenet-kv"])
        # Whether the cache is a window of one length or grows, such names do not tell: T_CACHE might be wrong.
        assert dims(done.inputs)["value_cache_2"] == (1, 5, "T_CACHE", 11), case
        assert dims(done.outputs)["r_value_cache_2"] == (1, 5, own, 11), case
        assert dims(done.outputs)["r_cnn_cache"] is None
        to_gpu = make_plan(binding, library()["wenet-gpu"])
        assert dims(to_gpu.outputs)["r_cnn_cache"] == (1, 3, 55, None)


def test_what_is_put_out_may_be_longer_than_what_is_put_in() -> None:
    source = convention(["c.{layer} -> d.{layer}: batch head time"])
    signature = Signature((Port("c.0", "float32", (1, 5, 64)),), (Port("d.0", "float32", ("B", "H", "T")),))
    done = make_plan(bind(source, signature), convention(["c -> d: layer time (batch head)"]))
    assert (dims(done.inputs), dims(done.outputs)) == ({"c": (1, 64, 5)}, {"d": (1, "T", 5)})


# Metadata


def test_metadata_follow_the_target() -> None:
    done = plan("wenet-bpu", "wenet-packed", metadata={"num_decoding_left_chunks": "4", "chunk_size": "8"})
    assert done.metadata == {
        "num_blocks": "3", "head": "5", "output_size": "55", "cnn_module_kernel": "8", "left_chunks": "4",
    }  # fmt: skip
    assert plan("gpt2-stacked", "wenet-packed").metadata == {"num_blocks": "3", "head": "5", "output_size": "55"}
    assert "metadata num_blocks = 3" in done.explain()
    assert plan("wenet-kv", "wenet-packed", metadata={"head": "7", "num_blocks": "x"}).metadata == {
        "output_size": "55", "cnn_module_kernel": "8",
    }  # fmt: skip


def test_an_input_that_is_an_output_may_stay_one() -> None:
    source = convention(["p -> q: layer time"])
    through = Port("x", "float32", (1,))
    signature = Signature((Port("p", "float32", (2, 3)), through), (Port("q", "float32", (2, 3)), through))
    done = make_plan(bind(source, signature), convention(["p.{layer} -> q.{layer}: time"]))
    assert names(done.inputs) == ["p.0", "p.1", "x"] and names(done.outputs) == ["q.0", "q.1", "x"]


def test_a_cache_that_is_only_read() -> None:
    done = plan(["cross.{layer}.{kv}: batch head time dim"], ["cross_{kv:k,v}: layer batch time (head dim)"])
    assert names(done.inputs) == ["cross_k", "cross_v"] and done.outputs == () and done.pairs == {}
    assert done.caches[0].present is None
