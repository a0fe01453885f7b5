"""Which convention does a model speak? Right for every one of the library, and a clear stop where it cannot be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from time import process_time

import pytest
from speaking import anonymous, shuffled

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention, convention_from_sentences
from onnxfix.convention.detect import detect
from onnxfix.convention.layout import parse_layout
from onnxfix.convention.load import library, load_convention, parse_convention
from onnxfix.convention.plan import make_plan
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.sketch import SIZES, Sizes, cache_ports, signature_of
from onnxfix.errors import DetectError, LayoutError

METADATA = {"num_blocks": "3", "head": "5", "chunk_size": "7", "left_chunks": "1", "name": "x", "odd": "--3"}
DYNAMIC = {**SIZES, "batch": "B", "time": "T"}


def optional(convention: Convention) -> list[str]:
    return [spec.name for spec in (*convention.caches, *convention.inputs, *convention.outputs) if spec.optional]


def hides_heads(convention: Convention) -> bool:
    """Whether dims do not tell the number of heads: it stands in a dim with another axis of any size."""
    groups = [item for cache in convention.caches for spec in cache.past for item in spec.layout.items]
    return any("head" in item and set(item) - {"head", "kv"} for item in groups)


def undeclared(signature: Signature) -> Signature:
    """Outputs as exporters leave them: dims with names of their own, no dims, no rank."""
    kinds: list[Callable[[Port], tuple[Dim, ...] | None]] = [
        lambda port: tuple(f"Concat{port.name}_dim_{index}" for index in range(port.rank or 0)),
        lambda port: (None,) * (port.rank or 0),
        lambda port: None,
    ]
    outputs = [replace(port, dims=kinds[index % 3](port)) for index, port in enumerate(signature.outputs)]
    return replace(signature, outputs=tuple(outputs))


SAME_PORTS = {"llm-export", "llm-export-chatglm", "llm-export-llama"}
"""Conventions that differ in the order of axes alone: where dims do not tell it, detection stops."""

VARIANTS: dict[str, Callable[[Convention], Signature]] = {
    "static": signature_of,
    "static, shuffled": lambda convention: shuffled(signature_of(convention)),
    "dynamic": lambda convention: signature_of(convention, DYNAMIC),
    "dynamic, anonymous": lambda convention: anonymous(signature_of(convention, DYNAMIC)),
    "with metadata": lambda convention: signature_of(convention, metadata=METADATA),
    "without what is optional": lambda convention: signature_of(convention, DYNAMIC, without=optional(convention)),
    "outputs undeclared": lambda convention: undeclared(signature_of(convention, DYNAMIC)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", library())
def test_every_convention_of_the_library_is_found(name: str, variant: str) -> None:
    convention = library()[name]
    signature = VARIANTS[variant](convention)
    detection = detect(signature, {"head": 5} if hides_heads(convention) else None)
    if detection.best is None:
        assert name in {one.name for one in detection.likely} <= SAME_PORTS
        return
    found = detection.choose()
    assert name in (found.name, *found.twins)
    for cache in found.binding.caches:
        for axis in cache.spec.axes - {"batch", "time"}:
            fixed = {spec.template.fixed.get(axis) for spec in cache.spec.past} - {None}
            assert cache.size(axis) == (len(fixed) or SIZES[axis]), (cache.spec.name, axis)
    assert not [reason for reason in found.reasons if reason.startswith("but")]


@pytest.mark.parametrize("sizes", [SIZES, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", library())
def test_where_its_convention_is_not_known_no_other_takes_its_place(name: str, sizes: Sizes) -> None:
    """What is found instead reads caches as its own does, all or some, or something is said against it."""
    signature = signature_of(library()[name], sizes)
    own = next(one for one in detect(signature, {"head": 5}).candidates if one.name == name)
    others = [one for one in library().values() if one.name != name and {name, one.name} - SAME_PORTS]
    for found in detect(signature, {"head": 5}, others).candidates:
        assert found.reading <= own.reading or [reason for reason in found.reasons if reason.startswith("but")]


def test_no_cache_no_convention() -> None:
    plain = Signature((Port("x", "float32", (1, 80)),), (Port("y", "float32", (1, 80)),))
    detection = detect(plain)
    assert (detection.candidates, detection.rejections, detection.best) == ((), (), None)
    with pytest.raises(DetectError) as caught:
        detection.choose()
    assert str(caught.value).startswith("the model speaks no known convention\n  describe its caches: --from")


def test_reasons_are_given() -> None:
    found = detect(signature_of(library()["wenet-packed"], {**SIZES, "time": "T_CACHE"}, metadata=METADATA)).choose()
    assert found.reasons == (
        "att_cache is layer head time (kv dim)",
        "r_att_cache is layer head time (kv dim)",
        "cnn_cache is layer batch channel time",
        "r_cnn_cache is layer batch channel time",
        "has its other ports chunk, offset, required_cache_size, att_mask, output",
        "names its dims T_CACHE",
        "its caches agree on layer (attention 3, convolution 3)",
        "metadata num_blocks = 3 agrees with layer",
        "metadata head = 5 agrees with head",
        "time is of open size",
    )


def test_metadata_that_contradicts_speaks_against() -> None:
    signature = signature_of(library()["wenet-packed"], metadata={**METADATA, "num_blocks": "12"})
    found = detect(signature).choose()
    assert found.conflicts == 1
    assert "but metadata says num_blocks = 12, and layer is 3" in found.reasons


def test_a_conflict_weighs_more_than_a_port() -> None:
    """After a conversion to wenet-kv, offset and mask are still states, and only the layers tell how the rest lies."""
    signature = signature_of(library()["wenet-gpu-kv"])
    kv = signature_of(library()["wenet-kv"])
    turned = {port.name: port for port in (*kv.inputs, *kv.outputs) if "cnn" in port.name}
    mixed = Signature(
        tuple(turned.get(port.name, port) for port in signature.inputs),
        tuple(turned.get(port.name, port) for port in signature.outputs),
    )
    detection = detect(mixed)
    assert [one.name for one in detection.candidates] == ["wenet-kv", "wenet-gpu-kv"]
    assert detection.choose().name == "wenet-kv"
    assert "but its caches differ in layer (attention 3, convolution 1)" in detection.candidates[1].reasons


def test_a_conflict_does_not_outweigh_half_of_the_ports() -> None:
    """A wrong entry in the metadata must not let a convention win that explains next to nothing."""
    cache = '[[cache]]\nname = "c"\npast = "p.{}: dim"\npresent = "n.{}: dim"\n'
    whole = parse_convention(
        'name = "whole"\n' + cache.replace("{}", "{layer}") + '[sizes]\nlayer = "num_blocks"', where="x"
    )
    part = parse_convention('name = "part"\n' + cache.replace("{}", "{layer=0}"), where="x")
    for layers, best in ((3, "whole"), (1, "part")):
        signature = signature_of(whole, {**SIZES, "layer": layers}, metadata={"num_blocks": "12"})
        found = detect(signature, conventions=[whole, part])
        assert found.choose().name == best
        assert {one.name: one.conflicts for one in found.candidates} == {"whole": 1, "part": 0}


ORDERS = {
    "qwen": "layer kv batch time head dim",
    "llama": "layer kv batch head time dim",
    "chatglm": "layer kv time batch head dim",
}
"""Those of llm-export, which wrote its one tensor in three orders."""


@pytest.mark.parametrize(
    ("dims", "best"),
    [
        ((3, 2, 1, "history_len", 5, 11), "qwen"),
        ((3, 2, 1, 5, "history_len", 11), "llama"),
        ((3, 2, "history_len", 1, 5, 11), "chatglm"),
        ((3, 2, "N", "history_len", 5, 11), None),  # qwen with a batch, or chatglm
        ((3, 2, 1, 7, 5, 11), None),  # numbers tell nothing
        ((3, 2, 7, 1, 5, 11), None),
        (("L", 2, 1, "history_len", 5, "D"), "qwen"),
        (None, None),
    ],
)
def test_symbolic_dims_tell_the_order_of_axes(dims: tuple[Dim, ...] | None, best: str | None) -> None:
    text = 'name = "{}"\n[[cache]]\nname = "c"\npast = "p: {}"\npresent = "n: {}"'
    orders = [parse_convention(text.format(name, layout, layout), where="x") for name, layout in ORDERS.items()]
    detection = detect(Signature((Port("p", "float32", dims),), (Port("n", "float32", None),)), {"layer": 3}, orders)
    assert (detection.best and detection.best.name) == best
    assert len(detection.candidates) == 3 and not any(one.conflicts for one in detection.candidates)


def test_a_model_that_only_hands_caches_out() -> None:
    """Optimum's `decoder_model.onnx` begins what `decoder_with_past_model.onnx` goes on with."""
    whole = signature_of(library()["optimum"], DYNAMIC)
    half = replace(whole, inputs=tuple(port for port in whole.inputs if "past" not in port.name))
    detection = detect(half)
    assert detection.candidates == ()
    told = {one.name: one.ports for one in detection.rejections if one.reason.startswith("it hands the caches out")}
    assert told["optimum"] == 6
    with pytest.raises(DetectError) as caught:
        detection.choose()
    assert re.search(
        "\n  not (.* and )?optimum( and .*)?: it hands the caches out and takes none in", str(caught.value)
    )
    fewer = tuple(port for port in half.outputs if port.name != "present.1.key")
    assert detect(replace(half, outputs=fewer)).rejections == ()
    other = tuple(replace(port, dims=(1,)) if port.name == "present.1.key" else port for port in half.outputs)
    assert detect(replace(half, outputs=other)).rejections == ()


