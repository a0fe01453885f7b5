from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxfix.convention.signature import Port
from onnxfix.errors import UsageError
from onnxfix.verify.feed import Feed
from onnxfix.verify.inputs import read_recording

PORTS = (Port("chunk", "float32", (1, "T", 2)), Port("offset", "int64", ()), Port("cache", "float32", (3,)))


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


def write(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "run.npz"
    np.savez(path, **arrays)
    return path


def test_a_recording_holds_one_array_for_all_ticks_or_one_a_tick(tmp_path):
    chunks = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    path = write(
        tmp_path, chunk=chunks, cache=np.ones(3, np.float32), **{f"offset/{i}": np.array(i * 7) for i in range(3)}
    )

    recording = read_recording(path, PORTS, ["cache"], ticks=3)

    assert [recording.at("chunk", tick).tolist() for tick in range(3)] == chunks.tolist()
    assert [recording.at("offset", tick).item() for tick in range(3)] == [0, 7, 14]
    assert recording.at("cache", 0).tolist() == [1, 1, 1]
    assert recording.at("other", 0) is None


def test_single_ticks_may_stand_out_from_the_rest(tmp_path):
    path = write(tmp_path, **{"offset": np.array(5), "offset/1": np.array(9)})

    recording = read_recording(path, PORTS, [], ticks=3)

    assert [recording.at("offset", tick).item() for tick in range(3)] == [5, 9, 5]


@pytest.mark.parametrize(
    ("arrays", "where", "message"),
    [
        ({"chonk": np.zeros(1)}, "chonk", "belongs to no input"),
        ({"chunk/x": np.zeros(1)}, "chunk/x", "belongs to no input"),
        ({"chunk": np.zeros((1, 2, 2))}, "chunk", "the array is float64, the port float32"),
        ({"chunk": np.zeros((1, 2, 3), np.float32)}, "chunk", r"the array is \[1, 2, 3\], the port \[1, T, 2\]"),
        ({"chunk/0": np.zeros((1, 2, 2), np.float32)}, "chunk", "no array for tick 1"),
        ({"chunk": np.zeros((2, 1, 2, 2), np.float32)}, "chunk", "no array for tick 2"),
        ({"chunk": np.array([{}])}, "", "no npz file of plain arrays"),
    ],
)
def test_a_recording_that_does_not_fit_names_the_array(tmp_path, arrays, where, message):
    path = write(tmp_path, **arrays)

    with pytest.raises(UsageError, match=message) as error:
        read_recording(path, PORTS, [], ticks=3)

    assert error.value.where == (f"{path}: {where}" if where else str(path))
    assert error.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "no npz file"), (b"text", "no npz file"), (b"PK\x03\x04 cut off", "no npz file")],
)
def test_a_file_that_is_no_npz_is_a_usage_error(tmp_path, content, message):
    path = tmp_path / "run.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=message):
        read_recording(path, PORTS, [], ticks=1)


def test_a_single_array_is_no_recording(tmp_path):
    path = tmp_path / "run.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))

    with pytest.raises(UsageError, match="single array"):
        read_recording(path, PORTS, [], ticks=1)
