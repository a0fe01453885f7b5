from __future__ import annotations

import re

import numpy as np
import pytest

from onnxfix.convention.signature import Port
from onnxfix.errors import UsageError
from onnxfix.verify.feed import Feed


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# what users write, shape, dtype, tick 2
FEEDS = [
    ("zeros", (2,), "float32", [0.0, 0.0]),
    ("ones", (2,), "bool", [True, True]),
    ("constant:64", (), "int64", 64),
    ("constant:-1.5", (1,), "float16", [-1.5]),
    ("range", (2, 3), "int32", [[0, 1, 2], [0, 1, 2]]),
    ("range:5", (2,), "int64", [5, 6]),
    ("range:5", (), "int64", 5),
    ("step:64,16", (), "int64", 96),
]


@pytest.mark.parametrize(("text", "shape", "dtype", "expected"), FEEDS)
def test_a_feed_makes_what_it_says(text, shape, dtype, expected):
    array = Feed.parse("port", text).make(shape, dtype, 2, rng())

    assert (array.dtype, array.shape, array.tolist()) == (np.dtype(dtype), shape, expected)


def test_random_feeds_keep_to_their_bounds():
    tokens = Feed.parse("port", "tokens:5").make((200,), "int64", 0, rng())
    noise = Feed.parse("port", "noise:10").make((2000,), "float32", 0, rng())

    assert set(tokens.tolist()) == set(range(5))
    assert 9 < noise.std() < 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("const:3", "`const` is no kind of feed"),
        ("constant", "wrong number of arguments"),
        ("constant:x", "`x` are no numbers"),
        ("zeros:1", "wrong number of arguments"),
        ("tokens:0", "number of tokens"),
        ("tokens:nan", "number of tokens"),
        ("step:1", "wrong number of arguments"),
    ],
)
def test_a_feed_that_makes_no_sense_is_a_usage_error(text, message):
    with pytest.raises(UsageError, match=message) as error:
        Feed.parse("offset", text)

    assert error.value.where == f"--feed offset={text}"
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "dtype", "number"),
    [
        ("constant:nan", "int64", "nan"),
        ("constant:1e30", "int32", "1e+30"),
        ("constant:0.5", "int64", "0.5"),
        ("constant:2", "bool", "2"),
        ("tokens:300", "int8", "299"),
        ("range:-1", "uint8", "-1"),
    ],
)
def test_a_number_that_the_port_cannot_hold_is_a_usage_error(text, dtype, number):
    with pytest.raises(UsageError, match=f"`{re.escape(number)}` is no number of type {dtype}"):
        Feed.parse("x", text).require_fits(Port("x", dtype, (2,)))
    Feed.parse("x", text).require_fits(Port("x", "float32", (2,)))


def test_a_tone_goes_on_from_tick_to_tick_and_has_a_pitch_for_each_stream():
    feed = Feed.parse("x", "tone:0.5,1000")
    ticks = [feed.make((2, 100), "float32", tick, rng()) for tick in range(3)]

    whole = np.concatenate(ticks, axis=1)
    np.testing.assert_allclose(whole[0], 0.5 * np.sin(2 * np.pi * 1000 * np.arange(300) / 16000), atol=1e-6)
    assert np.abs(whole[0] - whole[1]).max() > 0.1
