"""Inputs from files: an npz file or a folder of npy files, one array a port, or a port and tick."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Port
from onnxfix.errors import DriveError, UsageError
from onnxfix.verify.dtypes import DRIVABLE, storage

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass(frozen=True)
class Recording:
    """Inputs from files.

    Attributes:
        every: Arrays that are fed at every tick, by port.
        ticks: Arrays by port, one entry a tick.
    """

    every: Mapping[str, Array]
    ticks: Mapping[str, Mapping[int, Array]]

    @staticmethod
    def empty() -> Recording:
        """Returns a recording of nothing."""
        return Recording({}, {})

    @property
    def names(self) -> frozenset[str]:
        """The ports of which the files say anything."""
        return frozenset(self.every) | frozenset(self.ticks)

    def length(self, states: Collection[str]) -> int | None:
        """Returns for how many ticks there are arrays; None where there is no end, as every tick gets the same."""
        ends = [max(rows) + 1 for name, rows in self.ticks.items() if name not in states and name not in self.every]
        return min(ends, default=None)

    def at(self, port: str, tick: int) -> Array | None:
        """Returns what to feed; None where the files do not say.

        Raises:
            DriveError: The recording is over.
        """
        rows = self.ticks.get(port, {})
        if tick in rows or port in self.every or not rows:
            return rows[tick] if tick in rows else self.every.get(port)
        message = f"the recording ends after {max(rows) + 1} ticks"
        raise DriveError(message, where=port, hint=f"--ticks {max(rows) + 1}")


def read_recording(path: Path, ports: Sequence[Port], states: Collection[str], ticks: int | None) -> Recording:
    """Reads inputs from an npz file or a folder of npy files.

    An array called `PORT` is fed at every tick or, if it has one axis more than the port, is taken apart along its
    first axis, one entry a tick. Arrays called `PORT/0`, `PORT/1`, ... or `PORT_0`, `PORT_1`, ... are fed at these
    ticks and come before `PORT`. In a folder files have the same names: `PORT.npy`, `PORT/0.npy`, `PORT_0.npy`. A
    name that is a port's own is never taken apart: `past_0` is the port of that name, if there is one. A cache takes
    its first state from here; what follows it computes itself. A trace that onnxfix recorded serves as well.

    Args:
        path: The file or folder; it holds no pickled objects.
        ports: The model's inputs.
        states: Those of them that are caches.
        ticks: How many ticks must be there; None for as many as there are.

    Raises:
        UsageError: A file cannot be read, an array belongs to no input or is empty, its element type or shape is
            wrong, two arrays are for the same port and tick, or ticks are missing.
    """
    by_name = {port.name: port for port in ports}
    every: dict[str, Array] = {}
    single: dict[str, dict[int, Array]] = {}
    for key, array in _arrays(path):
        where = f"{path}: {key}"
        port, tick = _meant(key, by_name, where)
        if tick is None and (port.rank is None or array.ndim != port.rank + 1):
            every[port.name] = _checked(array, port, where, states)
            continue
        rows = single.setdefault(port.name, {})
        found = {tick: array} if tick is not None else dict(enumerate(array))
        if twice := sorted(rows.keys() & found.keys()):
            message = f"there are two arrays for tick {twice[0]} of `{port.name}`"
            raise UsageError(message, where=where, hint="say each tick once")
        rows |= {number: _checked(one, port, where, states) for number, one in found.items()}
    for name in sorted(single.keys() - every.keys()):
        needed = 1 if name in states else ticks or max(single[name], default=0) + 1
        _require_ticks(single[name], needed, f"{path}: {name}")
    return Recording(every, single)


def _require_ticks(rows: Mapping[int, Array], needed: int, where: str) -> None:
    missing = next((tick for tick in range(needed) if tick not in rows), None)
    if missing is not None:
        hint = f"drive the model for {missing} ticks (--ticks {missing})" if missing else "count ticks from 0"
        raise UsageError(f"there is no array for tick {missing}", where=where, hint=hint)


def _meant(key: str, ports: Mapping[str, Port], where: str) -> tuple[Port, int | None]:
    """Returns the port and the tick that an array's name tells; no tick where it is for all."""
    if key in ports:
        return ports[key], None
    match = re.fullmatch(r"(.*)[/_]([0-9]{1,9})", key)
    if match and match[1] in ports:
        return ports[match[1]], int(match[2])
    first = next(iter(ports), "x")
    hint = f"name it after an input ({', '.join(ports)}), or input and tick (`{first}/0`, `{first}_0`)"
    raise UsageError("this array belongs to no input of the model", where=where, hint=hint)


def _arrays(path: Path) -> Iterator[tuple[str, Array]]:
    """Yields the arrays of a file or a folder, sorted by name."""
    try:
        if path.is_dir():
            files = sorted(path.rglob("*.npy"))
            if not files:
                raise UsageError("there is no npy file in this folder", where=str(path), hint="numpy.save(FILE, ARRAY)")
            for file in files:
                yield file.relative_to(path).with_suffix("").as_posix(), _array(file)
            return
        with _opened(path) as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError("this is a single array", where=str(path), hint="numpy.savez(FILE, PORT=ARRAY, ...)")
            is_trace = "onnxfix" in archive.files
            for key in sorted(archive.files):
                name = _in_trace(key) if is_trace else key
                if name is not None:
                    yield name, archive[key]
    except OSError as error:
        raise UsageError(f"the inputs cannot be read: {error.strerror or error}", where=str(path)) from None
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        hint = "numpy.savez(FILE, PORT=ARRAY, ...), numbers only"
        raise UsageError(f"this is no npz file of plain arrays: {error}", where=str(path), hint=hint) from None


def _opened(path: Path) -> BinaryIO:
    # A pipe would be waited for.
    if path.exists() and not path.is_file():
        raise UsageError("this is no regular file", where=str(path), hint="write the arrays into a file first")
    return path.open("rb")


def _in_trace(key: str) -> str | None:
    """Returns what an array of a recorded run is called here; None for what is no input."""
    match = re.fullmatch(r"tick/([0-9]{1,9})/input/(.+)|start/(.+)", key)
    if match is None:
        return None
    return f"{match[3]}/0" if match[3] else f"{match[2]}/{match[1]}"


def _array(file: Path) -> Array:
    try:
        with _opened(file) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
            return array
    except (ValueError, EOFError, MemoryError) as error:
        hint = "numpy.save(FILE, ARRAY), numbers only"
        raise UsageError(f"this is no npy file of a plain array: {error}", where=str(file), hint=hint) from None


def _checked(array: Array, port: Port, where: str, states: Collection[str]) -> Array:
    if port.dtype not in DRIVABLE:
        raise UsageError(f"an input of element type {port.dtype} cannot be fed", where=where)
    if array.dtype != storage(port.dtype):
        hint = f"array.astype('{storage(port.dtype)}')"
        raise UsageError(f"the array is {array.dtype}, the port {port.dtype}", where=where, hint=hint)
    fits = port.dims is None or (
        array.ndim == len(port.dims)
        and all(not isinstance(dim, int) or dim == size for dim, size in zip(port.dims, array.shape, strict=True))
    )
    if not fits:
        raise UsageError(
            f"the array is {list(array.shape)}, the port {show_dims(port.dims)}",
            where=where,
            hint="one axis more, in front, counts ticks",
        )
    if not array.size and port.name not in states:
        message = f"the array {list(array.shape)} is empty, and only a cache may be"
        raise UsageError(message, where=where, hint="record a call that feeds something")
    return np.asarray(array, order="C")
