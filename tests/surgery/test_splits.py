"""Which axes of a cache come from Split, and that they do again on the way back."""

from __future__ import annotations

import pytest
from test_rewrite import operators, parse

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.plan import make_plan
from onnxfix.model.model import Model
from onnxfix.surgery.rewrite import SurgeryReport, rewrite

PACKED = "state -> next: layer batch time (kv dim)"
PARTS = "{kv:k,v}_{layer} -> {kv:k,v}_{layer}n: batch time dim"
SIZES = "float[2,B,5,6] state"
NEXT = "float[2,B,5,6] next"

ONE = "z = Constant <value_int = 0> () one = Constant <value_int = 1> ()"
HALVES = """
h = Constant <value_ints = [3, 3]> () ones = Constant <value_ints = [1, 1]> () zero = Constant <value_ints = [0]> ()
"""

KV = f"""
{ONE} {HALVES}
l0 = Gather <axis = 0> (state, z) l1 = Gather <axis = 0> (state, one)
k0, v0 = Split <axis = -1> (l0, h) k1, v1 = Split <axis = -1> (l1, h)
"""
TURNED = f"""
{ONE} {HALVES}
t = Transpose <perm = [1, 0, 2, 3]> (state)
l0 = Gather <axis = 1> (t, z) l1 = Gather <axis = 1> (t, one)
k0, v0 = Split <axis = -1> (l0, h) k1, v1 = Split <axis = -1> (l1, h)
"""
BOTH = f"""
{HALVES}
a, b = Split <axis = 0> (state, ones)
l0 = Squeeze(a, zero) l1 = Squeeze(b, zero)
k0, v0 = Split <axis = -1> (l0, h) k1, v1 = Split <axis = -1> (l1, h)
"""
SLICED = f"""
{ONE}
two = Constant <value_ints = [3]> () six = Constant <value_ints = [6]> () last = Constant <value_ints = [2]> ()
zero = Constant <value_ints = [0]> ()
l0 = Gather <axis = 0> (state, z) l1 = Gather <axis = 0> (state, one)
k0 = Slice(l0, zero, two, last) v0 = Slice(l0, two, six, last)
k1 = Slice(l1, zero, two, last) v1 = Slice(l1, two, six, last)
"""
UNEVEN = f"""
{ONE}
u = Constant <value_ints = [2, 4]> () h = Constant <value_ints = [3, 3]> ()
l0 = Gather <axis = 0> (state, z) l1 = Gather <axis = 0> (state, one)
ka, va = Split <axis = -1> (l0, u) kb, vb = Split <axis = -1> (l1, u)
s0 = Concat <axis = -1> (va, ka) s1 = Concat <axis = -1> (vb, kb)
k0, v0 = Split <axis = -1> (s0, h) k1, v1 = Split <axis = -1> (s1, h)
"""
USE = """
a0 = Neg(k0) b0 = Exp(v0) a1 = Neg(k1) b1 = Exp(v1)
p0 = Concat <axis = -1> (a0, b0) p1 = Concat <axis = -1> (a1, b1)
ax = Constant <value_ints = [0]> () q0 = Unsqueeze(p0, ax) q1 = Unsqueeze(p1, ax) next = Concat <axis = 0> (q0, q1)
"""


def converted(model: Model, source: str, target: str, splits: tuple[str, ...] = ()) -> SurgeryReport:
    binding = bind(convention_from_sentences([source]), model.signature(), sizes={"kv": 2})
    return rewrite(model, make_plan(binding, convention_from_sentences([target])), splits=splits)


@pytest.mark.parametrize(
    ("body", "axes"), [(SLICED, ()), (UNEVEN, ()), (KV, ("kv",)), (TURNED, ("kv",)), (BOTH, ("kv", "layer"))]
)
def test_axes_that_are_split_evenly_are_told(body: str, axes: tuple[str, ...]) -> None:
    report = converted(parse(body + USE, inputs=SIZES, outputs=NEXT), PACKED, PARTS)
    assert report.splits == axes


@pytest.mark.parametrize("body", [KV, TURNED, BOTH])
def test_they_are_split_again_on_the_way_back(body: str) -> None:
    model = parse(body + USE, inputs=SIZES, outputs=NEXT)
    before = operators(model)
    report = converted(model, PACKED, PARTS)
    assert not report.refused
    assert "Split" not in operators(model)
    converted(model, PARTS, PACKED, report.splits)
    assert operators(model) == [one for one in before if one != "Transpose"]


def test_without_the_memory_there_are_slices() -> None:
    model = parse(KV + USE, inputs=SIZES, outputs=NEXT)
    converted(model, PACKED, PARTS)
    converted(model, PARTS, PACKED)
    assert "Split" not in operators(model)
    assert operators(model).count("Slice") == 4
