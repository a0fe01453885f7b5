"""The rules of a zoo, and limits as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxfix.errors import OnnxfixError, UsageError
from onnxfix.zoo.limits import Limits, duration_text, read_bytes, read_seconds
from onnxfix.zoo.manifest import is_match, load_manifest, parse_manifest
from onnxfix.zoo.settings import Change, Settings, settings_from_key

_ERRORS = [
    ("= 1", "m.toml: this is no TOML"),
    ("rules = 1", "m.toml: rules: this key is not known here\n  did you mean `rule`?"),
    ("rule = 1", "m.toml: rule: tables are expected here: [[rule]]"),
    ("[[rule]]", "m.toml: rule[0].models: which models is this about?"),
    ('[[rule]]\nmodels = ""', "m.toml: rule[0].models: which models is this about?"),
    ("[[rule]]\nmodels = 3", "m.toml: rule[0].models: a string or a list of strings is expected here"),
    ('[[rule]]\nmodels = "*"\nexlude = true', "m.toml: rule[0].exlude: this key is not known here\n  did you mean"),
    ('[[rule]]\nmodels = "*"\nexclude = 1', "m.toml: rule[0].exclude: true or false is expected here"),
    ('[[rule]]\nmodels = "*"\nto = "optimun"', "m.toml: rule[0].to: no convention is called `optimun`"),
    ('[[rule]]\nmodels = "*"\nfrom = "x -> y: ("', "m.toml: rule[0].from"),
    ('[[rule]]\nmodels = "*"\nticks = 0', "m.toml: rule[0].ticks: a number from 1 on is expected here"),
    ('[[rule]]\nmodels = "*"\n[rule.sizes]\nhead = "4"', "m.toml: rule[0].sizes.head: a whole number is expected"),
    ('[[rule]]\nmodels = "*"\n[rule.sizes]\nhead = 0', "m.toml: rule[0].sizes.head"),
    ('[[rule]]\nmodels = "*"\n[rule.dims]\nB = 1.5', "m.toml: rule[0].dims.B: a whole number or a name is expected"),
    ('[[rule]]\nmodels = "*"\n[rule.feeds]\nx = "nose"', "m.toml: rule[0].feeds.x: `nose` is no kind of feed"),
    ("[migrate]\njobs = 0", "m.toml: migrate.jobs: a number from 1 on is expected here"),
    ('[migrate]\ntime-limit = "soon"', "m.toml: migrate.time-limit: `soon` is no time span"),
    ('[migrate]\nmemory-limit = "much"', "m.toml: migrate.memory-limit: `much` is no amount of memory"),
    ('[migrate]\nonly-models = "yes"', "m.toml: migrate.only-models: true or false is expected here"),
]


@pytest.mark.parametrize(("text", "message"), _ERRORS)
def test_what_cannot_be_understood_is_told_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_manifest(text, where="m.toml")
    assert str(caught.value).startswith(message)


def test_a_manifest_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert load_manifest(tmp_path).rules == ()
    (tmp_path / "onnxfix.toml").mkdir()
    with pytest.raises(UsageError, match="this is no regular file"):
        load_manifest(tmp_path)


def test_later_rules_and_then_the_command_line_win_key_by_key() -> None:
    manifest = parse_manifest(
        """
        [migrate]
        jobs = 3
        time-limit = "10m"
        [[rule]]
        models = "**"
        to = "optimum"
        seed = 1
        sizes = {head = 4, dim = 8}
        [[rule]]
        models = ["enc/*.onnx", "other.onnx"]
        exclude = true
        sizes = {head = 2}
        [[rule]]
        models = "enc/big.onnx"
        exclude = false
        verify = false
        """,
        where="m.toml",
    )
    change = Change(seed=7, sizes={"batch": 1})
    assert manifest.settings("a.onnx", Change()) == Settings(("optimum",), sizes=(("dim", 8), ("head", 4)), seed=1)
    assert manifest.settings("enc/big.onnx", change) == Settings(
        ("optimum",), sizes=(("batch", 1), ("dim", 8), ("head", 2)), seed=7, is_verified=False
    )
    assert manifest.settings("enc/small.onnx", change).is_excluded
    assert Limits(jobs=1).over(manifest.limits) == Limits(1, 600.0, None)
    assert manifest.unmatched(["a.onnx"]) == [
        "m.toml: rule[1].models: `enc/*.onnx` names no model",
        "m.toml: rule[1].models: `other.onnx` names no model",
        "m.toml: rule[2].models: `enc/big.onnx` names no model",
    ]


def test_files_of_conventions_lie_beside_the_manifest_and_count_by_what_is_in_them(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    text = 'name = "own"\n[[cache]]\nname = "c"\npast = "c: batch dim"\npresent = "d: batch dim"\n'
    own.write_text(text)
    (tmp_path / "onnxfix.toml").write_text('[[rule]]\nmodels = "*"\nto = "own.toml"')
    settings = load_manifest(tmp_path).settings("m.onnx", Change())
    assert settings.to == (str(own),)
    key = settings.key()
    assert settings_from_key(key) == settings
    from onnxfix.zoo import settings as module

    module._digest.cache_clear()
    own.write_text(text + "# other\n")
    assert settings.key() != key


def test_a_convention_that_is_refused_is_no_target() -> None:
    with pytest.raises(OnnxfixError, match=r"m.toml: rule\[0\].to: nothing is converted to"):
        parse_manifest('[[rule]]\nmodels = "*"\nto = "genai-paged"', where="m.toml")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a/*.onnx", "a/b/c.onnx", False),
        ("a/*.onnx", "b/a/c.onnx", False),
        ("a?c.onnx", "a/c.onnx", False),
        ("[!ab].onnx", "a.onnx", False),
        ("a/**/x.onnx", "a/bx.onnx", False),
        ("*.onnx", "m.onnx\n", False),
        ("a/*.onnx", "a/c.onnx", True),
        ("*.onnx", "b/a/c.onnx", True),
        ("**/x.onnx", "x.onnx", True),
        ("a/**/x.onnx", "a/x.onnx", True),
        ("a/**/x.onnx", "a/b/c/x.onnx", True),
        ("a/**", "a/b/c\n%.onnx", True),
        ("[a-c]?.onnx", "b1.onnx", True),
        ("[!ab].onnx", "c.onnx", True),
        ("a[.onnx", "a[.onnx", True),
        ("a(1)+.onnx", "x/a(1)+.onnx", True),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert is_match(pattern, path) is expected


def test_limits_are_read_as_people_write_them() -> None:
    for text in ("", "m", "-1s", "1e3", "0s", "10 x", "١s"):
        with pytest.raises(UsageError, match="is no time span"):
            read_seconds(text, "--time-limit")
        with pytest.raises(UsageError, match="is no amount of memory"):
            read_bytes(text, "--memory-limit")
    times = [read_seconds(text, "") for text in ("90", "90s", "1.5m", "2H", "1d")]
    assert times == [90, 90, 90, 7200, 86400]
    assert [read_bytes(text, "") for text in ("512000000", "64000k", "500M", "8GB", "1.5 GiB")] == [
        512_000_000, 64_000_000, 500_000_000, 8_000_000_000, 1_500_000_000,
    ]  # fmt: skip
    for text, wrong in (("1", "less"), ("2k", "less"), ("99999999999T", "more")):
        with pytest.raises(UsageError, match=f"`{text}` is {wrong} than makes sense"):
            read_bytes(text, "--memory-limit")
    assert [duration_text(seconds) for seconds in (0.5, 3, 90, 600, 3600, 7500)] == [
        "0.5 s", "3 s", "90 s", "10 min", "1 h", "2 h 5 min",
    ]  # fmt: skip