def test_two_equally_good_candidates_stop_with_both_named() -> None:
    kv, layers = (parse_convention(f'name = "{name}"\n[[cache]]\nname = "c"\npast = "c: {layout} head"', where="x")
                  for name, layout in (("k-first", "(kv layer)"), ("l-first", "(layer kv)")))  # fmt: skip
    detection = detect(Signature((Port("c", "float32", (6, 5)),), ()), conventions=[layers, kv])
    assert detection.best is None
    with pytest.raises(DetectError) as caught:
        detection.choose()
    assert str(caught.value) == (
        "the model fits k-first and l-first equally well\n  say which with --from, for example --from k-first"
    )


TWIN = """
name = "{name}"
family = "{family}"
input = [{{ role = "tokens", port = "ids: batch sequence", optional = {optional} }}]
[[cache]]
name = "self"
past = "p.{{layer}}.{{kv:k,v}}: batch time dim"
present = "n.{{layer}}.{{kv:k,v}}: batch time dim"
past-dims = {{ time = "{time}" }}
[order]
caches = {order}
"""


def twin(
    name: str, *, family: str = "decoder", optional: str = "true", time: str = "T", order: str = '"by layer"'
) -> Convention:
    text = TWIN.format(name=name, family=family, optional=optional, time=time, order=order)
    return parse_convention(text, where=name)


