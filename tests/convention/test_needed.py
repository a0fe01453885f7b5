"""Metadata that a runtime cannot do without: what is missing is told."""

from __future__ import annotations

import pytest
from speaking import plan

from onnxfix.convention.catalogue import facts_of
from onnxfix.convention.load import library, parse_convention
from onnxfix.errors import ConventionError

WENET = {
    "chunk_size": "16", "left_chunks": "4", "right_context": "6", "subsampling_rate": "4", "sos_symbol": "30",
    "eos_symbol": "30", "is_bidirectional_decoder": "0",
}  # fmt: skip


@pytest.mark.parametrize("value", ["5", "[1]", "{ a = 1 }"])
def test_what_is_no_list_of_keys_is_refused(value: str) -> None:
    text = f'name = "x"\ncache = [{{ name = "c", past = "p: layer" }}]\n[metadata]\nneeded = {value}\n'
    with pytest.raises(ConventionError, match=r"x\.toml: metadata\.needed: a string or a list of strings is expected"):
        parse_convention(text, where="x.toml")


def test_what_nothing_tells_is_told() -> None:
    notes = plan("wenet-kv", "wenet-packed").notes
    assert (
        "WeNet's runtime in C++ stops without the metadata subsampling_rate, right_context, sos_symbol, eos_symbol, "
        "is_bidirectional_decoder, chunk_size, left_chunks, which nothing here tells: add them to the file"
    ) in notes
    notes = plan("wenet-packed", "sherpa-wenet", metadata=WENET).notes
    assert (
        "sherpa-onnx stops without the metadata vocab_size, which nothing here tells: add them to the file"
    ) in notes


def test_what_is_there_or_derived_is_not_told() -> None:
    assert not any("stops without" in note for note in plan("wenet-kv", "wenet-packed", metadata=WENET).notes)
    known = {**WENET, "vocab_size": "31"}
    assert not any("stops without" in note for note in plan("wenet-packed", "sherpa-wenet", metadata=known).notes)


def test_it_is_shown_with_the_convention() -> None:
    (text,) = [text for key, text in facts_of(library()["sherpa-wenet"]) if key == "metadata"]
    assert text.endswith("right_context, subsampling_factor, vocab_size")
