"""A recorded run of a model: what it was fed and put out, tick by tick, in one npz file.

The file is a plain npz (a zip; nothing is compressed, nothing is pickled) with these arrays:

```
onnxfix                  the header: one JSON object, as a text (no dims) or as UTF-8 bytes (uint8)
start/PORT               the first state, one array for each input that is a cache
tick/T/input/PORT        what else was fed at tick T, counted from 0
tick/T/output/PORT       everything that was put out, caches included
```

The state before a later tick is what the tick before put out, so it is stored once. bfloat16, which numpy lacks, is
stored as its bits, uint16. Where a model was driven twice, from a full and from an empty cache, the second run lies
under `empty/`. What the header says, `onnxfix.verify.header` tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

from onnxfix.convention.layout import show_dims
from onnxfix.convention.signature import Port
from onnxfix.errors import ModelWriteError, VacuousCheck
from onnxfix.model import atomic
from onnxfix.verify.dtypes import storage
from onnxfix.verify.header import Header, RecordedRun, TraceError, parse_header
from onnxfix.verify.inference import Stored, completed
from onnxfix.verify.stream import Tick, next_state

if TYPE_CHECKING:
    from onnxfix.convention.binding import Binding
    from onnxfix.convention.route import Array

HEADER = "onnxfix"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_AGAIN = "record it again, or copy it again"
_MADE_BY = "`onnxfix record MODEL TRACE.npz` makes one; docs/trace.md has the ten lines that make one from PyTorch"
_LONGEST = (1 << 16) - 1 - len(".npy")
"""Bytes that the name of an array may have."""
_SIZE_LIMIT = 1 << 30
"""Bytes from which on a member of a zip needs long size fields, with room for what stands before the values."""


def place(runs: Iterable[RecordedRun], run: RecordedRun) -> str:
    """Returns what stands before the names of a run's arrays."""
    return "" if run == next(iter(runs)) else f"{run.start}/"


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives the block a new file beside `path`, and moves it there when the block ends: whole, or not at all.

    Raises:
        ModelWriteError: No file can stand there.
    """
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise ModelWriteError("the trace needs a file", where=str(path), hint="name one, for example run.npz")
    if not path.parent.is_dir():
        hint = "make it, or correct the path"
        raise ModelWriteError(f"there is no folder `{path.parent}`", where=str(path), hint=hint)
    try:
        atomic.sweep(path)
        new = atomic.NewFile(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    with new:
        yield new.path
        try:
            with new.path.open("rb+") as written:
                os.fsync(written.fileno())
            new.move(path)
        except OSError as error:
            raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ModelWriteError:
    return ModelWriteError(f"the trace cannot be written: {error.strerror or error}", where=str(path))


class TraceWriter:
    """Writes a trace tick by tick: no array is kept.

    As a context manager it removes the file unless `finish` was called.

    Attributes:
        path: The file; what it held is gone.
    """

    def __init__(self, path: Path) -> None:
        """Makes the file.

        Raises:
            ModelWriteError: It cannot be made.
        """
        self.path = path
        self._is_finished = False
        with self._writing():
            self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_finished:
            # Closing writes the list of members, for which a full disk has no room.
            with contextlib.suppress(OSError):
                self._zip.close()
            self.path.unlink(missing_ok=True)

    def start(self, prefix: str, state: Mapping[str, Array]) -> None:
        """Writes the first state of a run.

        Raises:
            ModelWriteError: The file takes no more.
        """
        for name, array in state.items():
            self._write(f"{prefix}start/{name}", array)

    def tick(self, prefix: str, tick: Tick) -> None:
        """Writes one tick of a run.

        Raises:
            ModelWriteError: The file takes no more.
        """
        for kind, arrays in (("input", tick.inputs), ("output", tick.fetched)):
            for name, array in arrays.items():
                self._write(f"{prefix}tick/{tick.number}/{kind}/{name}", array)

    def finish(self, header: Header) -> None:
        """Writes the header, and closes the file.

        Raises:
            ModelWriteError: The file takes no more.
        """
        text = replace(header, checksum=checksum(self._zip.infolist(), header.to_text())).to_text()
        self._write(HEADER, np.frombuffer(text.encode(), np.uint8))
        with self._writing():
            self._zip.close()
        self._is_finished = True

    def _write(self, name: str, array: Array) -> None:
        _require_name(name)
        # No time stamp: the same run gives the same bytes.
        entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
        with self._writing(), self._zip.open(entry, "w", force_zip64=array.nbytes >= _SIZE_LIMIT) as member:
            npy.write_array(member, np.asarray(array), allow_pickle=False)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path, error) from None


def checksum(members: Iterable[zipfile.ZipInfo], header: str) -> str:
    """Returns a fingerprint of a trace: of its header, and of all other members, each checked when it is read.

    Args:
        members: The members of the zip; of the header's own nothing counts.
        header: The header as JSON; its key `checksum` does not count, nor how it is laid out.
    """
    lines = sorted(f"{one.filename} {one.file_size} {one.CRC}\n" for one in members if one.filename != f"{HEADER}.npy")
    said = {key: value for key, value in json.loads(header).items() if key != "checksum"}
    lines.append(json.dumps(said, sort_keys=True, separators=(",", ":")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _require_name(name: str) -> None:
    """Refuses an array that no zip can hold: names end at a NUL there, and have at most 65,535 bytes.

    Raises:
        ModelWriteError: The array is called so.
    """
    if "\0" in name or len(name.encode()) > _LONGEST:
        shown = name if len(name) < 100 else f"{name[:97]}..."
        message = "no trace can hold an array of this name: it is too long, or there is a NUL in it"
        raise ModelWriteError(message, where=ascii(shown)[1:-1], hint="let the exporter call the port otherwise")


class Trace:
    """A recorded run, read array by array.

    That the file is a trace, whole, unchanged, and that no array is missing, is checked when it is opened; each array
    when it is read.

    Attributes:
        path: The file.
        header: What the file says of the run.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens a trace.

        Raises:
            TraceError: There is no such file, or it is no trace, truncated, changed, or contradicts itself.
        """
        self.path = Path(path)
        with self._reading():
            _require_zip(self.path)
            self._zip = zipfile.ZipFile(self.path)
        try:
            self._members = self._listed()
            self.header = self._read_header()
            self._require_members()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    @cached_property
    def binding(self) -> Binding:
        """The convention of the recorded model on its ports.

        Raises:
            TraceError: They do not fit.
            VacuousCheck: Nothing was recorded of any state.
        """
        if not self.header.convention.caches or not any(name.startswith("start/") for name in self._members):
            raise VacuousCheck("the trace holds no state, so nothing is proven", where=str(self.path), hint=_MADE_BY)
        return self.header.bind(str(self.path))

    def ticks(self, run: RecordedRun) -> Iterator[Tick]:
        """Yields the ticks of a run; only one is held at a time.

        Raises:
            TraceError: An array is damaged, or is not of the type and shape that the header tells.
        """
        state = self.start(run)
        for number in range(run.ticks):
            fetched = self._arrays(run, f"tick/{number}/output/", self.header.signature.outputs)
            put_out = run.put_out[number] if number < len(run.put_out) else 0
            yield Tick(number, self.inputs(run, number), state, put_out, fetched)
            state = next_state(state, self.binding.feedback, fetched)

    def start(self, run: RecordedRun) -> dict[str, Array]:
        """Returns the first state of a run."""
        return self._arrays(run, "start/", self._states)

    def inputs(self, run: RecordedRun, number: int) -> dict[str, Array]:
        """Returns what was fed at a tick besides the state."""
        return self._arrays(run, f"tick/{number}/input/", self._ordinary)

    @cached_property
    def _states(self) -> tuple[Port, ...]:
        """The inputs that are caches."""
        return tuple(port for port in self.header.signature.inputs if f"start/{port.name}" in self._members)

    @cached_property
    def _ordinary(self) -> tuple[Port, ...]:
        """All other inputs."""
        return tuple(port for port in self.header.signature.inputs if port not in self._states)

    def _arrays(self, run: RecordedRun, folder: str, ports: Iterable[Port]) -> dict[str, Array]:
        prefix = place(self.header.runs, run)
        return {port.name: self._array(f"{prefix}{folder}{port.name}", port) for port in ports}

    def _array(self, name: str, port: Port) -> Array:
        array = self._read(name)
        if array.dtype != storage(port.dtype):
            message = f"the array is {array.dtype}, the port {port.dtype}"
            raise TraceError(message, where=self._where(name), hint=_AGAIN)
        dims = port.dims if port.dims is not None else (None,) * array.ndim
        if len(dims) != array.ndim or any(
            isinstance(dim, int) and dim != size for dim, size in zip(dims, array.shape, strict=True)
        ):
            message = f"the array is {list(array.shape)}, the port {show_dims(port.dims)}"
            raise TraceError(message, where=self._where(name), hint=_AGAIN)
        return array

    # The file.

    def _where(self, name: str) -> str:
        return f"{self.path}: {name}"

    @contextlib.contextmanager
    def _reading(self, name: str = "") -> Iterator[None]:
        """Turns whatever damaged files make zipfile and numpy raise into one kind of error."""
        where = self._where(name) if name else str(self.path)
        try:
            yield
        except OSError as error:
            raise TraceError(f"the trace cannot be read: {error.strerror or error}", where=where) from None
        except (ValueError, EOFError, zipfile.BadZipFile, struct.error, NotImplementedError, OverflowError) as error:
            raise TraceError(f"the trace is damaged: {error}", where=where, hint=_AGAIN) from None

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        """Returns the members by array."""
        members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = member.filename.removesuffix(".npy")
            where = self._where(member.filename)
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                hint = "numpy.savez, not numpy.savez_compressed"
                raise TraceError("the array is compressed or encrypted", where=where, hint=hint)
            if name == member.filename or name in members or member.file_size != member.compress_size:
                raise TraceError("the file is no npz as numpy writes it", where=where, hint=_AGAIN)
            members[name] = member
        return members

    def _read_header(self) -> Header:
        if HEADER not in self._members:
            message = f"this npz file is no trace: it has no array `{HEADER}`"
            raise TraceError(message, where=str(self.path), hint=_MADE_BY)
        array = self._read(HEADER)
        with self._reading(HEADER):
            text = array.tobytes().decode() if array.dtype == np.uint8 else str(array)
        header = parse_header(text, self._where(HEADER))
        if header.checksum and header.checksum != checksum(self._members.values(), text):
            raise TraceError("the trace was changed after it was recorded", where=str(self.path), hint=_AGAIN)
        if header.runs and (header.signature.inputs or header.signature.outputs):
            return header
        return completed(header, {name: self._describe(name) for name in self._members}, str(self.path))

    def _require_members(self) -> None:
        """Checks that the file holds what the header tells, and nothing else."""
        header = self.header
        wanted = {HEADER}
        for run in header.runs:
            prefix = place(header.runs, run)
            if run.ticks > len(self._members):
                raise TraceError(
                    f"the header tells of {run.ticks} ticks, of which most are missing", where=str(self.path)
                )
            wanted |= {f"{prefix}start/{port.name}" for port in self._states}
            for number in range(run.ticks):
                wanted |= {f"{prefix}tick/{number}/input/{port.name}" for port in self._ordinary}
                wanted |= {f"{prefix}tick/{number}/output/{port.name}" for port in header.signature.outputs}
        if missing := sorted(wanted - self._members.keys()):
            raise TraceError("this array is missing", where=self._where(missing[0]), hint=_AGAIN)
        if odd := sorted(self._members.keys() - wanted):
            raise TraceError("this array belongs to no tick and port of the trace", where=self._where(odd[0]))

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], np.dtype[np.generic], tuple[int, ...], bool]]:
        """Opens an array, and reads what stands before its values."""
        with self._reading(name), self._zip.open(self._members[name]) as member:
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            read = readers.get(npy.read_magic(member))
            if read is None:
                raise ValueError("it is an array of a newer numpy")
            shape, is_fortran, dtype = read(member)
            if dtype.hasobject:
                raise ValueError("it holds pickled objects, which are never loaded")
            if math.prod(shape) * dtype.itemsize != self._members[name].file_size - member.tell():
                raise ValueError("the array is not as long as its shape")
            yield member, dtype, shape, is_fortran

    def _describe(self, name: str) -> Stored:
        with self._opened(name) as (_, dtype, shape, _):
            return Stored(str(dtype), shape)

    def _read(self, name: str) -> Array:
        with self._opened(name) as (member, dtype, shape, is_fortran):
            flat = np.frombuffer(member.read(), dtype)
            return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)


def _require_zip(path: Path) -> None:
    # A pipe would be waited for.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise TraceError("this is no regular file", where=str(path), hint=_MADE_BY)
    with path.open("rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY":
        raise TraceError("this is a single array, no trace", where=str(path), hint=_MADE_BY)
    if head[:2] != b"PK":
        raise TraceError("this is no npz file", where=str(path), hint=_MADE_BY)
    if not zipfile.is_zipfile(path):
        raise TraceError("the trace is truncated", where=str(path), hint=_AGAIN)
