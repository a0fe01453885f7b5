"""Routes against einops: whatever two sentences say of one cache, the way between them is exact."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language_strategies import layouts
from speaking import logical, spread

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import Convention, convention_from_sentences
from onnxfix.convention.plan import Plan, make_plan
from onnxfix.convention.sketch import Labels, Sizes, signature_of
from onnxfix.errors import PlanError

if TYPE_CHECKING:
    from onnxfix.convention.route import Array

PRIMES = {"layer": 3, "batch": 5, "head": 7, "time": 11, "kv": 2, "dim": 13}
AXES = tuple(PRIMES)


def plan_of(
    source: Convention, target: Convention, sizes: Sizes, *,
    given: dict[str, int] | None = None, labels: Labels | None = None,
) -> Plan:  # fmt: skip
    return make_plan(bind(source, signature_of(source, sizes, labels=labels), given), target)


def assert_equal(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@st.composite
def sentences(draw: st.DrawFn, axes: tuple[str, ...] = AXES) -> list[str]:
    """Gives one sentence or, with key and value laid out differently, two."""
    spread_axes = draw(
        st.permutations(draw(st.sampled_from([(), ("layer",), ("kv",), ("layer", "kv"), ("kv", "layer", "head")])))
    )
    holes = [axis for axis in spread_axes if axis in axes]
    rest = tuple(axis for axis in axes if axis not in holes)
    labels = ["=key", "=value"] if "kv" in holes and draw(st.booleans()) else [""]
    made = []
    for label in labels:
        name = ".".join("{" + axis + (label if axis == "kv" else "") + "}" for axis in holes)
        past, layout = draw(st.sampled_from(["p", "cache"])) + name, draw(layouts(rest, all_axes=True))
        made.append(f"{past} -> new_{past}: {layout}")
    return made


@settings(max_examples=25)
@given(sentences(), sentences(), sentences())
def test_routes_are_what_einops_says(one: list[str], two: list[str], three: list[str]) -> None:
    a, b, c = (convention_from_sentences(texts) for texts in (one, two, three))
    whole = logical(AXES, PRIMES)
    in_a, in_b = (spread(whole, AXES, convention.caches[0].past) for convention in (a, b))
    there, on, at_once = (plan_of(*pair, PRIMES, given=PRIMES) for pair in ((a, b), (b, c), (a, c)))
    assert_equal(there.run_past(in_a), in_b)
    assert_equal(there.run_present(spread(whole, AXES, a.caches[0].present)), spread(whole, AXES, b.caches[0].present))
    assert_equal(on.run_past(there.run_past(in_a)), at_once.run_past(in_a))
    route = there.caches[0].past
    assert_equal(route.inverse().run(in_b), {block.name: in_a[block.name] for block in route.source})
    assert {block.name: block.dims for block in route.target} == {name: array.shape for name, array in in_b.items()}


@settings(max_examples=20)
@given(sentences(), sentences(tuple(axis for axis in AXES if axis not in ("batch", "head"))))
def test_axes_of_size_1_come_and_go(one: list[str], two: list[str]) -> None:
    a, b = (convention_from_sentences(texts) for texts in (one, two))
    sizes = {**PRIMES, "batch": 1, "head": 1}
    whole = logical(AXES, sizes)
    full, bare = (spread(whole, AXES, convention.caches[0].past) for convention in (a, b))
    assert_equal(plan_of(a, b, sizes, given=sizes).run_past(full), bare)
    back = plan_of(b, a, sizes, given=sizes).caches[0].past
    assert_equal(back.run(bare), full)
    assert_equal(back.inverse().run(full), {block.name: bare[block.name] for block in back.source})


@settings(max_examples=20)
@given(sentences(), sentences(), st.sampled_from(AXES))
def test_routes_of_sizes_that_only_arrays_know(one: list[str], two: list[str], hidden: str) -> None:
    """One axis has a symbolic size (in a group: no declared size at all); the user says the others."""
    a, b = (convention_from_sentences(texts) for texts in (one, two))
    whole = logical(AXES, PRIMES)
    symbolic = {**PRIMES, hidden: "N"} if hidden not in ("kv", "layer", "head") else PRIMES
    given_sizes = {axis: size for axis, size in PRIMES.items() if axis != hidden and axis != "kv"}
    plan = plan_of(a, b, symbolic, given=given_sizes)
    assert_equal(plan.run_past(spread(whole, AXES, a.caches[0].past)), spread(whole, AXES, b.caches[0].past))


@pytest.mark.parametrize("order", list(itertools.permutations(("layer", "head", "kv"))), ids=" ".join)
def test_three_axes_in_one_group(order: tuple[str, ...]) -> None:
    a = convention_from_sentences([f"a: batch ({' '.join(order)}) time dim"])
    b = convention_from_sentences(["b.{layer}: time batch (dim kv) head"])
    c = convention_from_sentences(["c.{kv}: (dim time batch) (head layer)"])
    whole = logical(AXES, PRIMES)
    for one, other in itertools.permutations((a, b, c), 2):
        arrays = spread(whole, AXES, one.caches[0].past)
        sizes = {**PRIMES, "time": "T"}
        plan = plan_of(one, other, sizes, given={"head": 7, "layer": 3, "dim": 13, "batch": 5})
        assert_equal(plan.run_past(arrays), spread(whole, AXES, other.caches[0].past))


def test_layers_may_be_a_set() -> None:
    a = convention_from_sentences(["a.{layer}: (kv head) batch time dim"])
    b = convention_from_sentences(["b.{kv}.{layer}: batch head time dim"])
    labels = {"layer": [1, 3, 10]}
    whole = logical(AXES, PRIMES)
    arrays = spread(whole, AXES, a.caches[0].past, labels)
    plan = plan_of(a, b, {**PRIMES, "time": "T"}, labels=labels)
    expected = spread(whole, AXES, b.caches[0].past, labels)
    assert list(expected)[2] == "b.key.10"
    assert_equal(plan.run_past(arrays), expected)


def test_neighbours_that_travel_together_need_no_size() -> None:
    """Bloom's `(batch head)` can be moved although nobody knows how many heads there are."""
    a = convention_from_sentences(
        ["k{kv=key:}.{layer}: (batch head) dim time", "v{kv=value:}.{layer}: (batch head) time dim"]
    )
    b = convention_from_sentences(["c.{layer}.{kv}: time (batch head) dim"])
    c = convention_from_sentences(["c: layer time (kv dim) (batch head)"])
    sizes = {"layer": 3, "batch": "B", "head": "H", "time": "T", "kv": 2, "dim": 13}
    whole = logical(AXES, PRIMES)
    for one, other in itertools.permutations((a, b, c), 2):
        plan = plan_of(one, other, sizes)
        assert plan.caches[0].past.sizes.get("head") is None
        assert_equal(plan.run_past(spread(whole, AXES, one.caches[0].past)), spread(whole, AXES, other.caches[0].past))
    apart = convention_from_sentences(["c.{layer}.{kv}: batch head time dim"])
    with pytest.raises(PlanError, match="the sizes of `batch` and `head` in"):
        plan_of(a, apart, sizes)
    plan = plan_of(a, apart, sizes, given={"head": 7})
    assert_equal(plan.run_past(spread(whole, AXES, a.caches[0].past)), spread(whole, AXES, apart.caches[0].past))


