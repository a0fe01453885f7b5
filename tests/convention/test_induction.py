"""Templates from names."""

from __future__ import annotations

import pytest

from onnxfix.convention.induction import families
from onnxfix.convention.template import parse_template


@pytest.mark.parametrize(
    ("pasts", "presents", "expected"),
    [
        pytest.param("a", "b", [("a", "b")], id="one alone"),
        pytest.param("key value_x", "k2 v2", [("key", "k2"), ("value_x", "v2")], id="two that differ in more"),
        pytest.param("c.07 c.08", "d.07 d.08", [("c.07", "d.07"), ("c.08", "d.08")], id="numbers that are none"),
        pytest.param(
            "p.0.key p.0.value p.1.key p.1.value", "n.0.key n.0.value n.1.key n.1.value",
            [("p.{layer}.{kv}", "n.{layer}.{kv}")], id="layers, keys and values",
        ),
        pytest.param("h c", "hn cn", [("{hc:h,c}", "{hc:hn,cn}")], id="hidden and cell"),
        pytest.param("k_3 v_3", "k_out_3 v_out_3", [("{kv:k,v}_3", "{kv:k,v}_out_3")], id="one layer"),
        pytest.param("x_0 x_1", "cat cat_1", [("x_{layer}", None)], id="outputs without a pattern"),
        pytest.param("x_0 x_1", "y_1 y_2", [("x_{layer}", None)], id="outputs that count otherwise"),
        pytest.param("x_0 x_1", "y_1 y_0", [("x_{layer}", None)], id="outputs the other way round"),
        pytest.param(
            "s0_0 s1_0 s1_1", "n0_0 n1_0 n1_1", [("s0_0", "n0_0"), ("s1_{layer}", "n1_{layer}")], id="uneven stacks",
        ),
        pytest.param(
            "layer0_0 layer0_1 layer1_0 layer1_1", "n0_0 n0_1 n1_0 n1_1",
            [("layer{layer}_0", "n{layer}_0"), ("layer{layer}_1", "n{layer}_1")], id="several things in a layer",
        ),
        pytest.param(
            "k_0_v k_1_k v_0_k", "a b c", [("k_0_v", "a"), ("k_1_k", "b"), ("v_0_k", "c")], id="in two places",
        ),
    ],
)  # fmt: skip
def test_families(pasts: str, presents: str, expected: list[tuple[str, str | None]]) -> None:
    found = families(pasts.split(), presents.split())
    texts = [(one.past and one.past.text(), one.present and one.present.text()) for one in found]
    assert texts == expected
    for family in found:
        if family.past and family.present:
            for names, pattern in ((pasts.split(), family.past), (presents.split(), family.present)):
                template = parse_template(pattern.text())
                assert [template.match(names[index]) for index in family.members] == list(family.labels)


def test_what_is_of_another_kind_is_another_family() -> None:
    found = families(["x_0", "x_1", "x_2"], ["y_0", "y_1", "y_2"], [4, 3, 4])
    assert [(one.members, one.past and one.past.text()) for one in found] == [((0, 2), "x_{layer}"), ((1,), "x_1")]


def test_a_label_can_be_fixed() -> None:
    (family,) = families(["k.0", "v.0", "k.1", "v.1"], ["a.0.K", "a.0.V", "a.1.K", "a.1.V"])
    assert family.past is not None and family.present is not None
    assert family.past.text({"kv": 1}) == "{kv=value:v}.{layer}"
    assert family.present.text({"kv": 0}) == "a.{layer}.{kv=key:K}"