def test_twins_are_no_ambiguity() -> None:
    """What reads the same caches in the same ports cannot go wrong; what else it says decides which is named."""
    alike, kind = twin("alike"), twin("kind", order='["cache", "kv", "layer"]')
    for signature, best, other in (
        (signature_of(alike), "alike", "kind"),
        (signature_of(kind), "kind", "alike"),
        (shuffled(signature_of(kind)), "alike", "kind"),
    ):
        found = detect(signature, conventions=[kind, alike]).choose()
        assert (found.name, found.twins) == (best, (other,))
        assert found.reasons[-1] == f"{other} reads it the same way"
    assert (
        "its caches stand in order (cache, kv, layer)"
        in detect(signature_of(kind), conventions=[kind]).candidates[0].reasons
    )


def test_which_of_twins_is_named() -> None:
    plain, asking = twin("z-plain"), twin("a-asking", optional="false")
    for signature, conventions, best in (
        (signature_of(plain, DYNAMIC), [twin("a", time="S"), twin("b")], "b"),  # the names of its dims
        (signature_of(plain), [asking, plain], "z-plain"),  # the one that says least
        (signature_of(plain), [twin("b"), twin("a")], "a"),  # the alphabet
    ):
        assert detect(signature, conventions=conventions).choose().name == best


def test_what_reads_the_ports_otherwise_is_no_twin() -> None:
    one = twin("one")
    turned = replace(one, name="turned", caches=tuple(
        replace(cache, past=tuple(replace(spec, layout=parse_layout("time batch dim")) for spec in cache.past))
        for cache in one.caches
    ))  # fmt: skip
    detection = detect(signature_of(one), conventions=[one, turned])
    assert detection.best is None and [found.twins for found in detection.candidates] == [(), ()]
    assert [found.name for found in detection.likely] == ["one", "turned"]
    elsewhere = twin("elsewhere", family="small")
    detection = detect(signature_of(one), conventions=[one, elsewhere])
    assert detection.best is None and detection.candidates[0].twins == ()