def test_sizes_of_one_call_are_not_burnt_in() -> None:
    """What varies stays open, even where the user says how large it is now."""
    a = convention_from_sentences(["c.{layer}: (batch head) kv time dim"])
    b = convention_from_sentences(["c.{layer}.{kv}: batch head time dim"])
    sizes = {"layer": 3, "batch": "B", "head": "H", "time": "T", "kv": 2, "dim": 13}
    plan = plan_of(a, b, sizes, given={"head": 7, "batch": 99, "time": 99})
    assert plan.caches[0].past.sizes == {"head": 7}
    assert plan.inputs[0].dims == (None, 7, "T", 13)
    whole = logical(AXES, PRIMES)
    assert_equal(plan.run_past(spread(whole, AXES, a.caches[0].past)), spread(whole, AXES, b.caches[0].past))


def test_time_inside_a_group() -> None:
    a = convention_from_sentences(["c.{layer}: kv batch (head time) dim"])
    b = convention_from_sentences(["c: layer batch (time kv) head dim"])
    sizes = {**PRIMES, "time": "T"}
    whole = logical(AXES, PRIMES)
    one, other = (spread(whole, AXES, convention.caches[0].past) for convention in (a, b))
    assert_equal(plan_of(b, a, sizes).run_past(other), one)
    with pytest.raises(PlanError, match="the sizes of `head` and `time` in"):
        plan_of(a, b, sizes)
    assert_equal(plan_of(a, b, sizes, given={"head": 7}).run_past(one), other)


