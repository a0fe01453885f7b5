"""`onnxfix conventions`: what there is, what one says and converts to, and a look at a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxfix.cli import main
from onnxfix.convention.catalogue import catalogue
from onnxfix.convention.load import load_convention

Capture = pytest.CaptureFixture[str]

MINE = """
name = "mine"
family = "decoder"

[[cache]]
name    = "self"
past    = "k.{kv}.{layer}: batch head time dim"
present = "n.{kv}.{layer}: batch head time dim"
update  = "append"
"""


def run(capsys: Capture, *words: str, code: int = 0) -> tuple[str, str]:
    """Returns what a command prints for programs and for people."""
    assert main(["conventions", *words]) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def listed(text: str) -> list[str]:
    """Returns the names in a list."""
    names = {one.name for one in catalogue()}
    return [line.split()[0] for line in text.splitlines() if line and line.split()[0] in names]


def test_all_are_listed_once_under_the_title_of_their_group(capsys: Capture) -> None:
    out, err = run(capsys)
    assert err == ""
    assert sorted(listed(out)) == sorted(one.name for one in catalogue())
    for one in catalogue():
        assert one.description in out
    titles = [line for line in out.splitlines() if line in ("Language models", "Streaming speech")]
    assert titles == ["Language models", "Streaming speech"]
    assert out.index("Language models") < out.index("\noptimum ") < out.index("Streaming speech")


@pytest.mark.parametrize(
    ("words", "found", "absent"),
    [
        pytest.param(["silero", "v4"], "silero-hc", "silero-state", id="every word"),
        pytest.param(["SILERO"], "silero-state", "wenet-kv", id="whatever the case"),
        pytest.param(["past_key_values"], "optimum", "gpt2-stacked", id="names of ports"),
        pytest.param(["Triton"], "wenet-gpu", "wenet-packed", id="who runs it"),
        pytest.param(["export_onnx_bpu.py"], "wenet-bpu", "wenet-gpu", id="source"),
        pytest.param(["speech/wenet"], "wenet-kv", "optimum", id="family"),
    ],
)
def test_words_find(words: list[str], found: str, absent: str, capsys: Capture) -> None:
    names = listed(run(capsys, *words)[0])
    assert found in names
    assert absent not in names
    json_names = [one["name"] for one in json.loads(run(capsys, *words, "--json")[0])]
    assert sorted(json_names) == sorted(names)


def test_words_that_find_nothing(capsys: Capture) -> None:
    out, err = run(capsys, "wenet", "nonsense", code=2)
    assert (out, err.splitlines()[0]) == ("", "error: no convention speaks of `wenet` and `nonsense`")
    assert "did you mean wenet-" in run(capsys, "wenet-kw", code=2)[1]
    assert "onnxfix conventions lists all" in run(capsys, "zzzzzz", code=2)[1]
    assert "no UTF-8" in run(capsys, "\udcff", code=2)[1]


def test_one_is_shown_with_all_that_it_says(capsys: Capture) -> None:
    lines = run(capsys, "wenet-packed")[0].splitlines()
    for line in (
        "  family: speech/wenet",
        "  finds ports: by their position",
        "  replaced by: wenet-kv",
        "  order of outputs: output, attention, convolution",
        "  names of dims: time is T_CACHE",
        "  att_cache -> r_att_cache: layer head time (kv dim)",
        "cache convolution (optional)",
        "  att_mask: batch 1 key bool, mask (optional)",
    ):
        assert line in lines
    shown = run(capsys, "optimum")[0]
    assert "time is past_sequence_length before and past_sequence_length + sequence_length after a call" in shown
    assert "  order of caches: by layer\n" in shown


def test_one_says_what_it_converts_to_and_what_not(capsys: Capture) -> None:
    shown = run(capsys, "bigcode-mqa")[0]
    assert "bloom (where head is 1)" in shown
    assert "not to mobius-static" in shown
    assert "wenet" not in shown
    facts = json.loads(run(capsys, "bigcode-mqa", "--json")[0])
    assert "bloom" in facts["converts_to"]
    assert "asks for `in-place`" in facts["obstacles"]["qeff"]
    assert run(capsys, "marian-ssru")[0].endswith("converts to\n  no other convention of the library\n")


def test_toml_reads_back_as_the_same(tmp_path: Path, capsys: Capture) -> None:
    for one in catalogue():
        path = tmp_path / f"{one.name}.toml"
        path.write_text(run(capsys, one.name, "--toml")[0], encoding="utf-8")
        assert load_convention(path) == one
    for words in ((), ("wenet", "kv")):
        assert "error: --toml: which convention?" in run(capsys, *words, "--toml", code=2)[1]


def test_json_has_all(capsys: Capture) -> None:
    facts = json.loads(run(capsys, "--json")[0])
    assert [one["name"] for one in facts] == [one.name for one in catalogue()]
    assert all(one["family"] == load_convention(one["name"]).family for one in facts)


def test_a_file_of_ones_own_is_shown_and_checked(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    assert " bigcode-mha," in run(capsys, str(path))[0].partition("converts to\n")[2]
    assert run(capsys, "--check", str(path)) == (f"{path} is a convention: mine, 1 cache, 0 other ports\n", "")
    path.write_text(MINE.replace("n.{kv}.{layer}: batch head time dim", "n.{kv}.{layer}: batch time head dim"))
    out, err = run(capsys, "--check", str(path))
    assert out.startswith(f"{path} is a convention")
    assert err.startswith("note  the cache `self` comes as `batch head time dim` and goes as `batch time head dim`")
    assert json.loads(run(capsys, "--check", str(path), "--json")[0])["remarks"] == [err[len("note  ") :].rstrip()]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("batch head time dim", "batch head time dim)", "cache[0].past"),
        ('update  = "append"', 'update  = "apend"', "cache[0].update"),
        ('name    = "self"', 'nam = "self"', "cache[0].nam"),
        ('family = "decoder"', 'family = "Decoder!"', "family"),
    ],
)
def test_a_file_that_is_no_convention(old: str, new: str, place: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(old, new, 1))
    out, err = run(capsys, "--check", str(path), code=2)
    assert out == ""
    assert err.startswith(f"error: {path}: {place}: ")


def test_what_goes_with_check(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.toml"
    assert "cannot be read" in run(capsys, "--check", str(path), code=2)[1]
    path.write_text(MINE)
    assert "goes with no name" in run(capsys, "--check", str(path), "optimum", code=2)[1]
    assert "goes with no name" in run(capsys, "--check", str(path), "--toml", code=2)[1]
