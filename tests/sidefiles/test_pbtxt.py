"""Protobuf's text format: what is none, what is in it, and that nothing changes but what was meant."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2, text_format
from hypothesis import given
from hypothesis import strategies as st

from onnxfix.errors import ExitCode, SideFileError
from onnxfix.sidefiles.pbtxt import Message, parse, quoted, scalars_in
from onnxfix.sidefiles.pbtxt_edit import applied, list_edits, new_line, numbers_edits, removal, scalar_edit


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("input [", "line 1, column 8", "`{` is expected here"),
        ("input [ {", "line 1, column 9", "`}` is missing"),
        ("input {\n  name: 'x'", "line 1, column 7", "`}` is missing"),
        ("input < name: 'x' }", "line 1, column 19", "the name of a field is expected here"),
        ("name: 'x", "line 1, column 7", "this string has no end"),
        ('name: "x\ny"', "line 1, column 7", "this string has no end"),
        ("name:", "line 1, column 6", "a value is expected here"),
        ("name 'x'", "line 1, column 6", "`:` or `{` is expected here"),
        ("name: ,", "line 1, column 7", "a value is expected here"),
        ("}", "line 1, column 1", "the name of a field is expected here"),
        ("7: 1", "line 1, column 1", "the name of a field is expected here"),
        ("dims: [1 2]", "line 1, column 10", "`,` or `]` is expected here"),
        ("dims: [1,]", "line 1, column 10", "a value is expected here"),
        ("name: 'x' $", "line 1, column 11", "`$` has no meaning here"),
        ("name: 'x' \0", "line 1, column 11", "has no meaning here"),
        ('{"model": 1}', "line 1, column 1", "the name of a field is expected here"),
        ("a {" * 150 + "}" * 150, "line 1, column 303", "messages are nested too deeply here"),
        ("max_batch_size: #max_batch\ninput []", "line 2, column 9", "`:` or `{` is expected here"),
    ],
)
def test_what_is_none_is_refused_by_line_and_column(text: str, place: str, message: str) -> None:
    with pytest.raises(SideFileError) as caught:
        for field in parse(text, "config.pbtxt").fields:
            list(scalars_in(field.values[0].message))
    assert caught.value.where == f"config.pbtxt: {place}"
    assert message in caught.value.message
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED


def test_fields_of_another_form_are_refused() -> None:
    message = parse("a: 1 a: 2 b { } c: x d: -1 d: 1.5", "config.pbtxt")
    for call, words in (
        (lambda: message.text("a"), "`a` stands twice"),
        (lambda: message.text("b"), "`b` is no message"),
        (lambda: message.messages("c"), "`c` is a message"),
        (lambda: message.numbers("d"), "`d` are whole numbers"),
        (lambda: message.numbers("b"), "`b` are whole numbers"),
    ):
        with pytest.raises(SideFileError, match=words):
            call()


@pytest.mark.parametrize(
    "text",
    [
        'input [ { name: "x" dims: [ 1, -1 ] } ]',
        'input { name: "x" dims: 1 dims: -1 }',
        'input: [ < name: "x", dims: 1; dims: [-1]; > ]',
        "input{name:'x'dims:[1,- 1]}",
        '\ufeff# a comment { \r\ninput [\r\n { name: "" "x" # another\r\n dims:[1]dims:-1}\r\n] ',
        'input { name: "\\170" dims: [1, -1] }',
        'input { name: "\\x78" dims: [1, -1] [some.extension/of.mine] { y: 1e-5 } }',
    ],
)
def test_one_thing_is_said_in_many_ways(text: str) -> None:
    (port,) = parse(text, "config.pbtxt").messages("input")
    assert (port.text("name"), port.numbers("dims")) == ("x", (1, -1))
    assert text[port.start] in "{<"
    assert text[port.stop - 1] in "}>"


def _structs() -> st.SearchStrategy[struct_pb2.Struct]:
    """Draws messages of a type that protobuf ships, of any depth and with any text."""
    text = st.text(st.characters(codec="utf-8"), max_size=5)
    value = st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, width=32) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=6,
    )

    def made(content: dict[str, object]) -> struct_pb2.Struct:
        struct = struct_pb2.Struct()
        struct.update(content)
        return struct

    # An empty key would not be written.
    return st.dictionaries(text.filter(bool), value, max_size=4).map(made)


def _keys(message: Message) -> list[str]:
    return sorted(key for entry in message.messages("fields") if (key := entry.text("key")) is not None)


@given(struct=_structs(), is_one_line=st.booleans())
def test_what_protobuf_writes_is_read_as_it_is_meant(struct: struct_pb2.Struct, is_one_line: bool) -> None:
    text = text_format.MessageToString(struct, as_one_line=is_one_line, as_utf8=True)
    assert _keys(parse(text, "x")) == sorted(struct.fields)


@given(struct=_structs(), is_one_line=st.booleans(), word=st.text(st.characters(codec="utf-8"), max_size=4))
def test_what_is_edited_is_read_by_protobuf(struct: struct_pb2.Struct, is_one_line: bool, word: str) -> None:
    text = text_format.MessageToString(struct, as_one_line=is_one_line, as_utf8=True)
    whole = parse(text, "x")
    entries = whole.messages("fields")
    assert (
        applied(text, list_edits(text, whole, "fields", {one.start: (text[one.start : one.stop],) for one in entries}))
        == text
    )
    if not entries:
        return
    first, *rest = entries
    renamed = applied(text, scalar_edit(first, "key", quoted(word)), first.start, first.stop)
    new = {first.start: (renamed, renamed), **{one.start: () for one in rest}}
    back = text_format.Parse(applied(text, list_edits(text, whole, "fields", new)), struct_pb2.Struct())
    assert list(back.fields) == [word]
    assert back.fields[word] == struct.fields[first.text("key") or ""]


LIST = """a [
  # of one
  { n: 1 },
  # of two
  { n: 2 },  # and more
  {
    n: 3
  }
]
b: 1
"""


@pytest.mark.parametrize(
    ("new", "after"),
    [
        ({0: ("{ n: 9 }",)}, LIST.replace("n: 1", "n: 9")),
        ({1: ("{ n: 8 }", "{ n: 9 }")}, LIST.replace("{ n: 2 }", "{ n: 8 },\n  { n: 9 }")),
        ({0: ()}, LIST.replace("\n  { n: 1 },\n  # of two", "")),
        ({1: ()}, LIST.replace("\n  # of two\n  { n: 2 },", "")),
        ({2: ()}, LIST.replace(",  # and more\n  {\n    n: 3\n  }", "")),
        ({0: (), 1: (), 2: ()}, "a [\n  # of one\n]\nb: 1\n"),
        ({0: (), 2: ("{ n: 9 }",)}, "a [\n  # of one\n  { n: 2 },  # and more\n  { n: 9 }\n]\nb: 1\n"),
    ],
)
def test_messages_of_a_list_change_and_comments_stay(new: dict[int, tuple[str, ...]], after: str) -> None:
    whole = parse(LIST, "x")
    starts = [message.start for message in whole.messages("a")]
    edits = list_edits(LIST, whole, "a", {starts[place]: texts for place, texts in new.items()})
    assert applied(LIST, edits) == after
    parse(after, "x")


@pytest.mark.parametrize(
    ("text", "new", "after"),
    [
        ("x: 1\na { n: 1 }\na { n: 2 }\n", ("{ n: 8 }", "{ n: 9 }"), "x: 1\na { n: 8 }\na { n: 9 }\na { n: 2 }\n"),
        ("x: 1\r\na { n: 1 }\r\na { n: 2 }\r\n", (), "x: 1\r\na { n: 2 }\r\n"),
        ("x: 1 a: < n: 1 >, y: 2", ("{ n: 8 }", "{ n: 9 }"), "x: 1 a: { n: 8 } a: { n: 9 }, y: 2"),
        ("a { n: 1 }; y: 2", (), " y: 2"),
    ],
)
def test_messages_that_are_repeated_fields_change(text: str, new: tuple[str, ...], after: str) -> None:
    whole = parse(text, "x")
    first = whole.messages("a")[0]
    assert applied(text, list_edits(text, whole, "a", {first.start: new})) == after
    parse(after, "x")


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("{ dims: [ 1, 2 ] }", "{ dims: [ 7, 8, -1 ] }"),
        ("{ dims: [1,2] }", "{ dims: [7, 8, -1] }"),
        ("{ dims [1] }", "{ dims [7, 8, -1] }"),
        ("{ dims: 1 dims: 2 y: 3 }", "{ dims: [ 7, 8, -1 ] y: 3 }"),
        ("{\n  dims: 1\n  dims: 2\n  y: 3\n}", "{\n  dims: [ 7, 8, -1 ]\n  y: 3\n}"),
        ("{ dims: [] }", "{ dims: [7, 8, -1] }"),
        ("{ dims:[7,8,-1] }", "{ dims:[7,8,-1] }"),
    ],
)
def test_numbers_change_in_their_own_style(text: str, after: str) -> None:
    text, after = f"a {text}", f"a {after}"
    if "dims [" in text:
        text, after = text.replace("dims [", "dims: ["), after.replace("dims [", "dims: [")
    (message,) = parse(text, "x").messages("a")
    assert applied(text, numbers_edits(text, message, "dims", (7, 8, -1))) == after


def test_numbers_that_are_missing_are_not_made_up() -> None:
    (message,) = parse("a { y: 1 }", "x").messages("a")
    with pytest.raises(SideFileError, match="`dims` is missing"):
        numbers_edits("a { y: 1 }", message, "dims", (1,))


def test_a_field_goes_with_the_blanks_before_it() -> None:
    text = "a {\n  x: 1\n  y: { z: [] },\n  w: 2\n}"
    (message,) = parse(text, "x").messages("a")
    assert applied(text, [removal(text, message.named("y")[0])]) == "a {\n  x: 1\n  w: 2\n}"


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("name: 'x'  # so\nb: 1\n", "name: 'x'  # so\nnew: 1\nb: 1\n"),
        ("name: 'x'\r\nb: 1\r\n", "name: 'x'\r\nnew: 1\r\nb: 1\r\n"),
        ("name: 'x'", "name: 'x'\nnew: 1"),
        ("name: 'x' b: 1", "name: 'x' b: 1\nnew: 1\n"),
        ("b: 1\n", "b: 1\nnew: 1\n"),
        ("", "new: 1\n"),
    ],
)
def test_a_line_is_put_behind_another(text: str, after: str) -> None:
    assert applied(text, [new_line(text, parse(text, "x"), ("name",), "new: 1")]) == after
    parse(after, "x")
