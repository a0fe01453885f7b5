"""Every convention of a family into every other: bit for bit the same stream, and the target's own network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import SIZES, build, dtype_of

import onnxfix
from onnxfix.convention.convention import Convention, TensorSpec, parse_tensor
from onnxfix.convention.detect import detect
from onnxfix.convention.layout import show_item
from onnxfix.convention.load import library
from onnxfix.convention.signature import Port, Signature
from onnxfix.convention.template import LABELS
from onnxfix.errors import PlanError
from onnxfix.model.model import Model

TABLE = Path(__file__).with_name("refused.table")
REFUSED = [
    (tuple(source.split()), tuple(target.split()), words.strip())
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
    for pair, _, words in [line.partition(":")]
    for source, _, target in [pair.partition("->")]
]
PAIRS = [
    (source, target)
    for source, target in itertools.permutations(library(), 2)
    if library()[source].family == library()[target].family
]
TICKS = 6
ATTENTION = "past_key_values.{layer}.{kv} -> present.{layer}.{kv}: batch head time dim"


def refusal(source: str, target: str) -> str:
    """Returns words of the error for a pair that does not convert; empty for one that does."""
    for sources, targets, words in REFUSED:
        if any(fnmatch(source, one) for one in sources) and any(fnmatch(target, one) for one in targets):
            return words
    return ""


def agreed(one: Convention, other: Convention) -> tuple[Convention, Convention]:
    """Returns both with what only one of them says of a cache: how it is updated, and that it is not handed out.

    It is not either where one of them hands out what it only reads, and the other what it has appended to.
    """
    both = []
    for mine, its in ((one, other), (other, one)):
        caches = []
        for cache in mine.caches:
            partner = its.cache(cache.name) or cache
            agree = partner.present and (cache.update or partner.update) == (partner.update or cache.update)
            present = cache.present if agree or not cache.present_optional else ()
            caches.append(replace(cache, update=(cache.update or partner.update) if present else None, present=present))
        both.append(replace(mine, caches=tuple(caches)))
    return both[0], both[1]


def common_sizes(one: Convention, other: Convention) -> dict[str, int]:
    """Returns sizes that both can say: an axis that one of them lacks is of size 1."""
    sizes = dict(SIZES)
    for cache in one.caches:
        partner = other.cache(cache.name)
        for axis in cache.axes ^ partner.axes if partner else ():
            if axis not in LABELS:
                sizes[axis] = 1
    for cache in (*one.caches, *other.caches):
        for axis in cache.past[0].template.fixed:
            if axis not in LABELS:
                sizes[axis] = len({spec.template.fixed[axis] for spec in cache.past})
    return sizes


def common_roles(one: Convention, other: Convention) -> set[str]:
    """Returns the roles of other ports that both have in one form."""
    forms: list[dict[str, set[str]]] = []
    for convention in (one, other):
        forms.append({})
        for kind, specs in (("input", convention.inputs), ("output", convention.outputs)):
            for spec in specs:
                forms[-1].setdefault(spec.role, set()).add(f"{kind} {spec.layout} {dtype_of(spec)}")
    return {role for role, form in forms[0].items() if forms[1].get(role) == form} - {"other", "flag"}


def common_caches(convention: Convention, other: Convention) -> tuple[str, ...]:
    """Returns the caches that are to be left out, as the other convention does not know them."""
    names = {cache.name for cache in other.caches}
    return tuple(cache.name for cache in convention.caches if cache.optional and cache.name not in names)


def told(convention: Convention, sizes: Mapping[str, int], without: Collection[str]) -> dict[str, int]:
    """Returns sizes that dims do not tell: those in groups."""
    return {
        f"{cache.name}.{axis}": sizes[axis]
        for cache in convention.caches
        for spec in (cache.past if cache.name not in without else ())
        for item in spec.layout.items
        for axis in item
        if len(item) > 1 and axis not in LABELS and axis in sizes
    }


def namesakes(name: str) -> set[str]:
    """Returns the conventions that call their tensors the same: only what is beside the caches tells them apart."""
    words = {cache.name: {spec.template.text for spec in cache.past} for cache in library()[name].caches}
    return {
        other
        for other, convention in library().items()
        if any(words.get(c.name) == {spec.template.text for spec in c.past} for c in convention.caches)
    }


def ports(model: Model) -> list[Port]:
    signature = model.signature()
    return [*signature.inputs, *signature.outputs]


def require_ports(result: Model, native: Model, target: Convention) -> None:
    """The ports are those of the target's own network, in the order and with the names of dims that it asks for."""
    ours, theirs = ports(result), ports(native)
    assert {port.name: port.dtype for port in ours} == {port.name: port.dtype for port in theirs}
    specs = [spec for cache in target.caches for spec in (*cache.past, *cache.present)]
    stated = {name for spec in (*specs, *target.inputs, *target.outputs) for name in spec.dims.values()}
    by_name = {port.name: port for port in theirs}
    for port in ours:
        own, its = port.dims or (), by_name[port.name].dims or ()
        for one, other in zip(own, its, strict=True):
            assert one == other or (isinstance(one, str) and isinstance(other, str) and other not in stated), port
    ordered = ordered_names(target)
    assert [port.name for port in ours if ordered(port.name)] == [port.name for port in theirs if ordered(port.name)]


