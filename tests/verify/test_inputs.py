"""Inputs from files: what is read, and what is refused before a runtime sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, UsageError
from onnxfix.verify.inputs import read_recording

PORTS = (Port("chunk", "float32", (1, "T", 2)), Port("offset", "int64", ()), Port("cache", "float32", (3,)))


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
        ({"chunk": np.zeros((1, 0, 2), np.float32)}, "chunk", "is empty, and only a cache may be"),
        ({"offset/1": np.array(1), "offset_1": np.array(1)}, "offset_1", "two arrays for tick 1"),
        ({"offset": np.array([1, 2, 3]), "offset/1": np.array(1)}, "offset/1", "two arrays for tick 1"),
    ],
)
def test_a_recording_that_does_not_fit_names_the_array(tmp_path, arrays, where, message):
    path = write(tmp_path, **arrays)

    with pytest.raises(UsageError, match=message) as error:
        read_recording(path, PORTS, [], ticks=3)

    assert error.value.where == (f"{path}: {where}" if where else str(path))
    assert error.value.hint


def test_a_folder_holds_the_same_names_as_files(tmp_path):
    for name, array in {
        "offset": np.array(5), "offset_1": np.array(9), "chunk/0": np.zeros((1, 2, 2), np.float32),
        "chunk_1": np.ones((1, 3, 2), np.float32), "cache": np.ones(3, np.float32),
    }.items():  # fmt: skip
        file = tmp_path / f"{name}.npy"
        file.parent.mkdir(exist_ok=True)
        np.save(file, array)
    (tmp_path / "notes.txt").write_text("no array")

    recording = read_recording(tmp_path, PORTS, ["cache"], ticks=None)

    assert recording.length(["cache"]) == 2
    assert [recording.at("offset", tick).item() for tick in range(3)] == [5, 9, 5]
    assert [recording.at("chunk", tick).shape for tick in range(2)] == [(1, 2, 2), (1, 3, 2)]
    with pytest.raises(DriveError, match="the recording ends after 2 ticks"):
        recording.at("chunk", 2)


def test_a_name_of_a_port_is_never_taken_apart(tmp_path):
    ports = (Port("past", "float32", (1,)), Port("past_0", "float32", (1,)))
    path = write(tmp_path, past=np.zeros(1, np.float32), past_0=np.ones(1, np.float32))

    recording = read_recording(path, ports, [], ticks=2)

    assert [recording.at(name, 1).item() for name in ("past", "past_0")] == [0, 1]


def test_a_recorded_trace_gives_its_inputs(tmp_path):
    path = write(
        tmp_path,
        **{
            "onnxfix": np.array("{}"), "start/cache": np.ones(3, np.float32), "tick/0/input/offset": np.array(4),
            "tick/1/input/offset": np.array(6), "tick/0/output/y": np.zeros(2), "tick/1/output/y": np.zeros(2),
        },
    )  # fmt: skip

    recording = read_recording(path, PORTS, ["cache"], ticks=None)

    assert [recording.at("offset", tick).item() for tick in range(2)] == [4, 6]
    assert recording.at("cache", 0).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "no npy file in this folder"), ({"offset.npy": b"text"}, "no npy file of a plain array"),
     ({"other.npy": None}, "belongs to no input")],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_a_usage_error(tmp_path, files, message):
    for name, content in files.items():
        if content is None:
            np.save(tmp_path / name, np.zeros(1))
        else:
            (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError, match=message):
        read_recording(tmp_path, PORTS, [], ticks=None)


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