@pytest.mark.parametrize(
    ("name", "lost", "reason"),
    [
        ("gpt2-stacked", "present_1", "past_1: the output `present_1`, which should feed this input, is missing"),
        ("gpt2-stacked", "past_1", "present_1: this output feeds no input"),
        (
            "optimum",
            "past_key_values.2.key",
            "past_key_values.2.key: the input for layer 2, kv key of the cache",
        ),
        ("silero-hc", "c", "c: the input for hc cell of the cache `lstm` is missing"),
        (
            "wenet-kv",
            "r_value_cache_0",
            "r_value_cache_0: the output for kv value, layer 0 of the cache",
        ),
    ],
)
def test_rejections_carry_reasons(name: str, lost: str, reason: str) -> None:
    whole = signature_of(library()[name])
    sides = [tuple(port for port in side if port.name != lost) for side in (whole.inputs, whole.outputs)]
    detection = detect(Signature(*sides))
    rejection = next(one for one in detection.rejections if one.name == name)
    assert rejection.reason.startswith(reason)
    with pytest.raises(DetectError) as caught:
        detection.choose()
    assert re.search(rf"\n  not (.* and )?{name}( and .*)?: {re.escape(reason)}", str(caught.value))


def test_an_error_tells_few_reasons_and_those_that_come_near_first() -> None:
    """Conventions that fail for one reason share a line."""
    whole = signature_of(library()["optimum"])
    broken = replace(whole, outputs=tuple(port for port in whole.outputs if port.name != "present.1.key"))
    one, two = (replace(library()["optimum"], name=name) for name in ("two", "one"))
    far = [parse_convention(
        f'name = "{name}"\n[[cache]]\nname = "c"\npast = "past_key_values.{index}.key: {name}"', where="x"
    ) for index, name in enumerate("cba")]  # fmt: skip
    detection = detect(broken, conventions=[*far, one, two])
    assert [(found.name, found.ports) for found in detection.rejections] == [
        ("one", 11), ("two", 11), ("a", 1), ("b", 1), ("c", 1),
    ]  # fmt: skip
    with pytest.raises(DetectError) as caught:
        detection.choose()
    assert str(caught.value) == (
        "the model speaks no known convention\n"
        "  not one and two: present.1.key: the output for layer 1, kv key of the cache `self` is missing\n"
        "  not a: past_key_values.2.key: the layout `a` has 1 dimensions, the tensor has 4: [1, 5, 7, 11]\n"
        "  not b: past_key_values.1.key: the layout `b` has 1 dimensions, the tensor has 4: [1, 5, 7, 11]\n"
        "  describe its caches: --from 'PAST -> PRESENT: LAYOUT' (once a cache), or a TOML file; "
        "onnxfix inspect MODEL --propose begins one"
    )


def change(signature: Signature, name: str, dims: tuple[Dim, ...]) -> Signature:
    sides = [
        tuple(replace(port, dims=dims) if port.name == name else port for port in side)
        for side in (signature.inputs, signature.outputs)
    ]
    return Signature(*sides, signature.metadata)


@pytest.mark.parametrize(
    ("name", "port", "dims", "reason"),
    [
        (
            "wenet-packed",
            "att_cache",
            (3, 5, 7),
            "has 4 dimensions, the tensor has 3",
        ),
        ("wenet-packed", "att_cache", (3, 5, 7, 23), "23 does not divide into `(kv dim)`, as 2 is not a factor"),
        (
            "wenet-packed",
            "att_cache",
            ("L", 5, 7, 22),
            "the axis `layer` of `layer head time (kv dim)` has the symbolic",
        ),
        (
            "wenet-packed",
            "r_att_cache",
            (3, 5, 7),
            "has 4 dimensions, the tensor has 3",
        ),
        (
            "gpt2-stacked",
            "past_1",
            (3, 1, 5, 7, 11),
            "`kv` of `kv batch head time dim` should have size 2,",
        ),
        (
            "gpt2-stacked",
            "past_1",
            ("N", 2, 5, 7, 11),
            "the axis `kv` of `kv batch head time dim` has the symbolic",
        ),
    ],
)
def test_ports_that_do_not_fit_their_layout(name: str, port: str, dims: tuple[Dim, ...], reason: str) -> None:
    detection = detect(change(signature_of(library()[name]), port, dims=dims))
    reasons = {one.name: one.reason for one in detection.rejections}
    assert reason in reasons[name] and reasons[name].startswith(port)