def ordered_names(target: Convention) -> Callable[[str], bool]:
    """Returns whether a convention states where a port stands."""
    listed = {*target.input_order, *target.output_order}
    templates = [
        spec.template
        for cache in target.caches
        for spec in (*cache.past, *cache.present)
        if target.cache_order or (cache.name in listed and not spec.template.axes)
    ]
    return lambda name: name in listed or any(template.match(name) is not None for template in templates)


def feeds(signature: Signature) -> dict[str, np.ndarray]:
    """Returns an array of its own for each input, whatever its name: other orders of ports get the same."""
    symbols: dict[str, int] = {}
    arrays = {}
    for port in sorted(signature.inputs, key=lambda port: port.name):
        shape = [dim if isinstance(dim, int) else symbols.setdefault(str(dim), 3) for dim in port.dims or ()]
        random = np.random.default_rng([ord(letter) for letter in port.name])
        values = random.standard_normal(shape) if "float" in port.dtype else random.integers(0, 2, shape)
        arrays[port.name] = values.astype(port.dtype)
    return arrays


def run(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([port.name for port in session.get_outputs()], session.run(None, dict(arrays)), strict=True))


def require_network(result: Model, native: onnx.ModelProto, target: Convention) -> None:
    """The result is the target's own network: it has its ports and, but for the order of sums, its values."""
    require_ports(result, Model.from_proto(native), target)
    arrays = feeds(result.signature())
    ours, theirs = run(result.proto, arrays), run(native, arrays)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_pair(source: str, target: str) -> None:
    one, other = agreed(library()[source], library()[target])
    sizes, roles = common_sizes(one, other), common_roles(one, other)
    model = build(one, sizes, roles=roles, without=common_caches(one, other))
    known = told(one, sizes, common_caches(one, other))
    words = refusal(source, target)
    if words:
        with pytest.raises(PlanError) as caught:
            onnxfix.convert(model, to=target, from_=source, sizes=known, verify=False)
        assert words in str(caught.value)
        return
    options = onnxfix.VerifyOptions(ticks=TICKS)
    report = onnxfix.convert(model, to=target, from_=source, sizes=known, simplify=False, verify=options)
    assert report.proof is not None and report.proof.is_exact and report.proof.values > 0
    assert report.model is not None
    found = detect(report.model.signature())
    best = {one.name for one in found.candidates if one.rank == found.candidates[0].rank}
    assert best & namesakes(target), best

    if (
        not {cache.name for cache in one.caches}
        - {cache.name for cache in other.caches}
        - set(common_caches(one, other))
    ):
        native = build(other, sizes, roles=roles, without=common_caches(other, one))
        require_network(report.model, native, other)

    if source > target:
        return  # There and back once is enough: the other way round it begins with the same conversion.
    known = told(other, sizes, common_caches(other, one))
    back = onnxfix.convert(report.model, to=source, from_=target, sizes=known, simplify=False, verify=False)
    assert back.model is not None
    require_ports(back.model, Model.from_proto(model), one)


@pytest.mark.parametrize("name", [name for name in library() if not any(name in pair for pair in PAIRS)])
def test_one_that_is_alone_in_its_family(name: str) -> None:
    """It has no other to become: its caches get their dims the other way round, and other names."""
    one = library()[name]
    model = build(one)
    assert detect(Model.from_proto(model).signature()).choose().name == name
    report = onnxfix.convert(model, to=turned(one), simplify=False, verify=onnxfix.VerifyOptions(ticks=TICKS))
    assert report.proof is not None and report.proof.is_exact and report.model is not None
    require_network(report.model, build(turned(one)), turned(one))


def turned(convention: Convention) -> Convention:
    """Returns the convention with dims from the last to the first, under names of their own."""

    def turn(spec: TensorSpec) -> TensorSpec:
        items = " ".join(reversed([show_item(item) or "1" for item in spec.layout.items]))
        return replace(parse_tensor(f"turned_{spec.template}: {items}"), dims=spec.dims)

    caches = [
        replace(cache, past=tuple(map(turn, cache.past)), present=tuple(map(turn, cache.present)))
        for cache in convention.caches
    ]
    return replace(convention, caches=tuple(caches))


def test_layers_of_different_kinds() -> None:
    layers = {"self": [1, 3], "conv": [0, 2]}
    js, lfm2 = agreed(library()["transformers-js-hybrid"], library()["genai-lfm2"])
    roles, without = common_roles(js, lfm2), ("ssm", "recurrent")
    model = build(js, roles=roles, without=without, layers=layers)
    report = onnxfix.convert(model, to="genai-lfm2", simplify=False, verify=onnxfix.VerifyOptions(ticks=TICKS))
    assert report.proof is not None and report.proof.is_exact and report.model is not None
    require_network(report.model, build(lfm2, roles=roles, layers=layers), lfm2)
    # What is not of attention stays as it is, and what has holes cannot be stacked.
    stacked = onnxfix.convert(model, to="gpt2-stacked", simplify=False)
    assert stacked.model is not None
    assert {"past_1", "past_3", "past_conv.0", "past_conv.2"} <= {port.name for port in ports(stacked.model)}
    with pytest.raises(PlanError, match=r"layer 0 of the cache `cache` is missing .* stacking would renumber"):
        onnxfix.convert(model, to="past -> present: layer kv batch head time dim", from_=ATTENTION)


def test_the_table_names_what_there_is() -> None:
    names = {name for pair in PAIRS for name in pair}
    for sources, targets, words in REFUSED:
        assert words
        for pattern in (*sources, *targets):
            assert [name for name in names if fnmatch(name, pattern)], pattern