def test_arrays_that_do_not_fit() -> None:
    a = convention_from_sentences(["a: layer (kv dim)"])
    b = convention_from_sentences(["b.{layer}: kv dim"])
    route = plan_of(a, b, {"layer": 3, "kv": 2, "dim": 5}).caches[0].past
    for arrays, message in (
        ({}, "a: there is no array of this name"),
        ({"a": np.zeros((3, 2, 5))}, "the layout `layer (kv dim)` has 2 dimensions, the array has 3"),
        ({"a": np.zeros((3, 9))}, "should have size 10, the tensor has 9"),
    ):
        with pytest.raises(PlanError) as caught:
            route.run(arrays)
        assert message in str(caught.value)


# One GPT-2 cache, written down in fifteen ways: one or two sentences each.

GPT2 = {"layer": 3, "batch": 2, "head": 5, "time": 7, "kv": 2, "dim": 11}
WAYS = {
    "one tensor, kv first": ["cache -> new_cache: kv layer batch head time dim"],
    "one tensor, kv second": ["cache -> new_cache: layer kv batch head time dim"],
    "one tensor, kv innermost": ["cache -> new_cache: layer batch head time (kv dim)"],
    "one tensor, layers and kv in one axis": ["cache -> new_cache: (layer kv) batch head time dim"],
    "one tensor, kv and layers in one axis": ["cache -> new_cache: (kv layer) batch head time dim"],
    "one per kv": ["past_{kv} -> present_{kv}: layer batch head time dim"],
    "one per kv, time first": ["{kv:k,v}_cache -> {kv:k,v}_out: layer time batch head dim"],
    "one per layer, kv first": ["past_{layer} -> present_{layer}: kv batch head time dim"],
    "one per layer, kv second": ["past_key_values_{layer} -> present_key_values_{layer}: batch kv head time dim"],
    "one per layer, kv last": ["past_{layer} -> present_{layer}: batch head time dim kv"],
    "one per layer, kv innermost": ["past.{layer}.key_value -> present.{layer}.key_value: batch time (kv head dim)"],
    "one per layer and kv, alternating": ["past.{layer}.{kv} -> present.{layer}.{kv}: batch head time dim"],
    "one per layer and kv, all keys first": ["{kv:k,v}_{layer} -> new_{kv:k,v}_{layer}: batch head time dim, by kind"],
    "heads merged": ["{kv}_cache.{layer} -> updated_{kv}_cache.{layer}: batch time (head dim), by layer"],
    "key transposed": [
        "past.{layer}.{kv=key} -> present.{layer}.{kv=key}: (batch head) dim time",
        "past.{layer}.{kv=value} -> present.{layer}.{kv=value}: (batch head) time dim",
    ],
}  # fmt: skip
FACTORS = {"layer": 3, "head": 5}
"""What two of them do not tell: how many layers lie in `(layer kv)`, how many heads in `(batch head)`, `(head dim)`."""


@pytest.mark.parametrize("way", WAYS)
def test_gpt2_from_any_way_to_any_other(way: str) -> None:
    assert len(WAYS) == 15
    sizes = {**GPT2, "batch": "batch", "time": "past"}
    whole = logical(tuple(GPT2), GPT2)
    source = convention_from_sentences(WAYS[way])
    binding = bind(source, signature_of(source, sizes), FACTORS)
    arrays = {side: spread(whole, tuple(GPT2), getattr(source.caches[0], side)) for side in ("past", "present")}
    for texts in WAYS.values():
        target = convention_from_sentences(texts)
        plan = make_plan(binding, target)
        assert_equal(plan.run_past(arrays["past"]), spread(whole, tuple(GPT2), target.caches[0].past))
        assert_equal(plan.run_present(arrays["present"]), spread(whole, tuple(GPT2), target.caches[0].present))
        assert plan.is_identity == (texts == WAYS[way])
