"""JSON that is edited in place: what is no JSON that a runtime reads, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfix.errors import ExitCode, SideFileError
from onnxfix.sidefiles.jsontext import JsonText

PATH = Path("some/genai_config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no JSON: Expecting value, line 1, column 1"),
        ('{\n  "model": {', "this is no JSON: Expecting property name enclosed in double quotes, line 2, column 13"),
        ('{"a": 1', "this is no JSON: Expecting ',' delimiter, line 1, column 8"),
        ('{"a": 1} {}', "this is no JSON: Extra data, line 1, column 10"),
        ('{"a": 1,}', "this is no JSON"),
        ("{'a': 1}", "this is no JSON"),
        ('{"a": 1} // no comments', "this is no JSON: Extra data"),
        ("[1]", "this is no JSON object"),
        ('"text"', "this is no JSON object"),
        ("null", "this is no JSON object"),
        ('{"a": NaN}', "this is no JSON: `NaN`"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key `c` stands twice in one object"),
        ('\ufeff{"a": 1}', "this file begins with a byte order mark, which its runtime does not read"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "this is no JSON that a runtime reads: too deep"),
        ('{"a": ' + "1" * 5000 + "}", "this is no JSON that a runtime reads: a number is too long"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(SideFileError) as caught:
        JsonText(text, PATH)
    assert caught.value.message.startswith(message)
    assert caught.value.where == str(PATH)
    assert caught.value.exit_code == ExitCode.NOT_CONVERTED


def test_values_of_another_type_are_refused_by_their_path() -> None:
    text = JsonText('{"model": {"type": 5, "decoder": []}}', PATH)
    with pytest.raises(SideFileError, match=r"genai_config\.json: model\.type: a string is expected here"):
        text.text_at("model", "type")
    with pytest.raises(SideFileError, match=r"model\.decoder: an object is expected here"):
        text.table_at("model", "decoder")


@pytest.mark.parametrize(
    ("before", "keys", "value", "after"),
    [
        ('{ "a" : "x" }', ("a",), "y", '{ "a" : "y" }'),
        ('{"a": "x"}', ("b",), "y", '{"a": "x", "b": "y"}'),
        ('{\n  "a" : "x"\n}\n', ("b",), "y", '{\n  "a" : "x",\n  "b" : "y"\n}\n'),
        ('{\r\n\t"a":1,\r\n\t"c":2\r\n}', ("b",), "y", '{\r\n\t"a":1,\r\n\t"c":2,\r\n\t"b":"y"\r\n}'),
        ('{\n  "a": {}\n}', ("a", "b"), "y", '{\n  "a": {\n    "b": "y"\n  }\n}'),
        ('{\n  "a": 1\n}', ("in", "b"), "y", '{\n  "a": 1,\n  "in": {\n    "b": "y"\n  }\n}'),
        ("{}", ("a", "b"), "y", '{"a": {"b": "y"}}'),
        ('{"a": [1, {"b": 2}], "b": 3}', ("b",), "y", '{"a": [1, {"b": 2}], "b": "y"}'),
        ('{"a": {"x": 1}}', ("a",), False, '{"a": false}'),
        ('{"a": "x"}', ("a",), 'é"\\', '{"a": "é\\"\\\\"}'),
        ('{"\\"{": 1, "b": "x"}', ("b",), "y", '{"\\"{": 1, "b": "y"}'),
    ],
)
def test_a_value_is_put_in_as_its_neighbours_are_written(
    before: str, keys: tuple[str, ...], value: str | bool, after: str
) -> None:
    text = JsonText(before, PATH)
    text.set(value, *keys)
    assert text.text == after
    assert text.get(*keys) == value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"b": 1}', "{}"),
        ('{ "b": 1, "c": 2 }', '{ "c": 2 }'),
        ('{\n  "a": 1,\n  "b": {"x": 2}\n}', '{\n  "a": 1\n}'),
        ('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}', '{\n  "a": 1,\n  "c": 3\n}'),
    ],
)
def test_an_entry_is_taken_out_with_its_comma(before: str, after: str) -> None:
    text = JsonText(before, PATH)
    text.remove("b")
    assert text.text == after


_KEYS = st.text('ab"\\{}[]:, é', min_size=1, max_size=4)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    content=st.dictionaries(_KEYS, _VALUES, max_size=4),
    key=_KEYS,
    value=_KEYS,
    indent=st.sampled_from((None, 0, 1, 2, "\t")),
    end=st.sampled_from(("\n", "\r\n")),
    separators=st.sampled_from(((",", ":"), (", ", ": "), (" ,", " : "))),
)
def test_an_edit_is_what_it_is_in_a_dictionary(
    content: dict[str, object],
    key: str,
    value: str,
    indent: int | str | None,
    end: str,
    separators: tuple[str, str],
) -> None:
    before = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False).replace("\n", end)
    text = JsonText(before, PATH)
    text.set(value, key)
    assert json.loads(text.text) == {**content, key: value}
    text.remove(key)
    assert json.loads(text.text) == {name: one for name, one in content.items() if name != key}
    assert text.text.count("\n") == text.text.count("\r\n") or end == "\n"
    text = JsonText(before, PATH)
    if key in content:
        text.remove(key)
    elif content:
        text.set(value, key)
        text.remove(key)
        assert text.text == before, "put in and taken out again, nothing has changed"
