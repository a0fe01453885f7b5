"""What is worth a second look in a convention, and how far it reaches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfix.convention.convention import Convention
from onnxfix.convention.load import library, parse_convention
from onnxfix.convention.matching import is_kin
from onnxfix.convention.reach import obstacles, reach, reaches
from onnxfix.convention.review import review

GOOD = """
name = "mine"

[[cache]]
name    = "self"
past    = "past.{layer}.{kv}: batch head time dim"
present = "new.{layer}.{kv}: batch head time dim"
update  = "append"
"""


def changed(old: str, new: str) -> Convention:
    """Returns the convention with another text in it."""
    assert old in GOOD
    return parse_convention(GOOD.replace(old, new), where="mine.toml")


def test_nothing_is_remarked_on_what_is_clear() -> None:
    assert review(parse_convention(GOOD, where="mine.toml")) == ()
    assert review(changed("head time dim", "time (head dim)")) == (
        "the size of `(head dim)` does not tell `head` or `dim`: [sizes] can, else --size must",
    )
    assert review(changed("{kv}: batch head time dim", "x: batch head time (kv dim)")) == ()


def test_no_convention_of_the_library_is_confused_with_itself() -> None:
    twins = {"genai", "optimum", "ort-t5", "ort-whisper"}  # but for the order of their ports
    for one in library().values():
        remarks = [remark for remark in review(one) if "is not read" in remark or "the library" in remark]
        assert not remarks or one.name in twins, one.name


@pytest.mark.parametrize(
    ("old", "new", "remark"),
    [
        ("new.{layer}.{kv}: batch head time dim", "new.{layer}.{kv}: batch head dim time", "is that meant?"),
        ('update  = "append"', "", "the cache `self` does not say how it is updated"),
        ("past.{layer}.{kv}: batch head time", "past{layer}{head}.{kv}: batch time", "is not read by them"),
        ('name = "mine"', 'name = "optimum"', "the library has another `optimum`"),
    ],
)
def test_remarks(old: str, new: str, remark: str) -> None:
    if "{layer}{head}" in new:
        text = GOOD.replace(old, new).replace("{layer}.{kv}: batch head", "{layer}.{head}.{kv}: batch")
        found = review(parse_convention(text, where="mine.toml"))
    else:
        found = review(changed(old, new))
    assert len([one for one in found if remark in one]) == 1


def test_the_same_under_another_name_is_told() -> None:
    copy = replace(library()["optimum"], name="mine")
    assert "the library's `optimum` describes the same tensors" in review(copy)


def test_ports_that_an_order_leaves_out_are_named() -> None:
    convention = parse_convention(
        GOOD + '\n[[input]]\nrole = "tokens"\nport = "ids: batch sequence"\n\n[order]\ninputs = ["self"]\n', where="a"
    )
    assert review(convention) == ("order.inputs leaves out `ids`: they stay where the model has them",)


def test_only_what_is_of_one_kind_is_within_reach() -> None:
    for one in library().values():
        assert {found.target for found in reaches(one)} == {
            other.name for other in library().values() if other is not one and is_kin(one, other)
        }
    refused = replace(library()["optimum"], refused="no")
    assert reaches(refused) == ()


@pytest.mark.parametrize(
    ("source", "target", "text", "obstacle"),
    [
        ("optimum", "qeff", "qeff", "the cache `self` is updated by `append`, the target asks for `in-place`"),
        ("ten-vad", "silero-state", "silero-state", "the target's cache `lstm` (batch, dim, hc) has no counterpart"),
        ("optimum", "gpt2-stacked", "gpt2-stacked", ""),
        ("wenet-packed", "wenet-kv", "wenet-kv (where batch is 1)", ""),
        ("silero-hc", "silero-state", "silero-state (where layer is 1)", ""),
        ("bloom", "bigcode-mqa", "bigcode-mqa (where head is 1)", ""),
        ("optimum-seq2seq", "ort-t5", "ort-t5 (where cross is only read)", ""),
    ],
)
def test_reach(source: str, target: str, text: str, obstacle: str) -> None:
    found = reach(library()[source], library()[target])
    assert str(found) == text
    assert found.obstacle.startswith(obstacle)
    assert bool(found.obstacle) == bool(obstacle)


def test_obstacles_are_grouped() -> None:
    found = obstacles(reaches(library()["optimum"]))
    assert [names for names in found.values() if {"mobius-static", "qeff"} <= set(names)]
    assert sum(map(len, found.values())) == len([one for one in reaches(library()["optimum"]) if one.obstacle])
