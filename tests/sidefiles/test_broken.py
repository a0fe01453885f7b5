"""Files that somebody has damaged: either they follow, and are sound afterwards, or one error says what is wrong."""

from __future__ import annotations

import json

import pytest
from files import GENAI, GPU, STACKED, TRITON, beside, plan
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxfix.errors import SideFileError
from onnxfix.sidefiles import genai, triton
from onnxfix.sidefiles.pbtxt import parse

PIECES = st.sampled_from(
    ["{", "}", "[", "]", "<", ">", ":", ",", ";", '"', "'", "#", "\\", "-", "-1", "null", "{}", "[ ]", "\n", "\r", "\0",
     "name", "dims: [ 1 ]", "att_cache", '"att_cache"', "state { }", "input { }",
     '"past_%d"', '"%d"', "\ud7ff", "é", "0x", ""]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """Draws a text of which a few spans are gone, doubled or something else."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 30)))
        kind = draw(st.sampled_from(("gone", "doubled", "other", "cut")))
        new = {"gone": "", "doubled": text[start:stop] * 2, "other": draw(PIECES), "cut": ""}[kind]
        text = text[:start] + new + ("" if kind == "cut" else text[stop:])
    return text


@settings(max_examples=600)
@given(text=damaged(TRITON))
@example(text=TRITON.replace('"att_cache"', "'att' '_cache'"))
def test_a_damaged_config_follows_or_is_refused(text: str) -> None:
    try:
        side = triton.follow(beside(text, "config.pbtxt"), plan(GPU, "wenet-gpu-kv"))
    except SideFileError as error:
        assert error.where.startswith("old/config.pbtxt")
        assert error.message
        return
    whole = parse(side.after, "config.pbtxt")
    names = [one.text("name") for key in ("input", "output") for one in whole.messages(key)]
    assert "att_cache" not in names
    again = triton.follow(beside(side.after, "config.pbtxt"), plan(GPU, "wenet-gpu-kv"))
    assert again.after == side.after, "what follows has arrived"


@settings(max_examples=600)
@given(text=damaged(GENAI))
def test_a_damaged_genai_config_follows_or_is_refused(text: str) -> None:
    try:
        side = genai.follow(beside(text, "genai_config.json"), plan(STACKED, "genai"))
    except SideFileError as error:
        assert error.where.startswith("old/genai_config.json")
        assert error.message
        return
    before, after = json.loads(text), json.loads(side.after)
    assert after["model"].get("type") != "gpt2"
    assert {key: value for key, value in after.items() if key not in ("model", "search")} == {
        key: value for key, value in before.items() if key not in ("model", "search")
    }
    again = genai.follow(beside(side.after, "genai_config.json"), plan(STACKED, "genai"))
    assert again.after == side.after, "what follows has arrived"


@pytest.mark.parametrize("cut", range(1, len(TRITON) - 2, 7))
def test_a_config_that_ends_early_is_refused_or_whole_as_far_as_it_goes(cut: int) -> None:
    try:
        parse(TRITON[:cut], "config.pbtxt")
    except SideFileError as error:
        assert "line " in error.where
