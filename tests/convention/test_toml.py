"""Conventions as TOML: read as written, and errors that name file and key path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from language_strategies import conventions

from onnxfix.convention.convention import Convention, convention_from_sentences
from onnxfix.convention.load import library, load_convention, parse_convention, refused
from onnxfix.convention.writing import to_toml
from onnxfix.errors import ConventionError, ExitCode, LayoutError

CACHE = """
[[cache]]
name = "self"
past = "past.{layer}: batch time"
present = "present.{layer}: batch time"
"""


@settings(max_examples=30)
@given(conventions())
def test_a_convention_is_read_as_it_is_written(convention: Convention) -> None:
    assert parse_convention(to_toml(convention), where="x.toml") == convention


@pytest.mark.parametrize("name", [*library(), *refused()])
def test_the_library_is_read_as_it_is_written(name: str) -> None:
    convention = load_convention(name)
    assert parse_convention(to_toml(convention), where=name) == convention
    assert convention.name == name and convention.source and convention.description and convention.family
    assert convention.successor is None or convention.successor in library()


def test_the_library_is_one_file_a_convention() -> None:
    folder = resources.files("onnxfix.convention") / "library"
    files = {entry.name for entry in folder.iterdir()}
    assert files == {f"{name}.toml" for name in (*library(), *refused())}
    assert list(library()) == sorted(library()) and list(refused()) == sorted(refused())


def test_sentences_have_no_name() -> None:
    convention = convention_from_sentences(["a: b"])
    assert parse_convention(to_toml(convention), where="x").name == "unnamed"
    assert str(convention) == "a: b"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "my"\r\n' + CACHE.replace("\n", "\r\n").encode())
    assert load_convention(path).name == load_convention(str(path)).name == "my"


def test_names_of_dims_hold_wherever_none_is_said() -> None:
    convention = parse_convention(
        """
        name = "my"
        dims = { batch = "N", "(head time)" = "H x T", length = "L" }
        input = [{ role = "lengths", port = "lengths: batch length" }]
        output = [{ role = "other", port = "lengths: batch length", dims = { batch = "B" } }]

        [[cache]]
        name = "self"
        past = ["{kv=key}: batch head time", "{kv=value}: batch time head"]
        present = ["new_{kv=key}: (head time) batch", "new_{kv=value}: batch head time"]
        present-dims = { batch = "M" }
        """,
        where="x",
    )
    (cache,), (taken,), (given,) = convention.caches, convention.inputs, convention.outputs
    assert [spec.dims for spec in cache.past] == [{"batch": "N"}] * 2
    assert [spec.dims for spec in cache.present] == [{"batch": "M", "(head time)": "H x T"}] * 2
    assert (taken.dims, given.dims) == ({"batch": "N", "length": "L"}, {"batch": "B", "length": "L"})
    assert parse_convention(to_toml(convention), where="x") == convention


def test_a_convention_that_is_refused_needs_no_caches() -> None:
    convention = parse_convention(
        "name = 'paged'\nrefused = 'they are paged'\nneeds = 'another export'\n[[sign]]\ninput = 'block_table'",
        where="x",
    )
    assert (convention.caches, convention.sentences, str(convention)) == ((), (), "paged")
    assert parse_convention(to_toml(convention), where="x") == convention


WHOLE = [
    ("", "", "a convention has at least one [[cache]]"),
    ("name = ", "", "this is no TOML: Invalid value (at end of document)"),
    ("name = 'a'\nname = 'b'", "", "this is no TOML: Cannot overwrite a value (at end of document)"),
    ("a = " + "[" * 5000 + "]" * 5000, "", "this TOML nests too deeply"),
    (CACHE, "name", "this key is missing"),
    ("name = ''" + CACHE, "name", "this string is empty"),
    ("name = 3" + CACHE, "name", "a string is expected here"),
    ("name = 1979-05-27" + CACHE, "name", "a string is expected here"),
    ("nam = 'a'" + CACHE, "nam", "this key is not known here\n  did you mean `name`?"),
    ("zzz = 'a'" + CACHE, "zzz", "this key is not known here\n  known are binds, cache, consumer,"),
    ("name = 'a'\nsuccessor = ['a']" + CACHE, "successor", "a string is expected here"),
    ("name = 'a'\nfamily = 'Decoder'" + CACHE, "family", "`Decoder` is no family\n  words like decoder, or a path"),
    ("name = 'a'\nfamily = 'a/'" + CACHE, "family", "`a/` is no family"),
    ("name = 'a'\nbinds = 'hand'" + CACHE, "binds", "`hand` is no way to bind\n  known are name, position,"),
    ("name = 'a'" + CACHE + "optional = true", "cache", "all caches are optional: any model would fit\n  leave `opt"),
    ("name = 'a'\nneeds = 'b'" + CACHE, "needs", "this is for conventions that are refused only\n  say why"),
    ("name = 'a'\n[[sign]]\ninput = 'b'" + CACHE, "sign", "this is for conventions that are refused only"),
    ("name = 'a'\nrefused = 'b'", "", "a convention that is refused has at least one [[sign]] or [[cache]]"),
    ("name = 'a'\nrefused = 'b'\n[[sign]]\nrank = 3", "sign[0]", "a sign is an input, an output, or one that"),
    ("name = 'a'\nrefused = 'b'\n[[sign]]\ninput = '('", "sign[0].input", "this is no regular expression: missing )"),
    ("name = 'a'\nrefused = 'b'\n[[sign]]\ninput = 'b'\nrank = -1", "sign[0].rank", "a whole number is expected"),
    ("name = 'a'\ndims = {b = 'T'}" + CACHE, "dims.b", "no layout here has a dimension `b`"),
    ("cache = 3", "cache", "tables are expected here: [[cache]]"),
    ("cache = ['a']", "cache", "tables are expected here: [[cache]]"),
    ("[cache]\nname = 'a'", "cache", "tables are expected here: [[cache]]"),
    ("[[cache]]", "cache[0].name", "this key is missing"),
]

IN_CACHE = [
    ("", "past", "this key is missing"),
    ("past = []", "past", "this key is missing"),
    ("past = 3", "past", "a string or a list of strings is expected here"),
    ("past = [3]", "past", "a string or a list of strings is expected here"),
    ("past = 'a: b (c'", "past", "this group is not closed\n    a: b (c\n         ^"),
    ("past = 'a -> b: c'", "past", "there is no place for `->` here"),
    ("past = ['{kv=key}: a', '{kv=value}: a a']", "past[1]", "the axis `a` stands twice\n    {kv=value}: a a"),
    ("past = 'a: b'\npresent = 'b: c'", "present", "`b: c` and `a: b` differ in the axes `b`, `c`"),
    ("past = '{kv=key}: b'", "past", "no sentence describes the tensors of kv value"),
    ("past = ['a: b', 'c: b']", "past", "two sentences describe the same tensors\n  fix a label in each"),
    ("past = ['{kv=key}: b', '{kv}_: b']", "past", "two sentences describe the same tensors\n  fix a label in each"),
    (
        "past = ['{kv=key:a}: b', '{kv=key:c}: b']",
        "past",
        "two sentences describe the same tensors: again `{kv=key:c}",
    ),
    ("past = 'a.{kv}: b'\npresent = 'b: kv b'", "present", "`b: kv b` and `a.{kv}: b` spread different axes"),
    ("past = 'a: b'\ninit = 'zero'", "init", "a number is expected here"),
    ("past = 'a: b'\ninit = true", "init", "a number is expected here"),
    ("past = 'a: b'\nupdate = 'scatter'", "update", "`scatter` is no update rule\n  known are append, window"),
    ("past = 'a: b'\noptional = 1", "optional", "true or false is expected here"),
    ("past = 'a: b'\npresent-optional = true", "present-optional", "there is no present that could be missing"),
    ("past = 'a: b'\npast-dims = 'T'", "past-dims", "a table is expected here: [cache[0].past-dims]"),
    ("past = 'a: b'\npast-dims = {b = 3}", "past-dims.b", "a string is expected here"),
    (
        "past = 'a: b'\npast-dims = {c = 'T'}",
        "past-dims.c",
        "no layout here has a dimension `c`\n  there are b",
    ),
    ("past = 'a: b'\ndims = {b = 'T'}", "dims", "this key is not known here"),
]

BELOW = [
    (CACHE, "cache[1].name", "`self` stands twice"),
    (CACHE.replace("self", "other"), "cache[1].past", "two caches have the tensors `past.{layer}`"),
    ("[[input]]\nport = 'a: b'", "input[0].role", "this key is missing"),
    ("[[input]]\nrole = 'x'\nport = 'a: b'", "input[0].role", "`x` is no role\n  known are features"),
    ("[[input]]\nrole = 'mask'", "input[0].port", "this key is missing"),
    ("[[input]]\nrole = 'mask'\nport = 'a'", "input[0].port", "a port is NAME: LAYOUT"),
    ("[[output]]\nrole = 'output'\nport = 'a: (b'", "output[0].port", "this group is not closed\n    a: (b\n       ^"),
    ("[[input]]\nrole = 'mask'\nport = 'a:'\nfeed = 1.5", "input[0].feed", "a number or an expression is expected"),
    ("[[input]]\nrole = 'mask'\nport = 'a:'\nfeed = '1 / 2'", "input[0].feed", "only integers, names"),
    (
        "[[input]]\nrole = 'mask'\nport = 'a: b'\ndims = {c = 'x'}",
        "input[0].dims.c",
        "no layout here has a dimension `c`",
    ),
    ("[[input]]\nrole = 'mask'\nport = 'past.3:'", "input[0].port", "`past.3` belongs to the cache `self` already"),
    ("[[input]]\nrole = 'mask'\nport = 'a:'\n" * 2, "input[1].port", "`a` stands twice"),
    ("[sizes]\nheads = 3", "sizes.heads", "no cache and no port has this axis"),
    ("[sizes]\nself.time = 3", "sizes.self", "no cache and no port has this axis\n  AXIS, or CACHE.AXIS in quotes"),
    ("[sizes]\ntime = true", "sizes.time", "a number or an expression is expected here"),
    ("[sizes]\ntime = 'a +'", "sizes.time", "this is no arithmetic\n    a +\n       ^"),
    ("[order]\ninputs = ['slef']", "order.inputs", "`slef` is no cache and no port\n  known are self"),
    ("[order]\ninputs = ['self', 'self']", "order.inputs", "`self` stands twice"),
    ("[order]\ncaches = 'by name'", "order.caches", "`by name` is no order\n  known are by layer, by kind,"),
    ("[order]\ncaches = ['kv']", "order.caches", "no cache is spread over `kv`\n  known are cache, layer"),
    ("[order]\nports = []", "order.ports", "this key is not known here"),
    ("[metadata]\nhead = '4'", "metadata.head", "this key is not known here"),
    ("[metadata.set]\nhead = 4", "metadata.set.head", "a string is expected here"),
    ("[metadata.derive]\nhead = 'head!'", "metadata.derive.head", "only integers, names"),
]

BAD = [
    *WHOLE,
    *((f"name = 'my'\n[[cache]]\nname = 'a'\n{text}", f"cache[0].{key}", message) for text, key, message in IN_CACHE),
    *((f"name = 'my'\n{CACHE}\n{text}", key, message) for text, key, message in BELOW),
]


@pytest.mark.parametrize(("text", "key", "message"), BAD)
def test_errors_name_file_and_key_path(text: str, key: str, message: str) -> None:
    with pytest.raises((ConventionError, LayoutError)) as caught:
        parse_convention(text, where="my.toml")
    assert str(caught.value).startswith(f"my.toml: {key}: {message}" if key else f"my.toml: {message}")
    assert caught.value.exit_code == ExitCode.USAGE


def test_conventions_that_cannot_be_found(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    cases = {
        "optimun": "no convention is called `optimun`\n  did you mean optimum? known are bigcode-mha,",
        "qqq": "no convention is called `qqq`\n  known are bigcode-mha,",
        f"{tmp_path}/none.toml": f"{tmp_path}/none.toml: the convention cannot be read: No such file or directory"
        "\n  look at its name",
        "a\0b.toml": "a\0b.toml: the convention cannot be read: embedded null byte",
        str(binary): f"{binary}: the convention is no UTF-8 text",
    }
    for name, message in cases.items():
        with pytest.raises(ConventionError) as caught:
            load_convention(name)
        assert str(caught.value).startswith(message)
