"""Layouts, templates, sentences and expressions: what they mean, and where their errors point."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language_strategies import caches, layouts, templates, tensors

import onnxfix.convention
from onnxfix.convention.convention import CacheSpec, Convention, convention_from_sentences, parse_sentence, parse_tensor
from onnxfix.convention.expression import Expression
from onnxfix.convention.layout import Layout, parse_layout
from onnxfix.convention.template import Template, parse_template
from onnxfix.errors import ConventionError, LayoutError, PlanError

MODULES = sorted(module.name for module in pkgutil.iter_modules(onnxfix.convention.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"onnxfix.convention.{name}")).failed == 0


# Laws


@given(layouts())
def test_a_layout_is_read_as_it_is_written(layout: Layout) -> None:
    assert parse_layout(str(layout)) == layout
    assert parse_layout(str(layout).replace(" ", "  \t").replace("(", "( ")) == layout


@given(templates())
def test_a_template_is_read_as_it_is_written(template: Template) -> None:
    assert parse_template(str(template)) == template


@given(templates(), st.data())
def test_a_name_is_read_as_it_is_written(template: Template, data: st.DataObject) -> None:
    labels = {}
    for hole in template.holes:
        limit = len(hole.spellings) - 1 if hole.spellings else 10**9 - 1
        labels[hole.axis] = hole.label if hole.label is not None else data.draw(st.integers(0, limit))
    name = template.format(labels)
    try:
        assert template.match(name) == labels
    except LayoutError as error:
        assert "several ways" in error.message  # never a wrong label: `{kv:,a}a` does not say what `a` is


@given(tensors())
def test_a_sentence_is_read_as_it_is_written(tensor: object) -> None:
    assert parse_tensor(str(tensor)) == tensor


@given(templates(("layer", "kv")), templates(("layer", "kv")), layouts(("batch", "head", "time", "dim")))
def test_a_pair_is_read_as_it_is_written(past: Template, present: Template, layout: Layout) -> None:
    one, other = parse_sentence(f"{past} -> {present}: {layout}")
    assert (one.template, one.layout) == (past, layout)
    assert other is not None and (other.template, other.layout) == (present, layout)


@settings(max_examples=20)
@given(caches("cache1", "a"), caches("cache2", "b"), st.sampled_from(["", ", by layer", ", by kind"]))
def test_sentences_are_read_as_they_are_written(one: CacheSpec, other: CacheSpec, order: str) -> None:
    reads = [replace(cache, present=()) for cache in (one, other)]
    first = Convention("", "", "", tuple(reads))
    convention = convention_from_sentences([*first.sentences[:-1], first.sentences[-1] + order])
    assert convention_from_sentences(str(convention).split("; ")) == convention
    assert [spec.layout for cache in convention.caches for spec in cache.past] == [
        spec.layout for cache in reads for spec in cache.past
    ]


@given(layouts(), st.data())
def test_sizes_are_found_whatever_one_axis_of_a_group_hides(layout: Layout, data: st.DataObject) -> None:
    sizes = {axis: data.draw(st.integers(1, 5)) for axis in layout.axes}
    dims = []
    known = {}
    for item in layout.items:
        size = 1
        for axis in item:
            size *= sizes[axis]
        dims.append(size)
        hidden = data.draw(st.sampled_from(item)) if item else None
        known |= {axis: sizes[axis] for axis in item if axis != hidden}
    assert layout.bind(tuple(dims), known) == sizes


# Meaning


def test_a_layout_without_an_axis() -> None:
    layout = parse_layout("layer 1 (head kv dim) time")
    assert [str(layout.without(axis)) for axis in ("layer", "kv", "time")] == [
        "1 (head kv dim) time",
        "layer 1 (head dim) time",
        "layer 1 (head kv dim)",
    ]
    assert str(parse_layout("(kv dim)").without("kv")) == "dim"
    assert str(parse_layout("kv").without("kv")) == ""


@pytest.mark.parametrize(
    ("layout", "dims", "known", "sizes"),
    [
        ("batch time", ("B", None), {}, {"batch": "B", "time": None}),
        ("(kv dim)", ("D",), {"kv": 2}, {"kv": 2, "dim": None}),
        ("(batch head)", ("BxH",), {}, {"batch": None, "head": None}),
        ("(batch head)", (12,), {}, {"batch": None, "head": None}),
        ("(batch head) 1", (12, 1), {"head": 4}, {"batch": 3, "head": 4}),
        ("(kv dim) 1", (0, "N"), {"kv": 2}, {"kv": 2, "dim": 0}),
        ("head", ("H",), {"head": 4}, {"head": 4}),
        ("", (), {}, {}),
    ],
)
def test_sizes_that_dims_tell(
    layout: str, dims: tuple[int | str | None, ...], known: dict[str, int], sizes: object
) -> None:
    assert parse_layout(layout).bind(dims, known) == sizes


@pytest.mark.parametrize(
    ("layout", "dims", "known", "message"),
    [
        ("layer time", (12, 4, 64), {}, "`layer time` has 2 dimensions, the tensor has 3: [12, 4, 64]"),
        ("time (kv dim)", (4, 127), {"kv": 2}, "127 does not divide into `(kv dim)`, as 2 is not a factor"),
        ("(kv dim)", (128,), {"kv": 2, "dim": 63}, "`(kv dim)` of `(kv dim)` should have size 126, the tensor has 128"),
        ("kv time", (3, 4), {"kv": 2}, "`kv` of `kv time` should have size 2, the tensor has 3"),
        ("time 1", (4, 2), {}, "a unit dimension where the tensor has 2"),
        ("(a b)", (4,), {"a": 0}, "4 does not divide into `(a b)`, as 0 is not a factor"),
    ],
)
def test_dims_that_a_layout_refuses(layout: str, dims: tuple[int, ...], known: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_layout(layout).bind(dims, known)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (
            "past_{layer}",
            {"past_0": {"layer": 0}, "past_11": {"layer": 11}, "past_01": None, "past_": None, "past_1x": None},
        ),
        ("past_{layer}", {"past_1234567890": None, "past_" + "9" * 5000: None, "past_-1": None, "past_²": None}),
        ("{kv}_cache", {"key_cache": {"kv": 0}, "value_cache": {"kv": 1}, "k_cache": None, "keykey_cache": None}),
        ("{hc:h,c}n", {"hn": {"hc": 0}, "cn": {"hc": 1}, "n": None}),
        ("{hc}", {"hidden": {"hc": 0}, "cell": {"hc": 1}}),
        ("{kv:, v}c.{layer}", {"c.3": {"kv": 0, "layer": 3}, "vc.3": {"kv": 1, "layer": 3}}),
        ("p.{kv=key:}{layer}", {"p.7": {"kv": 0, "layer": 7}}),
        ("{layer=3}.{kv=value}", {"3.value": {"layer": 3, "kv": 1}, "2.value": None}),
        ("l{layer}.{layer}.k", {"l3.3.k": {"layer": 3}, "l3.4.k": None}),
        ("c{layer}{head}", {"c00": {"layer": 0, "head": 0}, "c1": None}),
        ("onnx::LSTM_{layer}", {"onnx::LSTM_3": {"layer": 3}}),
        ("a.*+[b]", {"a.*+[b]": {}, "axb": None}),
    ],
)
def test_labels_in_names(template: str, names: dict[str, dict[str, int] | None]) -> None:
    assert {name: parse_template(template).match(name) for name in names} == names


def test_a_name_with_two_readings_is_refused() -> None:
    with pytest.raises(LayoutError, match="`c111` can be read in several ways"):
        parse_template("c{layer}{head}").match("c111")


def test_the_order_of_ports_is_a_clause_of_a_sentence() -> None:
    text = "{kv}_{layer} -> r_{kv}_{layer}: batch head time dim"
    assert convention_from_sentences([text]).cache_order == ()
    assert convention_from_sentences([text + ", by layer"]).cache_order == ("layer", "cache")
    assert convention_from_sentences([text + " ,  by  kind "]).cache_order == ("cache", "kv", "hc", "layer")
    with pytest.raises(ConventionError, match="cannot be both by kind and by layer"):
        convention_from_sentences([text + ", by layer", "h: batch dim, by kind"])


def test_sentences_that_fix_labels_describe_one_cache() -> None:
    convention = convention_from_sentences(
        ["k{kv=key:}_{layer}: (batch head) dim time", "conv: layer time", "v{kv=value:}_{layer}: (batch head) time dim"]
    )
    assert [(cache.name, len(cache.past)) for cache in convention.caches] == [("cache1", 2), ("cache2", 1)]


# Errors

CARETS = [
    """
    cache layer head
                    ^
    a `:` and a layout are missing
    """,
    """
    : layer head
    ^
    a name is expected here
    """,
    """
    cache: layer (kv dim
                 ^
    this group is not closed
    """,
    """
    cache: layer kv) dim
                   ^
    no group is open here
    """,
    """
    cache: layer (kv (head dim))
                     ^
    groups do not nest
    """,
    """
    cache: layer (kv) dim
                 ^^^^
    a group holds at least two axes
    """,
    """
    cache: layer () dim
                 ^^
    a group holds at least two axes
    """,
    """
    cache: layer (1 dim)
                  ^
    `1` has no place inside a group
    """,
    """
    cache: layer head_1 head layer
                             ^^^^^
    the axis `layer` stands twice
    """,
    """
    cache: layer, head
                ^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    cache: layer 12 head
                 ^^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    cache: layer 1x head
                 ^^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    cache: layer tête
                  ^^^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    cache: layer head-dim
                     ^^^^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    cache: layer [kv dim]
                 ^^^
    an axis name, `1`, `(` or `)` is expected here
    """,
    """
    past.{layer}: batch outer_layer layer time
                                    ^^^^^
    the axis `layer` is already spread over the names
    """,
    """
    a.{kv} -> b.{kv}: (kv dim) kv
                       ^^
    the axis `kv` is already spread over the names
    """,
    """
    past.{layer: batch head
         ^
    this brace has no partner
    """,
    """
    past.layer}: batch head
              ^
    this brace has no partner
    """,
    """
    a -> b.{{layer}}: batch head
           ^
    this brace has no partner
    """,
    """
    past.{}: batch head
          ^
    a hole begins with the name of an axis
    """,
    """
    past.{3}: batch head
          ^
    a hole begins with the name of an axis
    """,
    """
    past.{layer.x}: batch head
          ^^^^^^^
    a hole begins with the name of an axis
    """,
    """
    past.{kv:k}: batch head
          ^^^^
    a hole lists at least two spellings, all different
    """,
    """
    past.{kv:k,k}: batch head
          ^^^^^^
    a hole lists at least two spellings, all different
    """,
    """
    past.{kv:q,k,v}: batch head
          ^^^^^^^^
    `kv` has 2 labels (key, value), here are 3 spellings
    """,
    """
    past.{kv=query}: batch head
          ^^^^^^^^
    `kv` has the labels `key` and `value`
    """,
    """
    past.{layer=first}: batch head
          ^^^^^^^^^^^
    the labels of `layer` are numbers
    """,
    """
    past.{kv=key:k,v}: batch head
          ^^^^^^^^^^
    a fixed label has one spelling
    """,
    """
    past.{kv=key}{kv=value}: batch head
                 ^^^^^^^^^^
    two holes say different things of `kv`
    """,
    """
    past cache: batch head
        ^
    a name has no blanks
    """,
    """
    past.{kv:a b,c}: batch head
          ^^^^^^^^
    a name has no blanks
    """,
    """
    past: layer head -> present: layer head
        ^^^^^^^^^^^^^
    the layout follows once, after the second name
    """,
    """
    past: layer head -> present
        ^^^^^^^^^^^^^
    the layout follows once, after the second name
    """,
    """
    a -> b -> c: layer head
           ^^
    there is no place for `->` here
    """,
    """
    a -> : layer head
         ^
    a name is expected here
    """,
    """
    -> b: layer head
    ^
    a name is expected here
    """,
    """
    a -> b
          ^
    a `:` and a layout are missing
    """,
    """
    a: layer time, by time
                   ^^^^^^^
    `by time` is no order
    """,
]


@pytest.mark.parametrize("case", CARETS, ids=[case.split("\n")[1].strip() for case in CARETS])
def test_errors_point_at_the_place(case: str) -> None:
    sentence, caret, message = (line[4:] for line in case.split("\n")[1:4])
    with pytest.raises(LayoutError) as caught:
        convention_from_sentences([sentence], where="--from")
    shown = str(caught.value).split("\n")
    assert shown[:3] == [f"--from: {message}", f"    {sentence}", f"    {caret}"]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["{kv=key}: batch dim"], "no sentence describes the tensors of kv value"),
        (["{kv=key}: batch dim", "{kv=value}: batch time"], "no sentence describes"),
        (["a.{kv=key} -> b.{kv=value}: c", "a.{kv=value} -> b.{kv=key}: c"], "fixed to different labels"),
        (["a: batch dim", "a: batch time"], "two caches have the tensors `a`"),
        (["{kv=key} -> r: a b", "{kv=value}: a b"], "2 past and 1 present sentences do not pair up"),
        (["a.{layer} -> b.{head}: time"], "differ in the axes `head`, `layer`"),
        (
            ["a.{layer=0}.{kv=key}: b", "a.{layer=1}.{kv=value}: b"],
            "no sentence describes the tensors of layer 0, kv value",
        ),
    ],
)
def test_sentences_that_contradict_each_other(sentences: list[str], message: str) -> None:
    with pytest.raises(ConventionError) as caught:
        convention_from_sentences(sentences, where="--to")
    assert message in str(caught.value) and caught.value.where.startswith("--to")


# Expressions


def test_expressions() -> None:
    known = {"a": 7, "b": 0, "c.time": 5}
    cases = {"2 + 3 * a": 23, "-(a - c.time) // 2": -1, "max(a, b, -9)": 7, "a // b": None, "z": None, "0x10": 16}
    assert {text: Expression.parse(text).value(known) for text in cases} == cases
    assert Expression.parse("*".join(["1000000"] * 60)).value({}) is None
    assert Expression.parse(" a + c.time * a").names == ("a", "c.time")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("head ** 2", "head ** 2"),
        ("1 + head / 2", "head / 2"),
        ("1.5 * head", "1.5"),
        ("__import__('os')", "'"),
        ("open(head)", "open(head)"),
        ("max()", "max()"),
        ("max(a, *b)", "*b"),
        ("head if layer else 2", "head if layer else 2"),
        ("a[0]", "["),
        ("True", "True"),
        ("a b", "b"),
        ("tête", "ê"),
        ("1 +", ""),
        ("", ""),
        ("(1", "("),
    ],
)
def test_expressions_that_are_refused(text: str, place: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Expression.parse(text)
    start, stop = caught.value.span
    assert caught.value.text[start:stop] == place


# Whatever anyone writes


@given(st.text("ab {}(),:=->1\t\nkv\u00e9", max_size=30))
def test_any_text_is_a_sentence_or_a_usage_error(text: str) -> None:
    try:
        convention_from_sentences([text])
    except (LayoutError, ConventionError) as error:
        assert str(error)


@given(st.text("ab10 ()+-*/.,max", max_size=30))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        value = Expression.parse(text).value({"a": 1, "b": 2})
    except LayoutError as error:
        assert 0 <= error.span[0] < error.span[1]
    else:
        assert value is None or isinstance(value, int)


@pytest.mark.parametrize(
    "text",
    [
        "c: " + "(" * 1000 + ")" * 1000,
        "c: " + "a " * 100_000,
        "c: " + " " * 1_000_000 + "!",
        "c" * 1_000_000,
        "{" * 100_000 + ": a",
        "{a" * 100_000 + ": a",
        "c" + ":" * 100_000 + "!",
        "c:" + ",by" * 30_000,
        "c:" + " ,by " * 30_000,
        "-> " * 100_000 + ": a",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_sentences_fail_fast(text: str) -> None:
    start = perf_counter()
    with pytest.raises((LayoutError, ConventionError)):
        convention_from_sentences([text])
    assert perf_counter() - start < 10


def test_hostile_templates_match_fast() -> None:
    start = perf_counter()
    for template, name in {
        "".join(f"{{a{index}}}" for index in range(30)): "1" * 2000 + "x",
        "".join(f"{{a{index}:x,xx}}x" for index in range(60)): "x" * 150 + "y",
        "{layer}" * 40: "1" * 40 + "y",
    }.items():
        assert parse_template(template).match(name) is None
    assert perf_counter() - start < 10
    deep = "+".join(["a"] * 10_000), "(" * 400 + "a" + ")" * 400, "-" * 10_000 + "a"
    for text in deep:
        with pytest.raises(LayoutError):
            Expression.parse(text)
    assert perf_counter() - start < 10