def test_an_optional_cache_that_does_not_fit_is_left_out() -> None:
    signature = change(signature_of(library()["wenet-gpu"]), "offset", dims=())
    found = detect(signature).choose()
    assert [cache.spec.name for cache in found.binding.caches] == ["attention", "convolution", "mask"]
    assert found.binding.misfits == {"offset": "offset: the layout `batch 1` has 2 dimensions, the tensor has 0: []"}
    assert found.conflicts == 1


def test_sizes_that_the_user_gives() -> None:
    signature = change(signature_of(library()["wenet-packed"]), "att_cache", dims=("L", "H", "T", "D"))
    binding = bind(library()["wenet-packed"], signature, {"layer": 3})
    assert {axis: binding.caches[0].size(axis) for axis in ("layer", "head", "time", "dim", "kv")} == {
        "layer": 3, "head": "H", "time": "T", "dim": None, "kv": 2,
    }  # fmt: skip
    bpu = signature_of(library()["wenet-bpu"], without=["convolution"])
    sizes = {
        key: bind(library()["wenet-bpu"], bpu, {key: 5}).caches[0].size("layer") for key in ("head", "attention.head")
    }
    assert sizes == {"head": 3, "attention.head": 3}
    assert bind(library()["wenet-bpu"], bpu).caches[0].size("layer") is None
    with pytest.raises(DetectError, match="15 does not divide into `\\(layer head\\)`, as 4 is not a factor"):
        bind(library()["wenet-bpu"], bpu, {"head": 4})
    with pytest.raises(DetectError) as caught:
        bind(library()["wenet-packed"], signature_of(library()["wenet-packed"]), {"head": 4})
    assert (
        str(caught.value) == "att_cache: `head` of the cache `attention` has size 5, not 4\n  leave --size head=4 out"
    )


def test_caches_of_one_model_lend_each_other_the_number_of_layers() -> None:
    binding = bind(library()["wenet-bpu"], signature_of(library()["wenet-bpu"], {**SIZES, "time": "T"}))
    assert [binding.caches[0].size(axis) for axis in ("layer", "head", "dim")] == [3, 5, 11]


def test_labels_are_a_set() -> None:
    convention = convention_from_sentences(
        ["past.{layer}.{kv:k,v} -> new.{layer}.{kv:k,v}: batch head time dim", "conv.{layer} -> out.{layer}: batch dim"]
    )
    self, conv = convention.caches
    some, others = {"layer": [1, 3]}, {"layer": [0, 2, 11]}
    signature = Signature(
        (*cache_ports(self.past, SIZES, some), *cache_ports(conv.past, SIZES, others)),
        (*cache_ports(self.present, SIZES, some), *cache_ports(conv.present, SIZES, others)),
    )
    binding = bind(convention, shuffled(signature))
    assert [cache.labels["layer"] for cache in binding.caches] == [(1, 3), (0, 2, 11)]
    assert binding.pairs["past.3.v"] == "new.3.v"
    assert [tensor.port.name for tensor in binding.caches[1].past] == ["conv.0", "conv.2", "conv.11"]


def test_a_port_belongs_to_one_cache() -> None:
    convention = convention_from_sentences(["c.{layer}: batch dim", "c.{head}: batch dim"])
    with pytest.raises(DetectError, match="this input belongs both to the cache `cache1` and to `cache2`"):
        bind(convention, Signature((Port("c.0", "float32", (1, 2)),), ()))


def test_a_name_with_two_readings_stops() -> None:
    convention = convention_from_sentences(["c{layer}{head}: batch"])
    with pytest.raises(LayoutError, match="the name `c111` can be read in several ways"):
        bind(convention, Signature((Port("c111", "float32", (1,)),), ()))


def test_time_grows_no_faster_than_the_number_of_ports() -> None:
    names = [f"past_key_values.{layer}.{kv}" for layer in range(1500) for kv in ("key", "value")]
    inputs = [Port(name, "float32", (1, 2, "T", 4)) for name in names]
    outputs = [replace(port, name=port.name.replace("past_key_values", "present")) for port in inputs]
    start = process_time()
    found = detect(Signature(tuple(inputs), tuple(outputs))).choose()
    assert found.name == "optimum"
    assert len(make_plan(found.binding, library()["gpt2-stacked"]).inputs) == 1500
    assert process_time() - start < 10


def test_a_convention_of_ones_own() -> None:
    convention = load_convention("optimum")
    renamed = replace(convention, name="mine")
    assert detect(signature_of(convention), conventions=[renamed]).choose().name == "mine"
